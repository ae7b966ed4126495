# SPDX-License-Identifier: MIT
"""Composition. The least that a way can cost in Python, whoever writes it: no code of ours, no way out.

Each is the shortest program that still does the thing, and leaves out what makes it usable: a
blocking read(2) or a lock ends for no deadline, no unplug and no signal. A bar that one of these misses
is one that nobody meets; what it leaves below a bar is all the room that a driver has.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from udriver.bench.floor import bare_fd
from udriver.bench.rounds import Block, timed
from udriver.bench.roundtrip import FRAME
from udriver.kernel.completion import Completion, complete, try_wait_for_completion

__all__ = [
    "Ends",
    "event",
    "eventfd",
    "eventfd_in_epoll",
    "lock",
    "read_thread",
    "sleep_and_complete",
]

Ends = tuple[Callable[[], object], Callable[[], object]]
"""How the one thread tells, and how the other waits."""


def lock() -> Ends:
    """One C call each; the other thread is let in when the teller next gives the GIL away."""
    taken = threading.Lock()
    taken.acquire()
    return taken.release, taken.acquire


def event() -> Ends:
    """What people use: a lock inside a lock, and a new one for each wait."""
    happened = threading.Event()

    def wait() -> None:
        happened.wait()
        happened.clear()

    return happened.set, wait


def eventfd() -> Ends:
    """One system call each, and the GIL is free in both: who is woken may find it so."""
    fd = _EventFd()
    return fd.tell, fd.take


def eventfd_in_epoll() -> Ends:
    """A wait that can have a deadline, and that something else can end."""
    fd = _EventFd()
    poll = select.epoll()
    poll.register(fd.number, select.EPOLLIN)

    def wait() -> None:
        poll.poll(5.0, 2)
        fd.take()

    return fd.tell, wait


class _EventFd:
    def __init__(self) -> None:
        self.number = os.eventfd(0, os.EFD_CLOEXEC)
        self.tell = partial(os.eventfd_write, self.number, 1)

    def take(self) -> None:
        os.eventfd_read(self.number)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self.number)


@contextmanager
def read_thread(path: str, ends: Callable[[], Ends]) -> Iterator[Block]:
    """A thread in os.read that tells us, and no more: what it read is thrown away."""
    tell, wait = ends()
    over: list[bool] = []
    with bare_fd(path) as fd, ExitStack() as stack:

        def receive() -> None:
            while not over:
                got = len(os.read(fd, 4096))
                while got < len(FRAME):
                    got += len(os.read(fd, 4096))
                tell()

        thread = threading.Thread(target=receive, name="least", daemon=True)
        thread.start()
        stack.callback(thread.join)
        stack.callback(os.write, fd, FRAME)  # a blocking read ends with an answer, and not without
        stack.callback(over.append, True)

        def trip() -> None:
            os.write(fd, FRAME)
            wait()

        yield partial(timed, trip)


@contextmanager
def sleep_and_complete(path: str) -> Iterator[Block]:
    """Write, epoll_wait, read; one complete() and one try_wait_for_completion(). No thread."""
    x = Completion("least")
    with bare_fd(path) as fd, select.epoll() as epoll:
        epoll.register(fd, select.EPOLLIN)
        received = bytearray()

        def trip() -> None:
            os.write(fd, FRAME)
            while not try_wait_for_completion(x):
                epoll.poll(5.0, 2)
                received.extend(os.read(fd, 4096))
                if len(received) >= len(FRAME):
                    complete(x)
            received.clear()

        yield partial(timed, trip)
