# SPDX-License-Identifier: MIT
"""What --udriver-leaks calls a leak."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from udriver.pytest_plugin import Resources


@pytest.fixture
def pipe() -> Iterator[list[int]]:
    """The two ends of a pipe, and whatever a test adds, closed at the end."""
    fds = list(os.pipe())
    yield fds
    for fd in fds:
        os.close(fd)


def test_nothing_is_no_leak() -> None:
    assert Resources().leaked_since(Resources()) == []


def test_an_fd_is(pipe: list[int]) -> None:
    before = Resources()
    pipe += os.pipe()
    leaked = Resources().leaked_since(before)
    assert sorted(said.partition(" (")[0] for said in leaked) == sorted(
        f"fd {fd}" for fd in pipe[2:]
    )
    assert all("pipe:[" in said for said in leaked)


def test_one_for_one_of_its_kind_is_a_replacement(pipe: list[int]) -> None:
    before = Resources()
    other = os.pipe()
    for old, new in zip(pipe, other, strict=True):
        os.dup2(new, old)
        os.close(new)
    assert Resources().leaked_since(before) == []


def test_one_for_one_of_another_kind_is_not(pipe: list[int]) -> None:
    before = Resources()
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, pipe[0])
    os.close(null)
    assert Resources().leaked_since(before) == [f"fd {pipe[0]} (/dev/null)"]


def test_a_thread_is_and_so_is_a_handler_and_a_blocked_signal() -> None:
    before = Resources()
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="forgotten")
    thread.start()
    handler = signal.signal(signal.SIGUSR1, lambda signum, frame: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    leaked = Resources().leaked_since(before)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
    signal.signal(signal.SIGUSR1, handler)
    end.set()
    thread.join()
    assert leaked[0] == "thread forgotten"
    assert leaked[1].startswith("a handler of SIGUSR1: ")
    assert leaked[2:] == ["blocked <Signals.SIGUSR2: 12>"]
