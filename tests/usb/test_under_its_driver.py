# SPDX-License-Identifier: MIT
"""Each of our chips under the kernel's own, unmodified driver. Runs in the guest; skipped elsewhere.

What a driver cannot tell is skipped by name (tests/rungs.py), or is what is asserted.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import json
import os
import select
import signal
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.rungs import Quirk, without
from udriver_hw import vhci
from udriver_hw.spawned import SpawnedUsb, spawn_usb

DEADLINE = 30.0  # s; only a hang takes that long
LINES = {"cts": termios.TIOCM_CTS, "dsr": termios.TIOCM_DSR}
LINES |= {"ri": termios.TIOCM_RI, "dcd": termios.TIOCM_CD}
TIOCMIWAIT, TIOCGICOUNT, TCSETS2, TCGETS2 = 0x545C, 0x545D, 0x402C542B, 0x802C542A
BOTHER = 0x1000
ICOUNT = ("cts", "dsr", "ri", "dcd", "rx", "tx", "frame", "overrun", "parity", "brk", "buf_overrun")
CYCLES = int(os.environ.get("UDRIVER_USB_CYCLES", "20"))  # plug and unplug: 0.7 s each
OPENS = int(os.environ.get("UDRIVER_USB_OPENS", "100"))
CHIP = os.environ.get("UDRIVER_USB", "")
DRIVERS = {"ft232r": "ftdi_sio", "cp210x": "cp210x", "cdc_acm": "cdc_acm"}
RELEASES = {"ft232r": "0600", "cp210x": "0100", "cdc_acm": "0100"}  # bcdDevice
# where a thread sleeps in TIOCMIWAIT: usb-serial's generic one; cdc_acm's own, inlined or not
MIWAIT = ("miwait", "wait_serial_change", "acm_tty_ioctl")
# what is asked for -> what the chip then does; ftdi_sio has divisors, cp210x a table, CDC-ACM any rate
RATES = {
    300: (300, 300), 9600: (9600, 9600), 12345: (12346, 14397), 57600: (57554, 57554),
    115200: (115385, 115385), 230400: (230769, 230769), 921600: (923077, 923077),
    1_000_000: (1_000_000, 923077), 2_000_000: (2_000_000, 923077), 3_000_000: (3_000_000, 923077),
}  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.usefixtures("usb_server"),
]


@pytest.fixture
def chip(usb_server: SpawnedUsb) -> Iterator[SpawnedUsb]:
    """The session's chip, with its lines as they were at first afterwards."""
    yield usb_server
    for line in LINES:
        usb_server.tell(f"line {line} off")


@contextlib.contextmanager
def raw(path: str, **flags: int) -> Iterator[int]:
    """A blocking fd on a raw tty of 115200 8N1, with more of the termios flags."""
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
    try:
        cflag = termios.CS8 | termios.CREAD | termios.CLOCAL | flags.get("cflag", 0)
        speed = termios.B115200
        cc: list[Any] = [b"\0"] * 32
        cc[termios.VMIN], cc[termios.VTIME] = 1, 0
        mode = [flags.get("iflag", 0), 0, cflag, 0, speed, speed, cc]
        termios.tcsetattr(fd, termios.TCSANOW, mode)
        yield fd
    finally:
        os.close(fd)


def read(fd: int, count: int) -> bytes:
    """So many bytes."""
    data = b""
    while len(data) < count:
        assert select.select([fd], [], [], DEADLINE)[0], f"only {data!r} of {count} bytes"
        chunk = os.read(fd, count - len(data))
        assert chunk, "hung up"
        data += chunk
    return data


def icount(fd: int) -> dict[str, int]:
    """struct serial_icounter_struct."""
    counts = array.array("i", [0] * 20)
    fcntl.ioctl(fd, TIOCGICOUNT, counts)
    return dict(zip(ICOUNT, counts, strict=False))


def set_rate(fd: int, rate: int) -> None:
    """Any rate, by struct termios2."""
    termios2 = bytearray(fcntl.ioctl(fd, TCGETS2, bytes(44)))
    cflag = int.from_bytes(termios2[8:12], "little")
    termios2[8:12] = (cflag & ~0x100F | BOTHER).to_bytes(4, "little")
    termios2[36:44] = struct.pack("<II", rate, rate)
    fcntl.ioctl(fd, TCSETS2, bytes(termios2))


def modem(fd: int) -> int:
    return int(struct.unpack("i", fcntl.ioctl(fd, termios.TIOCMGET, bytes(4)))[0])


def state(server: SpawnedUsb) -> dict[str, Any]:
    told, _, _at = server.tell("state").rpartition(" ")
    found: dict[str, Any] = json.loads(told)
    return found


class Sleeper(threading.Thread):
    """Runs a blocking call elsewhere."""

    def __init__(self, function: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._function = function
        self.result: object = "asleep"
        self.start()

    def run(self) -> None:
        try:
            self.result = self._function()
        except OSError as exc:
            self.result = exc

    def end(self) -> object:
        self.join(DEADLINE)
        assert not self.is_alive(), "still asleep"
        return self.result


def asleep_in(thread: Sleeper, *where: str) -> None:
    """Wait until the thread sleeps in a kernel function with one of these in its name."""
    wchan = Path(f"/proc/self/task/{thread.native_id}/wchan")
    if not wchan.exists():  # a kernel without KALLSYMS, such as User Mode Linux here
        time.sleep(0.2)
        return
    end = time.monotonic() + DEADLINE
    while not any(name in wchan.read_text() for name in where):
        assert time.monotonic() < end
        time.sleep(0.005)


def usb_device(path: str) -> Path:
    """The USB device in sysfs that has this tty: a serial port's is further down than an interface's."""
    at = Path(os.path.realpath(f"/sys/class/tty/{Path(path).name}/device"))
    while not (at / "busnum").exists():
        at = at.parent
    return at


def test_it_is_the_kernel_s_own_driver(chip: SpawnedUsb) -> None:
    driver = os.path.realpath(f"/sys/class/tty/{Path(chip.path).name}/device/driver")
    assert Path(driver).name == DRIVERS[CHIP]
    device = usb_device(chip.path)
    assert (device / "serial").read_text().strip() == "UDUSB001"
    assert (device / "bcdDevice").read_text().strip() == RELEASES[CHIP]


def test_all_bytes_go_round(chip: SpawnedUsb) -> None:
    data = bytes(range(256)) * 64
    with raw(chip.path) as fd:
        writer = Sleeper(lambda: os.write(fd, data))
        assert read(fd, len(data)) == data
        writer.end()


@without(Quirk.COUNTS_NO_EDGES)
@pytest.mark.parametrize(
    "line",
    [
        pytest.param("cts", marks=without(Quirk.NO_CTS)),
        "dsr",
        pytest.param("ri", marks=without(Quirk.ENDS_OF_RINGS_UNTOLD)),
        "dcd",
    ],
)
def test_each_edge_of_a_line_wakes_a_waiter_and_is_counted(chip: SpawnedUsb, line: str) -> None:
    with raw(chip.path) as fd:
        before = icount(fd)[line]
        for number, level in enumerate(("on", "off", "on", "off"), 1):
            waiter = Sleeper(lambda: fcntl.ioctl(fd, TIOCMIWAIT, LINES[line]))
            asleep_in(waiter, *MIWAIT)
            chip.tell(f"line {line} {level}")
            assert waiter.end() == 0
            assert bool(modem(fd) & LINES[line]) == (level == "on")
            assert icount(fd)[line] == before + number


@pytest.mark.parametrize(
    ("kind", "count", "marked"),
    [
        ("parity", "parity", b"\xff\0x"),
        ("framing", "frame", b"\xff\0x"),
        ("break", "brk", b"\xff\0\0"),
        ("overrun", "overrun", b"x"),  # the driver puts a NUL with TTY_OVERRUN, which n_tty drops
    ],
)
def test_an_error_is_counted_once_and_marked_in_its_place(
    chip: SpawnedUsb, kind: str, count: str, marked: bytes
) -> None:
    """cdc_acm tells of parity and framing errors, and not of which byte."""
    if CHIP == "cdc_acm" and kind != "break":
        marked = b"x"
    byte = b"\0" if kind == "break" else b"x"
    flags = termios.PARMRK | termios.INPCK
    with raw(chip.path, iflag=flags) as fd:
        before = icount(fd)
        chip.tell('send b"ab"')
        chip.tell(f"error {kind} {byte!r}")
        chip.tell('send b"cd"')
        got = read(fd, 4 + len(marked))
        after = icount(fd)
    moved = {name: after[name] - before[name] for name in ICOUNT[6:] if after[name] != before[name]}
    assert moved == {count: 1}
    assert got == b"ab" + marked + b"cd"


@pytest.mark.parametrize("asked", RATES)
def test_the_chip_gets_the_rate_that_was_asked_for(chip: SpawnedUsb, asked: int) -> None:
    """Above a million baud cp210x asks for one, which AN205's table makes 921600."""
    by_divisor, by_table = RATES[asked]
    is_ = {"ft232r": by_divisor, "cp210x": by_table, "cdc_acm": asked}[CHIP]
    with raw(chip.path) as fd:
        set_rate(fd, asked)
        assert state(chip)["baudrate"] == is_


@pytest.mark.parametrize(
    ("cflag", "looks"),
    [
        pytest.param(termios.CS5, "5N1", marks=without(Quirk.NO_SHORT_BYTES)),
        (termios.CS7 | termios.PARENB, "7E1"),
        (termios.CS8 | termios.PARENB | termios.PARODD | termios.CSTOPB, "8O2"),
    ],
)
def test_the_chip_gets_the_line_settings(chip: SpawnedUsb, cflag: int, looks: str) -> None:
    with raw(chip.path) as fd:
        mode = termios.tcgetattr(fd)
        mode[2] = cflag | termios.CREAD
        termios.tcsetattr(fd, termios.TCSANOW, mode)
        assert state(chip)["format"] == looks


def test_opening_raises_dtr_and_rts_and_closing_drops_them(chip: SpawnedUsb) -> None:
    with raw(chip.path, cflag=termios.HUPCL) as fd:
        assert (state(chip)["dtr"], state(chip)["rts"]) == (True, True)
        fcntl.ioctl(fd, termios.TIOCMBIC, struct.pack("i", termios.TIOCM_RTS))
        assert (state(chip)["dtr"], state(chip)["rts"]) == (True, False)
    assert (state(chip)["dtr"], state(chip)["rts"]) == (False, False)


def test_a_break_goes_out_and_comes_round(chip: SpawnedUsb) -> None:
    # cp210x has the chip tell of errors only while INPCK is set
    with raw(chip.path, iflag=termios.PARMRK | termios.INPCK) as fd:
        fcntl.ioctl(fd, termios.TIOCSBRK if hasattr(termios, "TIOCSBRK") else 0x5427)
        assert state(chip)["break"] is True
        fcntl.ioctl(fd, 0x5428)  # TIOCCBRK
        assert state(chip)["break"] is False
        assert read(fd, 3) == b"\xff\0\0"


@without(Quirk.NO_CTS)
def test_rts_cts_holds_the_writer_back(chip: SpawnedUsb) -> None:
    with raw(chip.path, cflag=termios.CRTSCTS) as fd:
        assert state(chip)["flow"] == "rts/cts"
        os.set_blocking(fd, False)
        taken = 0
        while True:
            try:
                taken += os.write(fd, bytes(1024))
            except BlockingIOError:
                if not select.select([], [fd], [], 0.5)[1]:
                    break
        assert 128 <= taken < 10_000
        chip.tell("line cts on")
        assert read(fd, taken) == bytes(taken)


def test_nothing_that_the_driver_sends_is_stalled(chip: SpawnedUsb) -> None:
    qualifier = [0x80, 6, 0x0600, 0, 10]  # of a full-speed device: it must be
    assert [setup for setup in state(chip)["stalled"] if setup != qualifier] == []


def test_a_request_of_no_driver_is_stalled_and_the_chip_goes_on(chip: SpawnedUsb) -> None:
    device = usb_device(chip.path)
    numbers = [int((device / what).read_text()) for what in ("busnum", "devnum")]
    usbfs = os.open("/dev/bus/usb/{:03}/{:03}".format(*numbers), os.O_RDWR)
    buffer = array.array("B", bytes(64))
    try:
        for request in (0x91, 0xEE):  # WRITE_EEPROM is one
            at = buffer.buffer_info()[0]
            control = struct.pack("=BBHHHIxxxxQ", 0xC0, request, 1, 2, 64, 1000, at)
            with pytest.raises(BrokenPipeError):
                fcntl.ioctl(usbfs, 0xC0185500, control)  # USBDEVFS_CONTROL
    finally:
        os.close(usbfs)
    assert [setup[1] for setup in state(chip)["stalled"][-2:]] == [0x91, 0xEE]
    with raw(chip.path) as fd:
        os.write(fd, b"alive")
        assert read(fd, 5) == b"alive"
    chip.tell("plug")  # a new one, with an empty log


def test_opened_and_closed_again_and_again_while_it_streams(
    chip: SpawnedUsb, record_property: Callable[[str, object], None]
) -> None:
    before = held(chip)
    ending = threading.Event()

    def stream() -> None:
        while not ending.is_set():
            chip.tell(f"send {bytes(200)!r}")

    streamer = Sleeper(stream)
    heard = 0
    for _ in range(OPENS):
        with raw(chip.path) as fd:
            heard += len(read(fd, 1))
    ending.set()
    streamer.end()
    record_property("opens", OPENS)
    assert heard == OPENS
    nothing_is_left(chip, before)  # and it was never thrown off the bus
    chip.tell("plug")


def test_plugged_and_unplugged_again_and_again_with_traffic(
    chip: SpawnedUsb, record_property: Callable[[str, object], None]
) -> None:
    chip.tell("plug")
    before = held(chip)
    for number in range(CYCLES):
        with raw(chip.path) as fd:
            writer = Sleeper(lambda fd=fd: forever(lambda: os.write(fd, bytes(300))))
            read(fd, 1000)
            chip.tell(("unplug", "detach")[number % 2])
            assert isinstance(writer.end(), OSError)
            until_hung_up(fd)
        told = chip.tell("plug")
        assert told.startswith(chip.path), told
    record_property("cycles", CYCLES)
    nothing_is_left(chip, before)


def nothing_is_left(server: SpawnedUsb, before: tuple[int, int, int, int]) -> None:
    """No fd, no thread, no process that cannot be killed; and of vhci's ports the one in use."""
    end = time.monotonic() + DEADLINE
    while held(server) != before and time.monotonic() < end:
        time.sleep(0.01)  # a thread that was joined is a task for a moment more
    assert held(server) == before
    assert in_d_state() == []
    assert sum(not port.free for port in vhci.ports()) == 1


def forever(function: Callable[[], object]) -> None:
    while True:
        function()


def until_hung_up(fd: int) -> None:
    try:
        while os.read(fd, 65536):
            pass
    except OSError:
        pass


def held(server: SpawnedUsb) -> tuple[int, int, int, int]:
    """fds and threads: of the server and of us."""
    return tuple(  # type: ignore[return-value]
        len(os.listdir(f"/proc/{pid}/{what}"))
        for pid in (server.pid, os.getpid())
        for what in ("fd", "task")
    )


def in_d_state() -> list[str]:
    """Processes that cannot be killed, and stay so; kernel threads sleep like that as they please."""
    found: list[str] = []
    for _ in range(100):
        found = [pid for pid, state, parent in processes() if state == "D" and parent != "2"]
        if not found:
            break
        time.sleep(0.05)
    return found


def processes() -> Iterator[tuple[str, str, str]]:
    """pid, state, parent's pid."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            _, _, rest = status.read_text().rpartition(")")
            yield status.parent.name, *rest.split()[:2]  # type: ignore[misc]


@pytest.fixture
def another() -> Iterator[SpawnedUsb]:
    """A chip with a server of its own, to be killed."""
    with spawn_usb(CHIP, "--serial", "UDDOOMED") as server:
        yield server


def test_a_killed_server_is_an_unplug(another: SpawnedUsb) -> None:
    with raw(another.path) as fd:
        os.write(fd, b"x")
        read(fd, 1)
        reader = Sleeper(lambda: os.read(fd, 1))
        edge = Sleeper(lambda: fcntl.ioctl(fd, TIOCMIWAIT, LINES["dcd"]))  # of cp210x ENOTTY
        if CHIP != "cp210x":
            asleep_in(edge, *MIWAIT)
        os.kill(another.pid, signal.SIGKILL)
        assert reader.end() == b""
        assert isinstance(edge.end(), OSError)
        with pytest.raises(OSError, match="Input/output"):
            os.write(fd, b"y")


def test_a_stopped_server_holds_up_nobody_once_it_is_closed(another: SpawnedUsb) -> None:
    fd = os.open(another.path, os.O_RDWR | os.O_NOCTTY)
    os.kill(another.pid, signal.SIGSTOP)
    closer = Sleeper(lambda: os.close(fd))  # it asks the chip for its modem status
    time.sleep(0.2)
    another.close()
    assert closer.end() is None
    assert all(port.number not in another.ports or port.free for port in vhci.ports())
    assert in_d_state() == []


def test_two_chips_on_a_null_modem() -> None:
    with spawn_usb(CHIP, "--wiring", "null-modem", "--serial", "UDNULL") as server:
        one, other = server.path.split()
        with raw(one) as a, raw(other) as b:
            os.write(a, b"over")
            assert read(b, 4) == b"over"
            os.write(b, b"back")
            assert read(a, 4) == b"back"
            assert modem(b) & LINES["dcd"]
            fcntl.ioctl(a, termios.TIOCMBIC, struct.pack("i", termios.TIOCM_DTR))
            end = time.monotonic() + DEADLINE
            while modem(b) & (LINES["dcd"] | LINES["dsr"]):
                assert time.monotonic() < end
                time.sleep(0.001)


@without(Quirk.NO_TEMT)
def test_a_paced_chip_lets_tcdrain_wait_for_the_last_bit() -> None:
    with spawn_usb(CHIP, "--paced", "--serial", "UDPACED") as server, raw(server.path) as fd:
        mode = termios.tcgetattr(fd)
        mode[4] = mode[5] = termios.B1200
        termios.tcsetattr(fd, termios.TCSANOW, mode)
        began = time.monotonic_ns()
        os.write(fd, bytes(60))
        termios.tcdrain(fd)
        assert time.monotonic_ns() - began > 480_000_000  # 60 characters of 8.3 ms; TEMT is polled


def test_ctrl_c_unplugs_in_order() -> None:
    with spawn_usb(CHIP, "--serial", "UDCTRLC") as server:
        os.kill(server.pid, signal.SIGINT)
        end = time.monotonic() + DEADLINE
        while os.path.exists(server.path):
            assert time.monotonic() < end
            time.sleep(0.02)
    assert all(port.number not in server.ports or port.free for port in vhci.ports())
