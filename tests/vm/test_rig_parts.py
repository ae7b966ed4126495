# SPDX-License-Identifier: MIT
"""The rig's parts that need no QEMU: archive, module order, cache, wire, protocol, refusals."""

from __future__ import annotations

import io
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from vm.adapters import Adapter
from vm.cache import cache_root, filled, scratch
from vm.failure import Missing, RigError
from vm.initrd import Archive
from vm.jumper import Jumper
from vm.kernel import depends
from vm.packages import cached_kernel, version_key
from vm.qmp import Qmp, QmpError

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return cache_root()


def test_archive_holds_what_was_put_in_aligned_to_four() -> None:
    archive = Archive()
    archive.folder("bin")
    archive.file("bin/abc", b"12345")
    written = archive.closed()
    assert written.count(b"070701") == 3
    assert len(written) % 4 == 0
    entry = written.index(b"bin/abc\0")
    assert written[entry:].split(b"\0", 1)[1].lstrip(b"\0").startswith(b"12345")


def test_depends_are_read_from_the_modinfo_section() -> None:
    assert depends(b"\0license=GPL\0depends=usbserial,usbcore\0name=x\0") == [
        "usbserial",
        "usbcore",
    ]
    assert depends(b"\0depends=\0") == []


def test_newer_kernel_sorts_last_whatever_its_digits() -> None:
    names = ["linux-image-6.12.9-amd64_1", "linux-image-6.1.0-56-amd64_1", "linux-image-6.2-a_1"]
    assert sorted(names, key=version_key) == [names[1], names[2], names[0]]


def test_a_series_is_not_a_prefix_of_another(empty_cache: Path) -> None:
    (empty_cache / "kernels" / "linux-image-6.12.117+deb12-amd64_1").mkdir(parents=True)
    assert cached_kernel("6.12").name.startswith("linux-image-6.12.117")
    with pytest.raises(Missing, match=r"--kernel 6\.1`"):
        cached_kernel("6.1")


def test_cache_entry_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise RigError("no network")

    with pytest.raises(RigError):
        filled(tmp_path / "entry", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["entry.lock"]


def test_two_at_once_fill_an_entry_once(tmp_path: Path) -> None:
    fills: list[Path] = []

    def fill(folder: Path) -> None:
        fills.append(folder)
        time.sleep(0.05)  # the other one has the time to come too late

    threads = [threading.Thread(target=filled, args=(tmp_path / "e", fill)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fills) == 1


def test_scratch_of_a_killed_rig_is_swept_by_the_next(empty_cache: Path) -> None:
    program = (
        "import os, signal; from vm.cache import scratch; s = scratch();"
        "print(s.__enter__(), flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / "hw")}
    killed = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    left = Path(killed.stdout.strip())
    assert left.is_dir()
    with scratch() as mine, scratch() as neighbour:
        assert not left.exists()
        assert mine.is_dir()
        assert neighbour.is_dir()
    assert list((empty_cache / "runs").iterdir()) == []


def test_rig_killed_before_its_qemu_has_begun_leaves_none(tmp_path: Path) -> None:
    """Between the fork and prctl(PR_SET_PDEATHSIG) the death of the rig sends no signal."""
    programs = {
        "setpriv": 'until [ -e go ]; do sleep 0.02; done; exec /usr/bin/setpriv "$@"',
        "qemu-system-x86_64": "touch started; exec sleep 60",
    }
    for name, script in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\ncd {tmp_path}\n{script}\n")
        (tmp_path / name).chmod(0o755)
    program = (
        "import os, signal; from pathlib import Path; from vm.initrd import Boot;"
        "from vm.qemu import Qemu, Shape, Shares; here = Path.cwd();"
        "qemu = Qemu(Boot('', here, here), Shares(here, here), here / 'console', Shape());"
        "print(qemu.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    path = f"{tmp_path}:{os.environ['PATH']}"
    killed = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT / "hw"), "PATH": path},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    orphan = os.pidfd_open(int(killed.stdout))
    try:
        (tmp_path / "go").touch()
        assert select.select([orphan], [], [], 20)[0]
    finally:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(orphan, signal.SIGKILL)
        os.close(orphan)
    assert not (tmp_path / "started").exists()


def test_without_a_kernel_the_sentence_names_the_command(empty_cache: Path) -> None:
    with pytest.raises(Missing, match=r"run `python hw/vm/rig\.py fetch` first"):
        cached_kernel()


def test_relative_cache_home_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert cache_root() == Path.home() / ".cache" / "udriver" / "vm"


def test_jumper_returns_every_byte_to_a_guest_that_reads_late() -> None:
    jumper = Jumper()
    guest = jumper.far_end.dup()
    data = os.urandom(4 << 20)  # far more than the socket's buffers hold
    guest.settimeout(10)
    guest.sendall(data)
    got = io.BytesIO()
    while got.tell() < len(data):
        got.write(guest.recv(1 << 20))
    assert got.getvalue() == data
    guest.close()
    jumper.pull()


def test_open_wire_keeps_what_it_heard_and_says_what_it_is_told() -> None:
    jumper = Jumper()
    guest = jumper.far_end.dup()
    guest.settimeout(10)
    jumper.join(joined=False)
    guest.sendall(b"question")
    jumper.say(b"answer")
    assert guest.recv(100) == b"answer"
    deadline = time.monotonic() + 10
    heard = b""
    while heard != b"question" and time.monotonic() < deadline:
        heard += jumper.heard()
    assert heard == b"question"
    guest.close()
    jumper.pull()


def test_pulled_jumper_leaves_no_descriptor_and_takes_a_second_pull() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        jumper = Jumper()
        jumper.pull()
        jumper.pull()
        jumper.say(b"into the void")
    assert len(os.listdir("/proc/self/fd")) == before


def test_qmp_pairs_replies_with_commands_among_events() -> None:
    ours, qemu = socket.socketpair()
    qmp = Qmp(ours)
    event = {"event": "DEVICE_DELETED", "data": {"device": "a"}}
    messages = [{"QMP": {}}, event, {"return": 7}, {"error": {"desc": "no such device"}}]
    qemu.sendall(b"".join(json.dumps(message).encode() + b"\n" for message in messages))
    assert qmp.execute("one") == 7
    with pytest.raises(QmpError, match="refused two: no such device"):
        qmp.execute("two")
    assert qmp.wait_event("DEVICE_DELETED", lambda data: data["device"] == "a", 1) == event
    qemu.close()
    with pytest.raises(QmpError, match="QEMU"):
        qmp.execute("three")
    ours.close()
    for thread in threading.enumerate():
        if thread.name == "qmp":
            thread.join()  # it has seen the end, and is about to let go of the socket


@pytest.mark.parametrize("serial", ["x" * 127, "a\0b"])
def test_impossible_serials_are_refused_before_qemu_sees_them(serial: str) -> None:
    with pytest.raises(RigError, match="at most 126 bytes"):
        Adapter(serial=serial)


def test_fetch_that_may_not_install_says_the_command_and_exits_77(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": str(tmp_path)}
    rig = [sys.executable, str(CHECKOUT / "hw" / "vm" / "rig.py"), "fetch"]
    done = subprocess.run(rig, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (77, "")
    assert "`sudo apt-get install --yes --no-install-recommends busybox-static" in done.stderr


def test_without_qemu_the_run_says_the_command_and_exits_77(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": str(tmp_path)}
    rig = [sys.executable, str(CHECKOUT / "hw" / "vm" / "rig.py"), "run", "--", "true"]
    done = subprocess.run(rig, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 77
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "qemu-system-x86_64" in done.stderr
    assert "rig.py fetch" in done.stderr


def test_what_needs_a_guest_is_collected_on_the_rung_that_boots_one() -> None:
    files = sorted(map(str, (CHECKOUT / "tests").glob("*/test_in_guest.py")))
    options = ["--collect-only", "-q", "-p", "no:cacheprovider", "--udriver-rung", "qemu"]
    collected = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *files],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert all(f"{Path(file).relative_to(CHECKOUT)}::" in collected.stdout for file in files)
    assert "deselected" not in collected.stdout


def test_the_readme_names_files_that_are_there() -> None:
    named = re.findall(r"tests/[\w/]+\.py", (CHECKOUT / "hw" / "vm" / "README.md").read_text())
    assert named
    assert all((CHECKOUT / name).is_file() for name in named)
