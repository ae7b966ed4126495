# SPDX-License-Identifier: MIT
"""Composition. The floor: the system calls alone, blocking, with nothing of ours around them."""

from __future__ import annotations

import os
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from udriver.bench.rounds import Block, timed

__all__ = ["bare_fd", "bare_trips", "select_thread_trips"]


@contextmanager
def bare_fd(path: str) -> Iterator[int]:
    """A raw, blocking fd of the tty."""
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    found = termios.tcgetattr(fd)
    tty.setraw(fd)
    try:
        yield fd
    finally:
        termios.tcsetattr(fd, termios.TCSANOW, found)
        os.close(fd)


@contextmanager
def bare_trips(path: str, frame: bytes) -> Iterator[Block]:
    """os.write, then os.read until all of it is back."""
    size = len(frame)
    with bare_fd(path) as fd:

        def trip() -> None:
            os.write(fd, frame)
            got = len(os.read(fd, size))
            while got < size:
                got += len(os.read(fd, size - got))

        yield partial(timed, trip)


@contextmanager
def select_thread_trips(path: str, frame: bytes) -> Iterator[Block]:
    """What people write by hand: a thread in select(), a buffer, and a threading.Event."""
    import select

    size = len(frame)
    with bare_fd(path) as fd:
        buffer = bytearray()
        full = threading.Event()
        stop_reader, stop_writer = os.pipe()

        def receive() -> None:
            while stop_reader not in (ready := select.select([fd, stop_reader], [], [])[0]):
                if fd in ready:
                    buffer.extend(os.read(fd, 4096))
                    if len(buffer) >= size:
                        full.set()

        def trip() -> None:
            os.write(fd, frame)
            full.wait()
            full.clear()
            buffer.clear()

        thread = threading.Thread(target=receive, name="select", daemon=True)
        with _running(thread, partial(os.write, stop_writer, b"x")):
            yield partial(timed, trip)
        os.close(stop_reader)
        os.close(stop_writer)


@contextmanager
def _running(thread: threading.Thread, stop: Callable[[], object]) -> Iterator[None]:
    thread.start()
    try:
        yield
    finally:
        stop()
        thread.join()
