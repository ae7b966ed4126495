# SPDX-License-Identifier: MIT
"""A pty as the wire's tty side: what a driver opens is the slave, what the chip sees the master.

1. One thread owns the master and the chip; others only ask it, through an eventfd.
2. It sleeps in epoll while nothing arrives, and reads the master only while the chip has room:
   so a client that writes too much is held back by the tty, as by a real one.
3. A slave fd of our own, the keeper, stays open. Without it the last client's close makes the
   master readable with EIO for as long as nobody is there: only a polling loop could wait it out.
4. On a real adapter TIOCEXCL and unread input go with the last close; on a pty both would stay
   as long as the master is open, even after a client was killed. So when a client closes (inotify
   tells, but it merges events, so they cannot be counted) the keeper steps out for a moment: a
   master that then reports a hangup has no client left, and the two are cleared.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import termios
import threading
import time
import tty
from collections import deque
from dataclasses import dataclass

from udriver_hw.chips.firmware import Firmware, Unplugged
from udriver_hw.chips.uart import Framing, Uart

__all__ = ["PtyWire", "Stats", "UnsupportedOnPty"]

READ_SIZE = 65536
# ns; inotify tells of a close before the tty is released, so a killed client may still be there
LOOK_AGAIN = (1_000_000, 10_000_000, 100_000_000, 1_000_000_000)
LONGEST_SLEEP = 3600.0  # s; epoll takes no more than 24 days
IN_CLOSE_WRITE = 0x08  # linux/inotify.h; the keeper is read-only, so its own close is none of these
TIOCGPTPEER = 0x5441  # asm-generic/ioctls.h, as the next two
TIOCGEXCL = 0x80045440
TCGETS2 = 0x802C542A  # asm-generic/ioctls.h: termios with the speeds as numbers
DATABITS = {termios.CS5: 5, termios.CS6: 6, termios.CS7: 7, termios.CS8: 8}


class UnsupportedOnPty(OSError):
    """A pty has no modem lines and no line errors; ``errno`` is EOPNOTSUPP. ``asked``: by what."""

    def __init__(self, what: str, asked: str = "") -> None:
        where = f"{asked}: " if asked else ""
        super().__init__(
            errno.EOPNOTSUPP,
            f"{where}a pty has no {what}; use an adapter or a simulated USB chip for that",
        )


@dataclass(frozen=True, slots=True)
class Stats:
    """Bytes that left TXD, bytes that arrived at RXD, and those that no FIFO had room for."""

    tx: int
    rx: int
    overruns: int


class PtyWire:
    """A UART behind a pty. ``path`` is what a driver opens; serve() runs it."""

    def __init__(self, uart: Uart, firmware: Firmware) -> None:
        self._uart = uart
        self._firmware = firmware
        self._master, slave = os.openpty()
        tty.setraw(slave)
        os.set_blocking(self._master, False)
        self.path = os.ttyname(slave)
        self._keeper = _open_keeper(self._master)
        os.close(slave)
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll = select.epoll()
        self._inotify = _watch_clients(self.path)
        self._epoll.register(self._wakeup, select.EPOLLIN)
        self._epoll.register(self._inotify, select.EPOLLIN)
        self._epoll.register(self._master, select.EPOLLIN)
        self._pushed: deque[bytes] = deque()
        self._unsent = b""
        self._looks: deque[int] = deque()
        self._look_at: int | None = None  # for who closed
        self._tx = self._rx = 0
        self._ending = False  # no Event: its set() in a handler that interrupts set() deadlocks
        self._lock = threading.RLock()  # around the fds' end; a signal handler may call stop()

    # from any thread

    def push(self, data: bytes) -> None:
        """Let the device send these bytes."""
        self._pushed.append(bytes(data))
        self._wake()

    def stop(self) -> None:
        """Let serve() return; it closes everything, which is an unplug for whoever is connected."""
        self._ending = True
        self._wake()

    def stats(self) -> Stats:
        """The counts, as of now."""
        overruns = self._uart.rx.overruns + self._uart.tx.overruns
        return Stats(self._tx, self._rx, overruns)

    def modem_line(self, name: str) -> bool:
        """Raise UnsupportedOnPty: there is none."""
        raise UnsupportedOnPty(f"modem line {name}")

    def line_error(self, kind: str) -> None:
        """Raise UnsupportedOnPty: there is none."""
        raise UnsupportedOnPty(f"{kind} error")

    def _wake(self) -> None:
        with self._lock:
            if self._master >= 0:
                os.eventfd_write(self._wakeup, 1)

    # the one thread

    def serve(self) -> None:
        """Move bytes until stop() or an unplug; then close all fds."""
        try:
            while not self._ending:
                self._step(self._epoll.poll(self._timeout()))
        except Unplugged:
            pass
        finally:
            self._close()

    def _close(self) -> None:
        with self._lock:
            master, self._master = self._master, -1
            for fd in (master, self._keeper, self._wakeup, self._inotify):
                os.close(fd)
            self._epoll.close()

    def _timeout(self) -> float | None:
        events = [self._look_at]
        if self._uart.paced or not self._unsent:  # else held back until the client reads
            events += [self._uart.next_event(), self._firmware.next_event()]
        due = min((at for at in events if at is not None), default=None)
        if due is None:
            return None
        return min(max(0.0, (due - time.monotonic_ns()) / 1e9), LONGEST_SLEEP)

    def _step(self, ready: list[tuple[int, int]]) -> None:
        for fd, events in ready:
            if fd == self._wakeup:
                os.eventfd_read(fd)
            elif fd == self._inotify:
                os.read(fd, 4096)
                self._looks = deque(LOOK_AGAIN)
                self._after_a_close()
            elif events & select.EPOLLIN:
                self._from_client()
        if self._look_at is not None and time.monotonic_ns() >= self._look_at:
            self._after_a_close()
        self._shift(time.monotonic_ns())
        self._to_client()
        self._epoll.modify(
            self._master,
            (select.EPOLLIN if self._listens() else 0) | (select.EPOLLOUT if self._unsent else 0),
        )

    def _after_a_close(self) -> None:
        self._look_at = None
        exclusive = int.from_bytes(fcntl.ioctl(self._keeper, TIOCGEXCL, bytes(4)), "little")
        lapses = exclusive and os.geteuid() != 0
        if lapses:  # or the keeper could not come back; for root it can, and none sees a change
            fcntl.ioctl(self._keeper, termios.TIOCNXCL)
        os.close(self._keeper)
        master = select.poll()
        master.register(self._master, 0)
        nobody = any(events & select.POLLHUP for _, events in master.poll(0))
        self._keeper = _open_keeper(self._master)
        if nobody:
            fcntl.ioctl(self._keeper, termios.TIOCNXCL)
            termios.tcflush(self._keeper, termios.TCIFLUSH)
            return
        if lapses:
            fcntl.ioctl(self._keeper, termios.TIOCEXCL)
        if exclusive and self._looks:
            self._look_at = time.monotonic_ns() + self._looks.popleft()

    def _listens(self) -> bool:
        """A line that takes time goes its way even if nobody reads what comes back."""
        return self._uart.tx.room > 0 and (self._uart.paced or not self._unsent)

    def _from_client(self) -> None:
        self._uart.set_framing(self._framing(), time.monotonic_ns())
        try:
            data = os.read(self._master, min(READ_SIZE, self._uart.tx.room))
        except BlockingIOError:
            return
        self._uart.write(data, time.monotonic_ns())

    def _framing(self) -> Framing:
        """What the client set: the master shows the slave's termios."""
        cflag, speed = self._attributes()
        return Framing(
            baudrate=speed or 1,
            databits=DATABITS[cflag & termios.CSIZE],
            parity=bool(cflag & termios.PARENB),
            stopbits=2 if cflag & termios.CSTOPB else 1,
        )

    def _attributes(self) -> tuple[int, int]:
        raw = fcntl.ioctl(self._master, TCGETS2, bytes(44))
        return int.from_bytes(raw[8:12], "little"), int.from_bytes(raw[40:44], "little")

    def _shift(self, now: int) -> None:
        sent = self._uart.transmit(now)
        if sent:
            self._tx += len(sent)
            self._firmware.receive(sent, now)
        if self._unsent and not self._uart.paced:
            return  # a wire that costs no time is held back instead of overrun
        while self._pushed:
            self._arrive(self._pushed.popleft())
        self._arrive(self._firmware.transmit(now))

    def _arrive(self, data: bytes) -> None:
        self._rx += len(data)
        if self._uart.paced:
            self._uart.receive(data)
        else:
            self._unsent += data

    def _to_client(self) -> None:
        self._unsent = self._unsent or self._uart.read(READ_SIZE)
        while self._unsent:
            try:
                sent = os.write(self._master, self._unsent)
            except BlockingIOError:
                return
            self._unsent = self._unsent[sent:] or self._uart.read(READ_SIZE)


def _open_keeper(master: int) -> int:
    return fcntl.ioctl(master, TIOCGPTPEER, os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)


def _watch_clients(path: str) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    inotify: int = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    if inotify < 0 or libc.inotify_add_watch(inotify, path.encode(), IN_CLOSE_WRITE) < 0:
        raise OSError(ctypes.get_errno(), f"{path} cannot be watched for clients")
    return inotify
