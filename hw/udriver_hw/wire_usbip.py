# SPDX-License-Identifier: MIT
"""USB/IP as the wire's host side: the kernel's vhci_hcd holds one end of a socket pair, we the other.

1. One thread owns the sessions, their functions and our ends; others only ask it, by call(). So
   there is no lock, and no URB is unlinked while it is being completed.
2. It sleeps in epoll until a URB comes, somebody calls, or the functions' next event: a timerfd,
   as epoll's own time-out is whole milliseconds and a latency timer may be one.
3. Serve from a process of its own. One that both serves the device and holds its tty cannot end:
   closing the tty waits for an answer that only it could give.
4. Our end closed, by us or by our death, is an unplug by surprise. An orderly one is vhci.detach().
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from udriver_hw.chips.firmware import Unplugged
from udriver_hw.chips.usb import Function
from udriver_hw.usbip import ProtocolError, Session

__all__ = ["UsbipWire"]

READ_SIZE = 1 << 16
MOST_OUTPUT = 1 << 20  # bytes; a host that reads no replies is not listened to either
SOONEST = 1_000_000  # ns; an event that was due already and changed nothing
CLOCK_MONOTONIC, TFD_TIMER_ABSTIME = 1, 1  # linux/time.h, linux/timerfd.h


class UsbipWire:
    """Functions that are served together; ``host_ends`` has the socket of each for vhci.attach().

    Functions that are joined by a cable are served by one wire. Close ``host_ends`` once attached.
    """

    def __init__(self, *functions: Function) -> None:
        self.host_ends: list[socket.socket] = []
        self._sessions: dict[int, tuple[socket.socket, Session]] = {}
        self._epoll = select.epoll()
        for function in functions:
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            self.host_ends.append(theirs)
            self._sessions[ours.fileno()] = ours, Session(function)
            self._epoll.register(ours.fileno(), select.EPOLLIN)
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._timer = _Timer()
        self._epoll.register(self._wakeup, select.EPOLLIN)
        self._epoll.register(self._timer.fd, select.EPOLLIN)
        self._calls: deque[tuple[Callable[[int], Any], Future[Any]]] = deque()
        self._ended = False
        self._lock = threading.RLock()  # around the fd's end; a signal handler may call, too

    # from any thread

    def call(self, function: Callable[[int], Any]) -> Future[Any]:
        """Let the thread that serves run ``function(now)``; the future has what it gave."""
        future: Future[Any] = Future()
        self._calls.append((function, future))
        with self._lock:
            if self._ended:
                self._cancel_calls()
            else:
                os.eventfd_write(self._wakeup, 1)
        return future

    def unplug(self) -> None:
        """Take all of them away by surprise; serve() then returns."""
        self.call(lambda now: self._drop_all())

    # the one thread

    def serve(self) -> None:
        """Serve until all functions are unplugged, by us or by the host; then close all fds."""
        try:
            while self._sessions:
                self._turn(self._epoll.poll())
        finally:
            self._drop_all()
            with self._lock:
                self._ended = True
                self._cancel_calls()
                os.close(self._wakeup)
            self._epoll.close()
            self._timer.close()

    def _turn(self, ready: list[tuple[int, int]]) -> None:
        for fd, events in ready:
            if fd == self._wakeup:
                os.eventfd_read(fd)
            elif fd == self._timer.fd:
                self._timer.clear()
            elif events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                self._receive(fd)
        now = time.monotonic_ns()
        while self._calls:
            _run(*self._calls.popleft(), now)
        while any(self._pump(fd, now) for fd in list(self._sessions)):
            pass
        for fd in list(self._sessions):
            self._send(fd)
        self._timer.set(self._due(now))

    def _receive(self, fd: int) -> None:
        ours, session = self._sessions[fd]
        try:
            data = ours.recv(READ_SIZE)
            if not data:
                raise ConnectionError("the host pulled it")
            session.feed(data)
        except BlockingIOError:
            pass
        except (OSError, ProtocolError):
            self._drop(fd)

    def _pump(self, fd: int, now: int) -> bool:
        session = self._sessions[fd][1]
        try:
            session.function.advance(now)
            return session.pump(now)
        except Unplugged:
            self._send(fd)
            if fd in self._sessions:
                self._drop(fd)
            return False

    def _send(self, fd: int) -> None:
        ours, session = self._sessions[fd]
        try:
            while session.output:
                del session.output[: ours.send(session.output[:READ_SIZE])]
        except BlockingIOError:
            pass
        except OSError:
            self._drop(fd)
            return
        reads = len(session.output) < MOST_OUTPUT
        writes = bool(session.output)
        self._epoll.modify(fd, reads * select.EPOLLIN | writes * select.EPOLLOUT)

    def _due(self, now: int) -> int | None:
        events = (session.function.next_event() for _, session in self._sessions.values())
        due = min((at for at in events if at is not None), default=None)
        return due if due is None or due > now else now + SOONEST

    def _drop(self, fd: int) -> None:
        ours, _session = self._sessions.pop(fd)
        self._epoll.unregister(fd)
        try:
            ours.shutdown(socket.SHUT_RDWR)  # a copy of our end in a child must not keep it up
        except OSError:
            pass
        ours.close()

    def _drop_all(self) -> None:
        for fd in list(self._sessions):
            self._drop(fd)

    def _cancel_calls(self) -> None:
        while self._calls:
            self._calls.popleft()[1].cancel()


def _run(function: Callable[[int], Any], future: Future[Any], now: int) -> None:
    try:
        future.set_result(function(now))
    except Exception as exc:  # noqa: BLE001 - the caller's, not ours
        future.set_exception(exc)


class _Timer:
    """A timerfd; the standard library has it only from Python 3.13 on."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = self._libc.timerfd_create(CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "no timerfd")

    def set(self, at: int | None) -> None:
        """Fire at ``at`` ns of the monotonic clock, or never."""
        # struct itimerspec: interval, then value, each seconds and nanoseconds; 0 disarms
        spec = (ctypes.c_long * 4)(0, 0, *divmod(at or 0, 1_000_000_000))
        self._libc.timerfd_settime(self.fd, TFD_TIMER_ABSTIME, spec, None)

    def clear(self) -> None:
        """It fired."""
        try:
            os.read(self.fd, 8)
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Give the fd back."""
        os.close(self.fd)
