# SPDX-License-Identifier: MIT
"""What a client of a simulated device needs: an fd on its tty, and patience with an end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

DEADLINE = 30.0  # s; only a hang takes that long

Until = Callable[[Callable[[], object]], None]
OpenTty = Callable[[str], int]
ReadAll = Callable[[int, int], bytes]


@pytest.fixture
def until() -> Until:
    """``until(condition)``: spin until it is true."""

    def wait(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < deadline, "the condition never came true"
            time.sleep(0.001)

    return wait


@pytest.fixture
def open_tty() -> Iterator[OpenTty]:
    """``open_tty(path)``: a blocking fd, closed at the end of the test."""
    with ExitStack() as stack:

        def open_(path: str) -> int:
            fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
            stack.callback(os.close, fd)
            return fd

        yield open_


@pytest.fixture
def read_exactly() -> ReadAll:
    """``read_exactly(fd, count)``: that many bytes."""

    def read(fd: int, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            data += os.read(fd, count - len(data))
        return bytes(data)

    return read
