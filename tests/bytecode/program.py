# SPDX-License-Identifier: MIT
"""What is interrupted, what interrupts it, and what has to be true afterwards."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import ClassVar

from tests.bytecode.asleep import at_rest

__all__ = ["Program"]


class Program:
    """One run of the code under test. A new object for each: __init__() makes the first state.

    ``ops`` are the handlers to try, by name; ``posts`` those of them that end a wait. ``files`` are parts
    of the paths whose code counts. What is counted is counted by list.append(), one call into C:
    a handler may come between any two bytecodes here, too.
    """

    group: ClassVar[str]
    name: ClassVar[str]
    files: ClassVar[tuple[str, ...]]
    ops: ClassVar[tuple[str, ...]]
    posts: ClassVar[tuple[str, ...]] = ()
    patience: ClassVar[float] = 0.0
    """Seconds that a lost wake-up must have lasted before it is called one, where none is expected."""

    fragile: ClassVar[bool] = False
    """Whether it is expected to go wrong."""

    def __init__(self) -> None:
        self.posted: list[int] = []
        self.taken: list[int] = []
        self.waiters: list[threading.Thread] = []
        self.helpers: frozenset[int] = frozenset()  # thread ids of the harness

    def act(self) -> None:
        """The code under test."""
        raise NotImplementedError

    def op(self, name: str) -> None:
        """What the handler does."""
        raise NotImplementedError

    def available(self) -> bool:
        """Whether what act() sleeps for is there: then its sleep is a lost wake-up."""
        return False

    def post(self) -> None:
        """End the sleep of act(), from another thread; it sleeps for good otherwise."""

    def check(self) -> str:
        """What is wrong: "W" or "L" and a sentence; or nothing."""
        return ""

    def cleanup(self) -> None:
        """Let background waiters end."""

    def in_background(self, body: Callable[[], object], queued: Callable[[], bool]) -> None:
        """Start a waiter and return when it is queued."""
        thread = threading.Thread(target=body, daemon=True)
        self.waiters.append(thread)
        thread.start()
        while not queued():
            time.sleep(0)

    def settles(self, condition: Callable[[], object]) -> bool:
        """Whether ``condition`` comes true before all other threads have gone to sleep for good."""
        last = None
        while not condition():
            time.sleep(5e-5)
            now = at_rest("self", self.helpers)
            if now is not None and now == last:
                end = time.monotonic() + self.patience
                while not condition() and time.monotonic() < end:
                    time.sleep(1e-3)
                return bool(condition())
            last = now
        return True
