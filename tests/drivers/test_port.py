# SPDX-License-Identifier: MIT
"""The port: how it is opened, what it refuses and in which words, and how it is put back."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import serial

import udriver.drivers.port
from tests.rungs import Quirk, without
from udriver.cli import Status, status_of
from udriver.drivers import bus
from udriver.drivers.bus import AmbiguousDevice, UsbTty
from udriver.drivers.port import TIOCGEXCL, Line, Port
from udriver.errors import Busy, DeviceGone, NotASerialPort, Unsupported

NOBODY = 65534


def settings(path: str) -> list[Any]:
    """All that tcgetattr() says; of an exclusive port only root may ask."""
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        return termios.tcgetattr(fd)
    finally:
        os.close(fd)


def exclusive(path: str) -> bool:
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        return bool(struct.unpack("i", fcntl.ioctl(fd, TIOCGEXCL, bytes(4)))[0])
    finally:
        os.close(fd)


def locked(path: str) -> bool:
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root may look at a port that is exclusive, or become another"
)


@pytest.fixture
def cooked(bare: Any) -> str:
    """A tty with settings that are far from raw, all of which must come back."""
    fd = os.open(bare.path, os.O_RDWR | os.O_NOCTTY)
    attributes = termios.tcgetattr(fd)
    attributes[0] |= termios.ICRNL | termios.IXON | termios.BRKINT
    attributes[1] |= termios.OPOST | termios.ONLCR
    attributes[3] |= termios.ICANON | termios.ECHO | termios.ISIG | termios.IEXTEN
    attributes[4] = attributes[5] = termios.B38400
    attributes[6][termios.VINTR] = b"\x07"
    attributes[6][termios.VMIN] = 3
    attributes[6][termios.VTIME] = 2
    termios.tcsetattr(fd, termios.TCSANOW, attributes)
    os.close(fd)
    path: str = bare.path
    return path


# opened and put back


def test_everything_is_put_back(cooked: str) -> None:
    before = settings(cooked)
    port = Port(cooked, Line(9600, stopbits=2))
    during = termios.tcgetattr(port.fd)
    port.close()
    assert during != before
    assert settings(cooked) == before


def test_it_is_raw_and_waits_for_one_byte(cooked: str) -> None:
    port = Port(cooked)
    iflag, oflag, cflag, lflag, ispeed, ospeed, cc = termios.tcgetattr(port.fd)
    port.close()
    assert not lflag & (termios.ICANON | termios.ECHO | termios.ISIG | termios.IEXTEN)
    assert not iflag & (termios.ICRNL | termios.IXON | termios.INLCR | termios.ISTRIP)
    assert not oflag & termios.OPOST
    assert cflag & termios.CSIZE == termios.CS8
    assert (ispeed, ospeed) == (termios.B115200, termios.B115200)
    assert cc[termios.VMIN] in (1, b"\x01")
    assert not os.get_blocking(port.fd) if port._serial.is_open else True


@without(Quirk.TAKES_ANY_LINE)
@pytest.mark.parametrize(
    ("line", "options"),
    [
        (Line(baudrate=2**31), {}),
        (Line(baudrate=-1), {}),
        (Line(bytesize=9), {}),
        (Line(parity="?"), {}),
        (Line(bytesize=7), {}),
        (Line(parity="E"), {}),
        (Line(baudrate=0), {}),
    ],
    ids=["too fast", "negative", "9 bits", "no parity", "CS7", "even parity", "no speed at all"],
)
def test_a_refused_line_is_unsupported_and_leaves_no_trace(
    cooked: str, line: Line, options: dict[str, Any]
) -> None:
    before, fds = settings(cooked), os.listdir("/proc/self/fd")
    with pytest.raises(Unsupported) as caught:
        Port(cooked, line, **options).close()
    assert caught.value.errno == errno.EOPNOTSUPP
    assert cooked in str(caught.value)
    assert settings(cooked) == before
    assert not exclusive(cooked)
    assert len(os.listdir("/proc/self/fd")) == len(fds)


def test_a_driver_that_sets_another_speed_is_found_out(
    cooked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = settings(cooked)
    ioctl = fcntl.ioctl

    def slow_hardware(fd: int, request: int, *args: Any) -> Any:
        result = ioctl(fd, request, *args)
        if request == 0x802C542A:
            return result[:36] + struct.pack("II", 9600, 9600)
        return result

    monkeypatch.setattr(fcntl, "ioctl", slow_hardware)
    with pytest.raises(Unsupported, match="set 9600 baud where 115200 was asked"):
        Port(cooked)
    monkeypatch.undo()
    assert settings(cooked) == before


@pytest.mark.parametrize(
    "at", ["_is_exclusive", "_in_waiting", "_modem_lines", "_finish_setup", "open"]
)
def test_an_unplug_while_it_is_opened_is_told_as_that(
    bare: Any, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """The calls that fail then raise termios.error, SerialException and OSError, or nothing."""
    owner: Any = {"_finish_setup": Port, "open": serial.Serial}.get(at, udriver.drivers.port)
    goes_on = getattr(owner, at)

    def pulled(*arguments: Any) -> Any:
        bare.unplug()
        end = time.monotonic() + 20
        while os.path.exists(bare.path) and time.monotonic() < end:
            time.sleep(0.005)  # a kernel takes it off the bus some ms later
        return goes_on(*arguments)

    monkeypatch.setattr(owner, at, pulled)
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(DeviceGone, match="went while it was opened") as caught:
        Port(bare.path)
    assert status_of(caught.value) == Status.LOST
    assert len(set(os.listdir("/proc/self/fd")) - before) == 0


def test_close_may_be_repeated(cooked: str) -> None:
    port = Port(cooked)
    port.close()
    port.close()


def test_close_after_a_hangup_is_quiet(bare: Any) -> None:
    port = Port(bare.path)
    bare.unplug()
    port.close()


@pytest.mark.parametrize("dtr", ["on", "off"])
@without(Quirk.HAS_MODEM_LINES)
def test_dtr_is_refused_where_there_is_none(bare: Any, dtr: Any) -> None:
    with pytest.raises(Unsupported, match="no modem lines"):
        Port(bare.path, dtr=dtr)
    Port(bare.path, dtr="keep").close()


@without(Quirk.HAS_MODEM_LINES)
def test_what_a_pty_has_not(bare: Any) -> None:
    port = Port(bare.path)
    assert port.icount() is None
    assert port.low_latency is False
    assert port.transmitter_empty()
    with pytest.raises(Unsupported, match="no modem lines") as caught:
        port.modem_lines()
    port.close()
    assert caught.value.errno == errno.EOPNOTSUPP


@without(Quirk.PURGES_AT_OPEN, Quirk.FORGETS_AT_CLOSE)
def test_stale_bytes_are_thrown_away_and_counted(bare: Any) -> None:
    bare.push(b"stale" * 20)
    fd = os.open(bare.path, os.O_RDWR | os.O_NOCTTY)
    try:
        assert select.select([fd], [], [], 5)[0]
    finally:
        os.close(fd)
    port = Port(bare.path)
    assert port.discarded == 100
    assert port.in_waiting() == 0
    port.close()


def test_nothing_stale_is_nothing_counted(bare: Any) -> None:
    port = Port(bare.path)
    assert port.discarded == 0
    port.close()


def test_a_symbolic_link_is_followed(bare: Any, tmp_path: Path) -> None:
    link = tmp_path / "usb-Board_0001"
    link.symlink_to(bare.path)
    port = Port(link)
    assert (port.path, port.device) == (str(link), bare.path)
    assert port.name == bare.path.removeprefix("/dev/")
    port.close()


# exclusive


@needs_root
def test_exclusive_while_open_and_not_after(bare: Any) -> None:
    port = Port(bare.path)
    assert exclusive(bare.path)
    assert locked(bare.path)
    port.close()
    assert not exclusive(bare.path)
    assert not locked(bare.path)


def test_not_exclusive_when_not_asked(bare: Any) -> None:
    port = Port(bare.path, exclusive=False)
    assert not exclusive(bare.path)
    assert not locked(bare.path)
    again = Port(bare.path, exclusive=False)
    again.close()
    port.close()


def test_a_second_open_in_this_process_is_busy(bare: Any) -> None:
    port = Port(bare.path)
    before = termios.tcgetattr(port.fd)
    with pytest.raises(Busy, match="this process") as caught:
        Port(bare.path)
    assert caught.value.errno == errno.EBUSY
    assert termios.tcgetattr(port.fd) == before
    port.close()
    Port(bare.path).close()


class Holder:
    """A child that has the port open; its command line is what a user sees in ps."""

    def __init__(self, code: str, path: str) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-c", f"{code}; print(flush=True); input()", path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._child.stdout is not None
        assert self._child.stdout.readline() == b"\n"
        self.pid = self._child.pid

    def close(self) -> None:
        self._child.communicate(b"\n")


OPENS = "import os, sys; fd = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY)"
LOCKS = f"{OPENS}; import fcntl; fcntl.flock(fd, fcntl.LOCK_EX)"
EXCLUDES = f"{OPENS}; import fcntl, termios; fcntl.ioctl(fd, termios.TIOCEXCL)"


@pytest.fixture
def holder(request: pytest.FixtureRequest) -> Callable[[str, str], Holder]:
    def start(code: str, path: str) -> Holder:
        child = Holder(code, path)
        request.addfinalizer(child.close)
        return child

    return start


@pytest.mark.parametrize("code", [OPENS, LOCKS, EXCLUDES], ids=["opens", "flock", "TIOCEXCL"])
def test_busy_names_the_holder(cooked: str, holder: Callable[..., Holder], code: str) -> None:
    before = settings(cooked)
    child = holder(code, cooked)
    with pytest.raises(Busy) as caught:
        Port(cooked)
    said = str(caught.value)
    assert f"pid {child.pid} (" in said
    assert "python" in said
    assert cooked in said
    assert settings(cooked) == before


def test_who_does_not_ask_to_be_alone_may_share(bare: Any, holder: Callable[..., Holder]) -> None:
    holder(OPENS, bare.path)
    Port(bare.path, exclusive=False).close()


def test_the_far_end_of_a_pty_is_no_holder(holder: Callable[..., Holder]) -> None:
    code = "import pty, os, tty; m, s = pty.openpty(); tty.setraw(s); os.symlink(os.ttyname(s), "
    link = Path(os.environ.get("TMPDIR", "/tmp")) / f"udriver-test-{os.getpid()}"
    link.unlink(missing_ok=True)
    try:
        holder(f"{code}{str(link)!r})", "far end")
        Port(link).close()
    finally:
        link.unlink(missing_ok=True)


# what is no port


def message_of(path: str | Path) -> tuple[type[Exception], str]:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the tests look at type and words
        Port(path).close()
    return caught.type, str(caught.value)


def test_missing(tmp_path: Path) -> None:
    kind, said = message_of(tmp_path / "ttyUSB7")
    assert kind is FileNotFoundError
    assert "no such device" in said
    assert "ttyUSB7" in said


def test_a_path_through_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    kind, said = message_of(tmp_path / "file" / "tty")
    assert kind is FileNotFoundError
    assert "no such device" in said


@pytest.mark.parametrize("what", ["a directory", "a regular file", "a pipe", "a socket"])
def test_what_is_no_serial_port(tmp_path: Path, what: str) -> None:
    path = tmp_path / "thing"
    match what:
        case "a directory":
            path.mkdir()
        case "a regular file":
            path.touch()
        case "a pipe":
            os.mkfifo(path)
        case "a socket":
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(str(path))
    kind, said = message_of(path)
    assert kind is NotASerialPort
    assert f"is not a serial port but {what}" in said
    assert "udriver run" in said


def test_a_character_device_that_is_no_tty() -> None:
    kind, said = message_of("/dev/null")
    assert kind is NotASerialPort
    assert "not a tty" in said


@needs_root
def test_permission_denied_names_the_group(bare: Any) -> None:
    os.chmod(bare.path, 0o600)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            Port(bare.path)
            said = "was opened"
        except Exception as exc:  # noqa: BLE001 - the parent looks at it
            said = f"{type(exc).__name__}: {exc}"
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    assert said.startswith("PermissionError: ")
    assert bare.path in said
    assert "permission denied" in said
    assert f"-aG {Path(bare.path).group()} " in said


# which device


def usb(device: str, serial: str = "", vid: str = "0403", pid: str = "6001") -> UsbTty:
    return UsbTty(device, vid, pid, serial, "1-1")


A, B = usb("/dev/ttyUSB0", "A1"), usb("/dev/ttyUSB1", "B2")
OTHER = usb("/dev/ttyACM0", "", "1a86", "7523")


def test_vid_pid_finds_the_one() -> None:
    assert bus.match("1a86:7523", [A, OTHER]) is OTHER
    assert bus.match("1A86:7523", [A, OTHER]) is OTHER


def test_the_serial_picks_one_of_two() -> None:
    assert bus.match("0403:6001:B2", [A, B]) is B


def test_two_that_match_are_both_named() -> None:
    with pytest.raises(AmbiguousDevice, match="add the serial") as caught:
        bus.match("0403:6001", [A, B, OTHER])
    assert "/dev/ttyUSB0" in str(caught.value)
    assert "/dev/ttyUSB1" in str(caught.value)
    assert "ttyACM0" not in str(caught.value)


def test_an_unknown_one_says_what_there_is() -> None:
    with pytest.raises(FileNotFoundError, match=r"no device is dead:beef.*ttyACM0"):
        bus.match("dead:beef", [OTHER])
    with pytest.raises(FileNotFoundError, match="no USB serial device at all"):
        bus.match("dead:beef", [])


def test_an_unknown_serial_is_unknown() -> None:
    with pytest.raises(FileNotFoundError):
        bus.match("0403:6001:C3", [A, B])


@pytest.mark.parametrize("spec", ["", "0403", "0403:", "403:6001", "0403:6001:", "x403:6001"])
def test_what_is_no_vid_pid(spec: str) -> None:
    with pytest.raises(ValueError, match="is not VID:PID"):
        bus.match(spec, [A])


@pytest.fixture
def by_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "by-id"
    folder.mkdir()
    monkeypatch.setattr(bus, "BY_ID", folder)
    monkeypatch.setattr(bus, "usb_ttys", lambda: [A, OTHER])
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_path_is_taken_as_it_is(by_id: Path) -> None:
    assert bus.find("/dev/no/such/tty") == "/dev/no/such/tty"
    assert bus.find("./tty") == "./tty"


def test_a_file_that_is_there_comes_before_by_id(by_id: Path) -> None:
    (by_id / "board").touch()
    assert bus.find("board") == str(by_id / "board")
    Path("board").touch()
    assert bus.find("board") == "board"


def test_by_id_comes_before_vid_pid(by_id: Path) -> None:
    assert bus.find("1a86:7523") == "/dev/ttyACM0"
    (by_id / "1a86:7523").touch()
    assert bus.find("1a86:7523") == str(by_id / "1a86:7523")


def test_a_short_name_is_looked_for_in_dev(by_id: Path) -> None:
    assert bus.find("null") == "/dev/null"


def test_nothing_fits(by_id: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"ttyUSB99 is no path, no name in .*by-id"):
        bus.find("ttyUSB99")


def test_the_bus_can_be_listed() -> None:
    assert all(tty.device.startswith("/dev/") for tty in bus.usb_ttys())
