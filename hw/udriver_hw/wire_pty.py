# SPDX-License-Identifier: MIT
"""A pty as the wire's tty side: what a driver opens is the slave, what the chip sees the master.

1. One thread owns the master and the chip; others only ask it, through an eventfd.
2. It sleeps in epoll while nothing arrives, and reads the master only while the chip has room:
   so a client that writes too much is held back by the tty, as by a real one.
3. A slave fd of our own stays open. Without it the last client's close makes the master readable
   with EIO for as long as nobody is there, which only a polling loop could wait out.
4. TIOCEXCL stays on the tty when a client is killed. On a real adapter it goes with the last
   close; here inotify tells when that was, and it is taken off.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import struct
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
TCGETS2 = 0x802C542A  # asm-generic/ioctls.h: termios with the speeds as numbers
IN_CLOSE = 0x18  # linux/inotify.h: IN_CLOSE_WRITE | IN_CLOSE_NOWRITE
IN_OPEN = 0x20
INOTIFY_EVENT = struct.Struct("iIII")  # inotify(7); a name of as many bytes as the last says
BAUD = {
    getattr(termios, name): int(name[1:])
    for name in dir(termios)
    if name[0] == "B" and name[1:].isdigit()
}
DATABITS = {termios.CS5: 5, termios.CS6: 6, termios.CS7: 7, termios.CS8: 8}


class UnsupportedOnPty(OSError):
    """A pty has no modem lines and no line errors; ``errno`` is EOPNOTSUPP."""

    def __init__(self, what: str) -> None:
        super().__init__(
            errno.EOPNOTSUPP,
            f"a pty has no {what}; use an adapter or a simulated USB chip for that",
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
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.path = os.ttyname(self._slave)
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll = select.epoll()
        self._inotify = _watch_clients(self.path)
        self._clients = 0
        self._epoll.register(self._wakeup, select.EPOLLIN)
        self._epoll.register(self._inotify, select.EPOLLIN)
        self._epoll.register(self._master, 0)
        self._pushed: deque[bytes] = deque()
        self._unsent = b""
        self._tx = self._rx = 0
        self._ending = threading.Event()
        self._lock = threading.Lock()  # around the fds' end, nothing else

    # from any thread

    def push(self, data: bytes) -> None:
        """Let the device send these bytes."""
        self._pushed.append(bytes(data))
        self._wake()

    def stop(self) -> None:
        """Let serve() return; it closes everything, which is an unplug for whoever is connected."""
        self._ending.set()
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
            while not self._ending.is_set():
                self._step(self._epoll.poll(self._timeout()))
        except Unplugged:
            pass
        finally:
            self._close()

    def _close(self) -> None:
        with self._lock:
            for fd in (self._master, self._slave, self._wakeup, self._inotify):
                os.close(fd)
            self._epoll.close()
            self._master = -1

    def _timeout(self) -> float | None:
        events = [
            at for at in (self._uart.next_event(), self._firmware.next_event()) if at is not None
        ]
        if not events or (self._unsent and min(events) == 0):
            return None
        return max(0.0, (min(events) - time.monotonic_ns()) / 1e9)

    def _step(self, ready: list[tuple[int, int]]) -> None:
        for fd, events in ready:
            if fd == self._wakeup:
                os.eventfd_read(fd)
            elif fd == self._inotify:
                self._count_clients(os.read(fd, 4096))
            elif events & select.EPOLLIN:
                self._from_client()
        self._shift(time.monotonic_ns())
        self._to_client()
        self._epoll.modify(
            self._master,
            (select.EPOLLIN if self._uart.tx.room and not self._unsent else 0)
            | (select.EPOLLOUT if self._unsent else 0),
        )

    def _count_clients(self, events: bytes) -> None:
        while events:
            _, mask, _, length = INOTIFY_EVENT.unpack_from(events)
            self._clients += bool(mask & IN_OPEN) - bool(mask & IN_CLOSE)
            events = events[INOTIFY_EVENT.size + length :]
        if self._clients <= 0:
            fcntl.ioctl(self._slave, termios.TIOCNXCL)

    def _from_client(self) -> None:
        self._uart.set_framing(self._framing())
        try:
            data = os.read(self._master, min(READ_SIZE, self._uart.tx.room))
        except BlockingIOError:
            return
        self._uart.write(data, time.monotonic_ns())

    def _framing(self) -> Framing:
        """What the client set: the master shows the slave's termios."""
        cflag, speed = self._attributes()
        return Framing(
            baudrate=BAUD.get(speed, speed) or 1,
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


def _watch_clients(path: str) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    inotify: int = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    if inotify < 0 or libc.inotify_add_watch(inotify, path.encode(), IN_OPEN | IN_CLOSE) < 0:
        raise OSError(ctypes.get_errno(), f"{path} cannot be watched for clients")
    return inotify
