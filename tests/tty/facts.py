# SPDX-License-Identifier: MIT
"""What a tty does, asked of a pty or, in the rig's guest, of the real ftdi_sio.

Usage: facts.py [PATH]; without PATH a pty of its own. Prints one JSON object. The far end is silent
but for what the program lets it say. Stdlib only, and nothing of udriver: it is what udriver relies on.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import signal
import struct
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable
from typing import Any

# include/uapi/asm-generic/ioctls.h, fcntl.h and termbits.h; x86 has the generic numbers
TCGETS2, TCSETS2, TIOCGEXCL = 0x802C542A, 0x402C542B, 0x80045440
TIOCGSERIAL, TIOCSSERIAL, TIOCSERGETLSR = 0x541E, 0x541F, 0x5459
TIOCMIWAIT, TIOCGICOUNT, F_SETSIG = 0x545C, 0x545D, 10
ASYNC_LOW_LATENCY, BOTHER, CBAUD = 0x2000, 0o010000, 0o010017
LINES = termios.TIOCM_CTS | termios.TIOCM_DSR | termios.TIOCM_CAR | termios.TIOCM_RI
OUTPUTS = termios.TIOCM_DTR | termios.TIOCM_RTS
NOBODY = 65534
NAMED = "/run/udev/data/c188:0"  # udev's own record of ttyUSB0: there when it is done with it
PATIENCE = 20.0  # seconds; udev takes half of one
OPEN = os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK


class Pty:
    """The far end of a pty, with what the rig does for an adapter."""

    quiet = 0.25  # seconds; what has not come by then does not come: a work queue is between

    def __init__(self) -> None:
        self._master, self._keeper = os.openpty()  # held: else the far end reads EIO meanwhile
        os.set_blocking(self._master, False)
        self.path = os.ttyname(self._keeper)

    def say(self, data: bytes) -> None:
        os.write(self._master, data)

    def heard(self) -> bytes:
        try:
            return os.read(self._master, 1 << 16)
        except BlockingIOError:
            return b""

    def unplug(self) -> None:
        os.close(self._keeper)
        os.close(self._master)


class Wire:
    """The far end of QEMU's adapter, its jumper off."""

    quiet = 0.3

    def __init__(self, path: str) -> None:
        from vm.guest import Rig

        self.path = path
        self._rig = Rig()
        self._rig.jumper(on=False)
        self.say, self.heard, self.unplug = self._rig.say, self._rig.heard, self._rig.unplug

    def plug(self) -> None:
        """In again, once udev is done with the last time; whoever calls waits for the node."""
        until(lambda: not os.path.exists(self.path) and not os.path.exists(NAMED))
        self._rig.plug()


def outcome(call: Callable[..., Any], *arguments: Any) -> Any:
    """What it returned, or the name of its error."""
    try:
        return call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    except termios.error as error:
        return errno.errorcode[error.args[0]]


def until(condition: Callable[[], Any]) -> Any:
    """Its first true value."""
    end = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < end
        time.sleep(0.005)
    return value


def settings(fd: int) -> dict[str, Any]:
    """What a tty that nobody has set up is like."""
    cflag = termios.tcgetattr(fd)[2]
    bits = [name for name in ("CLOCAL", "HUPCL", "PARENB") if cflag & getattr(termios, name)]
    return {"fresh_flags": bits, "fresh_speed": speed(fd)}


def speed(fd: int) -> int:
    return int(struct.unpack("II", fcntl.ioctl(fd, TCGETS2, bytes(44))[36:44])[1])


def asked_speed(fd: int, baud: int) -> int:
    """The speed that the tty says it has after this one was asked."""
    raw = bytearray(fcntl.ioctl(fd, TCGETS2, bytes(44)))
    (cflag,) = struct.unpack_from("I", raw, 8)
    struct.pack_into("I", raw, 8, cflag & ~CBAUD | BOTHER)
    struct.pack_into("II", raw, 36, baud, baud)
    fcntl.ioctl(fd, TCSETS2, bytes(raw))
    return speed(fd)


def seven_even(fd: int) -> bool:
    """Whether 7 data bits and even parity were taken."""
    attributes = termios.tcgetattr(fd)
    attributes[2] = attributes[2] & ~termios.CSIZE | termios.CS7 | termios.PARENB
    outcome(termios.tcsetattr, fd, termios.TCSANOW, attributes)
    taken = termios.tcgetattr(fd)[2]
    return taken & termios.CSIZE == termios.CS7 and bool(taken & termios.PARENB)


def low_latency(fd: int) -> bool | str:
    line = bytearray(72)  # struct serial_struct, its flags at 16
    try:
        line[:] = fcntl.ioctl(fd, TIOCGSERIAL, bytes(line))
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    struct.pack_into("I", line, 16, struct.unpack_from("I", line, 16)[0] | ASYNC_LOW_LATENCY)
    fcntl.ioctl(fd, TIOCSSERIAL, bytes(line))
    flags: int = struct.unpack_from("I", fcntl.ioctl(fd, TIOCGSERIAL, bytes(line)), 16)[0]
    return bool(flags & ASYNC_LOW_LATENCY)


def latency_timer(path: str) -> Any:
    """What ASYNC_LOW_LATENCY made of 16 ms."""
    file = f"/sys/bus/usb-serial/devices/{os.path.basename(path)}/latency_timer"

    def written() -> int:
        with open(file, "r+") as timer:
            timer.write("16")
        with open(file) as timer:
            return int(timer.read())

    return outcome(written)


def timer_now(path: str) -> Any:
    def read() -> int:
        with open(f"/sys/bus/usb-serial/devices/{os.path.basename(path)}/latency_timer") as timer:
            return int(timer.read())

    return outcome(read)


def as_nobody(call: Callable[[], Any]) -> Any:
    """The outcome for a user who is not root."""
    os.seteuid(NOBODY)
    try:
        return outcome(call)
    finally:
        os.seteuid(0)


def opened_and_closed(path: str) -> str:
    os.close(os.open(path, OPEN))
    return "opens"


def exclusion(fd: int, path: str) -> dict[str, Any]:
    fcntl.ioctl(fd, termios.TIOCEXCL)
    found: dict[str, Any] = {}
    if os.geteuid() == 0:
        os.chmod(path, 0o666)
        found["exclusive_root"] = outcome(opened_and_closed, path)
        found["exclusive_nobody"] = as_nobody(lambda: opened_and_closed(path))
    found["exclusive_told"] = fcntl.ioctl(fd, TIOCGEXCL, bytes(4)) != bytes(4)
    fcntl.ioctl(fd, termios.TIOCNXCL)
    other = os.open(path, OPEN)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    found["flock"] = outcome(fcntl.flock, other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(other)
    return found


def ioctls(fd: int) -> dict[str, Any]:
    """Which of the serial ioctls there are."""

    def lines() -> int:
        return int(struct.unpack("I", fcntl.ioctl(fd, termios.TIOCMGET, bytes(4)))[0])

    def counters() -> str:
        fcntl.ioctl(fd, TIOCGICOUNT, bytes(80))
        return "counts"

    # with no line to wait for, TIOCMIWAIT would sleep for ever: ask only where it is refused
    status = outcome(lines)
    return {
        "modem_lines": status if isinstance(status, str) else status & LINES,
        "dtr_rts_after_open": status if isinstance(status, str) else status & OUTPUTS == OUTPUTS,
        "tiocmiwait": "there"
        if isinstance(status, int)
        else outcome(fcntl.ioctl, fd, TIOCMIWAIT, termios.TIOCM_RI),
        "tiocgicount": outcome(counters),
        "line_status": outcome(lambda: bool(fcntl.ioctl(fd, TIOCSERGETLSR, bytes(4)))),
        "break": outcome(termios.tcsendbreak, fd, 0),
        "outq_idle": struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)))[0],
    }


def signals(fd: int, far: Any) -> dict[str, Any]:
    """SIGIO with F_SETSIG, and edge-triggered epoll, when a byte comes."""
    number = signal.SIGRTMIN + 1
    signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, F_SETSIG, number)
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
    epoll = select.epoll()
    epoll.register(fd, select.EPOLLIN | select.EPOLLET)
    drained(number, far.quiet)
    far.say(b"x")
    info = signal.sigtimedwait({number}, PATIENCE)
    assert info is not None
    (event,) = (events for _, events in epoll.poll(PATIENCE))
    byte = os.read(fd, 16).decode()
    drained(number, far.quiet)
    epoll.close()
    return {"signal_code_band": [info.si_code, info.si_band], "epoll": event, "byte": byte}


def drained(number: int, quiet: float) -> int:
    count = 0
    while signal.sigtimedwait({number}, quiet):
        count += 1
    return count


def timed(fd: int, far: Any) -> dict[str, Any]:
    """VMIN and VTIME: what a read gives, not how long it takes."""
    os.set_blocking(fd, True)
    found = {}
    for vmin, vtime, sent in ((0, 0, b""), (0, 1, b""), (1, 0, b"ab"), (3, 1, b"ab")):
        attributes = termios.tcgetattr(fd)
        attributes[6][termios.VMIN], attributes[6][termios.VTIME] = vmin, vtime
        termios.tcsetattr(fd, termios.TCSANOW, attributes)
        if sent:
            far.say(sent)
            until(lambda: waiting(fd) == 2)
        found[f"vmin_{vmin}_vtime_{vtime}"] = os.read(fd, 16).decode()
    attributes = termios.tcgetattr(fd)
    attributes[6][termios.VMIN], attributes[6][termios.VTIME] = 1, 0
    termios.tcsetattr(fd, termios.TCSANOW, attributes)
    os.set_blocking(fd, False)
    return found


def waiting(fd: int) -> int:
    return int(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0])


def writing(fd: int, far: Any) -> dict[str, Any]:
    """Output stopped by hand, and a far end that never reads."""
    termios.tcflow(fd, termios.TCOOFF)
    stopped = outcome(os.write, fd, b"s")
    termios.tcflow(fd, termios.TCOON)
    if stopped == 1:
        until(lambda: far.heard() == b"s")

    def into_nothing() -> str:
        for _ in range(256):  # 1 MiB: more than any fifo on the way
            left = 4096
            end = time.monotonic() + 0.5
            while left:
                try:
                    left -= os.write(fd, bytes(left))
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise
                    time.sleep(0.001)
        return "all taken"

    found = {"tcooff": stopped, "far_end_that_reads_not": outcome(into_nothing)}
    outcome(termios.tcflush, fd, termios.TCOFLUSH)
    return found


def stale(path: str, far: Any) -> dict[str, Any]:
    """What came while nobody had it open."""
    far.say(b"stale")
    time.sleep(far.quiet)
    fd = os.open(path, OPEN)
    time.sleep(far.quiet)
    found = waiting(fd)
    os.close(fd)
    return {"stale_after_open": found}


def hangup(fd: int, path: str, far: Any) -> dict[str, Any]:
    """The plug is pulled while everybody waits."""
    number = signal.SIGRTMIN + 1
    epoll = select.epoll()
    epoll.register(fd, select.EPOLLIN | select.EPOLLET)
    drained(number, far.quiet)
    far.unplug()
    (event,) = (events for _, events in epoll.poll(PATIENCE))
    found = {
        "epoll_hangup": event,
        "signals_at_hangup": drained(number, far.quiet),
        "read_after_hangup": [outcome(lambda: len(os.read(fd, 16))) for _ in range(2)],
        "write_after_hangup": outcome(os.write, fd, b"x"),
        "tcdrain_after_hangup": outcome(termios.tcdrain, fd),
        "tcgetattr_after_hangup": outcome(lambda: len(termios.tcgetattr(fd))),
    }
    until(lambda: not os.path.exists(path))
    epoll.close()
    return found


def blocked_read(path: str, far: Any) -> dict[str, Any]:
    """A read that sleeps when the plug is pulled."""
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
    tty.setraw(fd)
    answers: list[Any] = []
    reader = threading.Thread(target=lambda: answers.append(outcome(lambda: len(os.read(fd, 16)))))
    reader.start()
    until(lambda: asleep(reader.native_id))
    far.unplug()
    reader.join()
    os.close(fd)
    return {"blocked_read_at_unplug": answers[0]}


def asleep(tid: int | None) -> bool:
    with open(f"/proc/self/task/{tid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "S"


def nodes() -> list[str]:
    return sorted(name for name in os.listdir("/dev") if name.startswith("ttyUSB"))


def replugged(fd: int, wire: Wire) -> dict[str, Any]:
    """Which name it gets while the old one is still held, and after."""
    wire.plug()
    until(lambda: os.path.exists("/dev/ttyUSB1"))
    found = {"node_while_held": nodes()}
    wire.unplug()
    os.close(fd)
    until(lambda: not nodes())
    wire.plug()
    until(lambda: os.path.exists(NAMED))
    return found | {"node_after_close": nodes()}


def gathered(path: str | None) -> dict[str, Any]:
    """All of it, in an order in which nothing disturbs what follows."""
    far = Wire(path) if path else Pty()
    fd = os.open(far.path, OPEN)
    facts: dict[str, Any] = settings(fd)
    tty.setraw(fd)
    facts |= ioctls(fd) | exclusion(fd, far.path)
    facts |= {"parity_7e1": seven_even(fd), "speed_12345": asked_speed(fd, 12345)}
    facts |= {"speed_9000000": asked_speed(fd, 9_000_000), "speed_115200": asked_speed(fd, 115200)}
    attributes = termios.tcgetattr(fd)
    attributes[2] = attributes[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    termios.tcsetattr(fd, termios.TCSANOW, attributes)
    facts["latency_timer"] = latency_timer(far.path)
    facts |= {"low_latency": low_latency(fd), "latency_timer_then": timer_now(far.path)}
    facts |= signals(fd, far) | timed(fd, far) | writing(fd, far)
    os.close(fd)
    until(lambda: not far.heard())
    facts |= stale(far.path, far)
    if isinstance(far, Pty):
        far.unplug()
        far = Pty()
    facts |= blocked_read(far.path, far)
    if isinstance(far, Pty):
        far = Pty()
    else:
        far.plug()
        until(lambda: os.path.exists(NAMED))
    fd = os.open(far.path, OPEN)
    tty.setraw(fd)
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, F_SETSIG, signal.SIGRTMIN + 1)
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
    facts |= hangup(fd, far.path, far)
    if isinstance(far, Pty):
        os.close(fd)
        return facts | {"node_while_held": [], "node_after_close": []}
    return facts | replugged(fd, far)


if __name__ == "__main__":
    print(json.dumps(gathered(*sys.argv[1:] or [None])))
