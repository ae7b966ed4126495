# SPDX-License-Identifier: MIT
"""The file: whole or not at all, never through a link, and what was there comes back."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from udriver.cli import sentence_of
from udriver.drivers.id_table import IdRow
from udriver.errors import Busy
from udriver.udev import RULE_NAME, is_ours, render
from udriver.udev_install import FOLDERS, SAVED_SUFFIX, Refused, RulesFolder, copies, difference

RULE = render()
OLDER = render([IdRow("0403", "6001", "an older table's chip", "ftdi_sio")])
FOREIGN = 'KERNEL=="ttyUSB0", SYMLINK+="mine"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / FOLDERS[0]
    path.mkdir(parents=True)
    return path


def opened(root: Path, *, make: bool = True) -> AbstractContextManager[RulesFolder | None]:
    return RulesFolder.open(root, make=make)


def install(root: Path, text: str = RULE) -> None:
    with opened(root) as rules:
        assert rules is not None
        rules.install(text)


def uninstall(root: Path) -> None:
    with opened(root, make=False) as rules:
        assert rules is not None
        rules.uninstall()


def names(folder: Path) -> set[str]:
    return set(os.listdir(folder))


def test_the_folders_are_made_and_the_file_is_for_all_to_read(tmp_path: Path) -> None:
    umask = os.umask(0o077)
    try:
        install(tmp_path)
    finally:
        os.umask(umask)
    path = tmp_path / FOLDERS[0] / RULE_NAME
    found = path.stat()
    assert path.read_text() == RULE
    assert stat.S_IMODE(found.st_mode) == 0o644
    assert found.st_uid == os.geteuid()
    assert names(path.parent) == {RULE_NAME}


def test_without_make_a_missing_folder_is_none(tmp_path: Path) -> None:
    with opened(tmp_path, make=False) as rules:
        assert rules is None
    assert names(tmp_path) == set()


def test_installing_twice_does_not_touch_the_file(tmp_path: Path, folder: Path) -> None:
    install(tmp_path)
    before = (folder / RULE_NAME).stat()
    install(tmp_path)
    after = (folder / RULE_NAME).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_an_older_one_of_ours_is_replaced_and_not_kept(tmp_path: Path, folder: Path) -> None:
    install(tmp_path, OLDER)
    install(tmp_path)
    assert (folder / RULE_NAME).read_text() == RULE
    assert names(folder) == {RULE_NAME}


def test_a_file_of_somebody_else_comes_back(tmp_path: Path, folder: Path) -> None:
    target = folder / RULE_NAME
    target.write_bytes(FOREIGN.encode() + b"# \xff\n")
    target.chmod(0o600)
    install(tmp_path, OLDER)
    install(tmp_path)
    assert target.read_text() == RULE
    assert names(folder) == {RULE_NAME, RULE_NAME + SAVED_SUFFIX}
    uninstall(tmp_path)
    assert target.read_bytes() == FOREIGN.encode() + b"# \xff\n"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert names(folder) == {RULE_NAME}


def test_uninstalling_leaves_nothing_and_does_so_twice(tmp_path: Path, folder: Path) -> None:
    install(tmp_path)
    uninstall(tmp_path)
    assert names(folder) == set()
    uninstall(tmp_path)


@pytest.mark.parametrize("text", [FOREIGN, RULE + "# edited\n"])
def test_what_is_not_ours_is_not_removed(tmp_path: Path, folder: Path, text: str) -> None:
    (folder / RULE_NAME).write_text(text)
    with pytest.raises(Refused, match="not written by udriver"):
        uninstall(tmp_path)
    assert (folder / RULE_NAME).read_text() == text


@pytest.mark.parametrize("link", [True, False])
def test_the_command_that_removes_it_is_quoted(tmp_path: Path, link: bool) -> None:
    folder = tmp_path / "my root; x" / FOLDERS[0]
    folder.mkdir(parents=True)
    if link:
        (folder / RULE_NAME).symlink_to("/etc/passwd")
    else:
        (folder / RULE_NAME).write_text(FOREIGN)
    with pytest.raises(Refused, match=f"`sudo rm '{folder / RULE_NAME}'`"):
        uninstall(tmp_path / "my root; x")


def test_a_second_backup_would_lose_the_first_so_it_is_refused(
    tmp_path: Path, folder: Path
) -> None:
    (folder / RULE_NAME).write_text(FOREIGN)
    (folder / (RULE_NAME + SAVED_SUFFIX)).write_text("# another\n")
    with pytest.raises(Refused, match="move one of them away"):
        install(tmp_path)
    assert (folder / RULE_NAME).read_text() == FOREIGN
    assert (folder / (RULE_NAME + SAVED_SUFFIX)).read_text() == "# another\n"


@pytest.mark.parametrize("act", [install, uninstall])
@pytest.mark.parametrize("points", ["victim", "/dev/null", "missing"])
def test_a_link_at_the_target_is_refused_not_followed(
    tmp_path: Path, folder: Path, act: Callable[[Path], None], points: str
) -> None:
    victim = folder / "victim"
    victim.write_text("precious")
    (folder / RULE_NAME).symlink_to(points)
    with pytest.raises(Refused, match=f"is a symbolic link to {points}"):
        act(tmp_path)
    assert victim.read_text() == "precious"
    assert os.readlink(folder / RULE_NAME) == points
    assert names(folder) == {RULE_NAME, "victim"}


@pytest.mark.parametrize("at", ["etc", "etc/udev", "etc/udev/rules.d"])
def test_a_link_on_the_way_does_not_lead_out_of_the_root(tmp_path: Path, at: str) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / at).parent.mkdir(parents=True)
    (outside / "udev/rules.d").mkdir(parents=True)
    (root / at).symlink_to(outside)
    with pytest.raises(OSError, match="is a symbolic link, which is not followed"):
        install(root)
    assert not list(outside.rglob("*udriver*"))


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_no_plain_file_is_refused_without_hanging(
    tmp_path: Path, folder: Path, make: Callable[[Path], None]
) -> None:
    make(folder / RULE_NAME)
    with pytest.raises(Refused, match="is not a regular file"):
        install(tmp_path)
    assert names(folder) == {RULE_NAME}


@pytest.mark.parametrize("call", ["write", "fchmod", "fsync", "rename", "link"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_failure_at_any_step_leaves_the_old_file(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    (folder / RULE_NAME).write_text(FOREIGN)

    def fails(*arguments: object, **named: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fails)
    with pytest.raises(
        OSError, match=f"{os.strerror(number).lower()}; what was there is as it was"
    ) as caught:
        install(tmp_path)
    assert sentence_of(caught.value).startswith(str(folder))  # it is not stdout that is full
    monkeypatch.undo()
    assert (folder / RULE_NAME).read_text() == FOREIGN
    assert names(folder) <= {RULE_NAME, RULE_NAME + SAVED_SUFFIX}
    install(tmp_path)  # and once there is room it goes on
    uninstall(tmp_path)
    assert (folder / RULE_NAME).read_text() == FOREIGN


def test_a_short_write_is_gone_on_with_and_a_real_limit_leaves_the_old_file(
    tmp_path: Path, folder: Path
) -> None:
    """RLIMIT_FSIZE lets the first 1000 bytes through and then says EFBIG, as a full disk would."""
    install(tmp_path, OLDER)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # Python ignores SIGXFSZ
    try:
        with pytest.raises(OSError, match="file too large"):
            install(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (folder / RULE_NAME).read_text() == OLDER
    assert names(folder) == {RULE_NAME}


def test_without_permission_it_is_a_permission_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object, **named: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "mkdir", fails)
    with pytest.raises(PermissionError, match="permission denied"):
        install(tmp_path)


def test_many_installs_at_once_leave_one_whole_file(tmp_path: Path, folder: Path) -> None:
    target = folder / RULE_NAME
    target.write_text(FOREIGN)
    seen: set[str] = set()
    failed: list[BaseException] = []
    start = threading.Barrier(5)

    def work(text: str) -> None:
        start.wait()
        try:
            for _ in range(20):
                install(tmp_path, text)
                seen.add(target.read_text())
        except (OSError, Refused) as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(text,)) for text in [RULE, OLDER] * 2]
    for thread in threads:
        thread.start()
    start.wait()
    for thread in threads:
        thread.join()
    assert not failed
    assert seen == {RULE, OLDER}
    assert names(folder) == {RULE_NAME, RULE_NAME + SAVED_SUFFIX}
    uninstall(tmp_path)
    assert target.read_text() == FOREIGN


def test_two_processes_at_once(tmp_path: Path, folder: Path) -> None:
    (folder / RULE_NAME).write_text(FOREIGN)
    code = (
        "import sys; from pathlib import Path; from udriver.udev import render;"
        "from udriver.udev_install import RulesFolder;"
        "context = RulesFolder.open(Path(sys.argv[1]), make=True); rules = context.__enter__();"
        "print(flush=True); input(); rules.install(render())"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        for _ in range(2)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        process.communicate(timeout=20)
        assert process.returncode == 0
    assert (folder / RULE_NAME).read_text() == RULE
    assert (folder / (RULE_NAME + SAVED_SUFFIX)).read_text() == FOREIGN
    assert names(folder) == {RULE_NAME, RULE_NAME + SAVED_SUFFIX}


@pytest.mark.parametrize("other", ["install", "uninstall"])
def test_an_uninstall_among_others_loses_nothing(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    """Both would have looked before either acts, if they could."""
    (folder / RULE_NAME).write_text(OLDER)
    (folder / (RULE_NAME + SAVED_SUFFIX)).write_text(FOREIGN)
    looked = threading.Barrier(2)
    failed: list[BaseException] = []

    def look(text: str) -> bool:
        with contextlib.suppress(threading.BrokenBarrierError):
            looked.wait(0.5)
        return is_ours(text)

    def work(change: Callable[[Path], None]) -> None:
        try:
            change(tmp_path)
        except OSError as error:
            failed.append(error)
        except Refused:
            pass  # the other was first, and what is there is not ours any more

    monkeypatch.setattr("udriver.udev_install.is_ours", look)
    changes = [uninstall, {"install": install, "uninstall": uninstall}[other]]
    threads = [threading.Thread(target=work, args=(change,)) for change in changes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert FOREIGN in {path.read_text() for path in folder.iterdir()}
    assert names(folder) <= {RULE_NAME, RULE_NAME + SAVED_SUFFIX}


def test_a_lock_that_somebody_keeps_is_told(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("udriver.udev_install.LOCK_SECONDS", 0)
    fd = os.open(folder, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with pytest.raises(Busy, match="is locked"):
        install(tmp_path)
    os.close(fd)
    install(tmp_path)


def put(root: Path, folder: str, text: str | None) -> Path:
    path = root / folder / RULE_NAME
    path.parent.mkdir(parents=True)
    if text is None:
        path.symlink_to("/dev/null")
    else:
        path.write_text(text)
    return path


@pytest.mark.parametrize("winner", range(len(FOLDERS)))
def test_the_first_folder_wins(tmp_path: Path, winner: int) -> None:
    paths = [put(tmp_path, folder, RULE) for folder in FOLDERS[winner:]]
    assert [copy.path for copy in copies(tmp_path)] == paths


@pytest.mark.parametrize("text", [None, ""])
def test_a_link_to_dev_null_or_an_empty_file_masks(tmp_path: Path, text: str | None) -> None:
    put(tmp_path, FOLDERS[0], text)
    put(tmp_path, FOLDERS[3], RULE)
    masked, shadowed = copies(tmp_path)
    assert (masked.masks, shadowed.masks) == (True, False)


def test_a_merged_usr_is_one_folder(tmp_path: Path) -> None:
    put(tmp_path, FOLDERS[3], RULE)
    (tmp_path / "lib").symlink_to("usr/lib")
    assert len(copies(tmp_path)) == 1


def test_the_difference_names_the_file_and_survives_any_bytes() -> None:
    path = Path("/x")
    assert difference(RULE, RULE, path) == ""
    assert difference(None, "a\n", path).startswith("--- /dev/null\n+++ /x\n")
    assert difference("a\n", None, path).startswith("--- /x\n+++ /dev/null\n")
    assert difference("\udcff\n", "a\n", path).encode()
