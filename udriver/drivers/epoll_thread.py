# SPDX-License-Identifier: MIT
"""A thread that sleeps in an epoll until it is told to end; an irqchip has one, or none.

Made and started in process context, where Ctrl-C may raise at any call. Thread.start() is cut in two
by it with nothing to tell whether the thread will run. So the thread waits at a gate, which opens when
start() has come to its end; else it opens too, and the thread ends without a look at any fd.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable

from udriver.drivers.fds import close_once

__all__ = ["EpollThread"]


class EpollThread:
    """``ready`` is called on the thread with what ``epoll`` gives, from start() to stop()."""

    def __init__(self, name: str, ready: Callable[[list[tuple[int, int]]], None]) -> None:
        self.epoll = select.epoll()
        self.thread: threading.Thread | None = None  # made late: it and this are a cycle
        self._name = name
        self._ready = ready
        self._stop_fds: list[int] = []
        self._gate = threading.Lock()
        self._gate.acquire()
        self._runs = False

    def start(self) -> None:
        """Start it; on any exception nothing of it stays."""
        try:
            # make and remember in one C call: a signal handler may raise between any two
            self._stop_fds.extend(map(os.eventfd, (0,), (os.EFD_CLOEXEC | os.EFD_NONBLOCK,)))
            self.epoll.register(self._stop_fds[0], select.EPOLLIN)
            self.thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self.thread.start()
            self._pid = os.getpid()
            self._runs = True
            self._gate.release()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it and close its fds. May be repeated."""
        if self._runs and self.thread is not None:
            # in a child the eventfd is its parent's, too, whose thread it would end
            if self._stop_fds and self._pid == os.getpid():
                os.eventfd_write(self._stop_fds[0], 1)
            if threading.current_thread() is not self.thread:
                self.thread.join()
        elif self._gate.locked():
            self._gate.release()
        self.epoll.close()
        close_once(self._stop_fds)

    def _run(self) -> None:
        self._gate.acquire()
        if not self._runs:
            return
        epoll, stop_fd = self.epoll, self._stop_fds[0]
        while True:
            ready = epoll.poll()
            if any(fd == stop_fd for fd, _ in ready):
                return
            self._ready(ready)
