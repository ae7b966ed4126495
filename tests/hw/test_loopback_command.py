# SPDX-License-Identifier: MIT
"""``python -m udriver_hw.loopback`` and spawn(): a device in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import udriver_hw
from udriver_hw import loopback
from udriver_hw.loopback import Loopback
from udriver_hw.spawned import spawn

Until = Callable[[Callable[[], object]], None]
OpenTty = Callable[[str], int]
ReadAll = Callable[[int, int], bytes]
Server = subprocess.Popen[bytes]
Serve = Callable[..., Server]

SOURCES = str(Path(udriver_hw.__file__).parents[1])
COMMAND = [sys.executable, "-P", "-m", "udriver_hw.loopback"]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """``serve(*arguments)``: the command, running."""
    with ExitStack() as stack:

        def start(*arguments: str) -> Server:
            server = stack.enter_context(
                subprocess.Popen(
                    [*COMMAND, *arguments],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env={**os.environ, "PYTHONPATH": SOURCES},
                )
            )
            stack.callback(server.kill)
            return server

        yield start


def path_of(server: Server) -> str:
    assert server.stdout is not None
    return server.stdout.readline().decode().removesuffix("\n")


def finish(server: Server) -> tuple[bytes, bytes]:
    """End of file on stdin; what else it printed."""
    return server.communicate(timeout=30)


def echoes(path: str, open_tty: OpenTty, read_exactly: ReadAll) -> bool:
    fd = open_tty(path)
    os.write(fd, b"ping")
    return read_exactly(fd, 4) == b"ping"


@pytest.mark.parametrize("arguments", [(), ("--wiring", "echo"), ("--paced",)])
def test_it_prints_one_path_and_serves_until_end_of_file(
    arguments: tuple[str, ...], serve: Serve, open_tty: OpenTty, read_exactly: ReadAll
) -> None:
    server = serve(*arguments)
    path = path_of(server)
    assert echoes(path, open_tty, read_exactly)
    assert finish(server) == (b"", b"")
    assert (server.returncode, os.path.exists(path)) == (0, False)


@pytest.mark.parametrize(
    ("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_it_in_order(signum: int, status: int, serve: Serve, tmp_path: Path) -> None:
    link = tmp_path / "tty"
    server = serve("--link", str(link))
    path_of(server)
    server.send_signal(signum)
    assert (server.wait(timeout=30), os.path.lexists(link)) == (status, False)
    assert finish(server) == (b"", b"")


def test_a_signal_storm_does_not_hang_it(serve: Serve) -> None:
    server = serve()
    path_of(server)
    for signum in [signal.SIGTERM, signal.SIGINT, signal.SIGHUP] * 20:
        server.send_signal(signum)
    # one that comes after its handlers are gone kills it, which is an end too
    assert server.wait(timeout=30) in (129, 130, 143, -15, -2, -1)


def test_a_script(serve: Serve, open_tty: OpenTty, read_exactly: ReadAll, tmp_path: Path) -> None:
    script = tmp_path / "modem.txt"
    script.write_text('expect b"AT\\r"\nsend b"OK\\r\\n"\n')
    fd = open_tty(path_of(serve("--script", str(script))))
    os.write(fd, b"AT\r")
    assert read_exactly(fd, 4) == b"OK\r\n"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"send OK\n", b"line 1: send wants bytes"),
        (b"\xff\xfe\n", b"not a text file"),
        (None, b"No such"),
    ],
)
def test_a_bad_script_is_one_sentence(
    content: bytes | None, why: bytes, serve: Serve, tmp_path: Path
) -> None:
    script = tmp_path / "bad.txt"
    if content is not None:
        script.write_bytes(content)
    server = serve("--script", str(script))
    out, err = finish(server)
    assert (server.returncode, out, err.count(b"\n")) == (2, b"", 1)
    assert b"bad.txt" in err
    assert why in err


def test_a_link_is_made_and_removed(
    serve: Serve, open_tty: OpenTty, read_exactly: ReadAll, tmp_path: Path
) -> None:
    link = tmp_path / "tty"
    server = serve("--link", str(link))
    assert path_of(server) == os.readlink(link)
    assert echoes(str(link), open_tty, read_exactly)
    finish(server)
    assert not os.path.lexists(link)


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_somebody_elses_is_not_replaced(kind: str, serve: Serve, tmp_path: Path) -> None:
    link = tmp_path / "tty"
    if kind == "file":
        link.write_text("mine")
    elif kind == "folder":
        link.mkdir()
    else:
        link.symlink_to("/dev/null")
    server = serve("--link", str(link))
    out, err = finish(server)
    assert (server.returncode, out, err.count(b"\n")) == (2, b"", 1)
    assert os.path.lexists(link)


def test_a_link_in_use_is_refused(serve: Serve, tmp_path: Path) -> None:
    link = tmp_path / "tty"
    path = path_of(serve("--link", str(link)))
    second = serve("--link", str(link))
    finish(second)
    assert (second.returncode, os.readlink(link)) == (2, path)


def test_a_link_to_a_pty_that_is_gone_is_replaced(serve: Serve, tmp_path: Path) -> None:
    link = tmp_path / "tty"
    link.symlink_to("/dev/pts/99999999")  # as a killed server leaves it
    server = serve("--link", str(link))
    assert path_of(server) == os.readlink(link)


def test_a_left_link_whose_number_is_ours_by_now_is_replaced(tmp_path: Path) -> None:
    link = tmp_path / "tty"
    with Loopback() as device:
        link.symlink_to(device.path)
        loopback._link(link, device.path)
        assert os.readlink(link) == device.path


def test_a_link_that_became_somebody_elses_stays(serve: Serve, tmp_path: Path) -> None:
    link = tmp_path / "tty"
    server = serve("--link", str(link))
    path_of(server)
    link.unlink()
    link.write_text("mine")
    finish(server)
    assert link.read_text() == "mine"


def test_a_closed_stdout_is_one_sentence() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        result = subprocess.run(
            COMMAND, check=False, stdin=subprocess.PIPE, stdout=write_end, stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": SOURCES},
        )  # fmt: skip
    finally:
        os.close(write_end)
    assert (result.returncode, result.stderr.count(b"\n")) == (2, 1), result.stderr


PARENT = """
import sys
from udriver_hw.spawned import spawn
with spawn() as device:
    print(device.path, flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_it_dies_with_its_parent(until: Until) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": SOURCES},
    ) as parent:  # fmt: skip
        path = path_of(parent)
        assert os.path.exists(path)
        parent.kill()
    until(lambda: not os.path.exists(path))


def test_unplug_kills_it(until: Until, open_tty: OpenTty) -> None:
    with spawn() as device:
        open_tty(device.path)
        device.unplug()
        until(lambda: not os.path.exists(device.path))


def test_what_does_not_come_up_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OSError, match="did not start; run it by hand"):
        spawn(script=tmp_path / "missing")
    assert "No such file" in capfd.readouterr().err


@pytest.mark.parametrize("pythonpath", [None, "", os.pathsep, f"/nowhere{os.pathsep}"])
def test_a_hostile_folder_is_not_looked_into(
    pythonpath: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_tty: OpenTty,
    read_exactly: ReadAll,
) -> None:  # fmt: skip
    for name in ("hw.py", "udriver_hw.py", "argparse.py", "signal.py"):
        (tmp_path / name).write_text("raise SystemExit('hostile')\n")
    monkeypatch.chdir(tmp_path)
    if pythonpath is None:
        monkeypatch.delenv("PYTHONPATH", raising=False)
    else:
        monkeypatch.setenv("PYTHONPATH", pythonpath)
    with spawn(wiring="echo") as device:
        assert echoes(device.path, open_tty, read_exactly)
