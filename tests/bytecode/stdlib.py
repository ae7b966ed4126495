# SPDX-License-Identifier: MIT
"""The standard library's primitives under the same handlers, each used as its documentation says."""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from tests.bytecode.program import Program

__all__ = ["HERE", "Standard", "post", "program", "programs"]

# the few lines that call it, too: a function in C has no boundaries inside
HERE = "/tests/bytecode/stdlib.py"


def program(base: type[Program], name: str, act: Callable[[Any], object]) -> type[Program]:
    """Make a Program of ``base`` that does ``act``."""
    made: type[Program] = type(name, (base,), {"name": f"{base.group}.{name}", "act": act})
    return made


class Standard(Program):
    """Tokens that were posted are taken once, or left: ``left()``."""

    files: ClassVar[tuple[str, ...]] = (HERE, "/threading.py")
    ops: ClassVar[tuple[str, ...]] = ("post", "take", "look")
    posts: ClassVar[tuple[str, ...]] = ("post",)
    fragile = True

    def give(self) -> None:
        """Put one in."""

    def take(self) -> bool:
        """Take one out if there is one, without sleeping."""
        return False

    def wait(self) -> None:
        """Sleep until there is one, and take it."""

    def left(self) -> int:
        """How many are in it, read without a lock."""
        return 0

    def op(self, name: str) -> None:
        """What a signal handler would call."""
        if name == "post":
            self.post()
        elif name == "take":
            if self.take():
                self.taken.append(1)
        else:
            self.look()

    def post(self) -> None:
        """give(), counted."""
        self.posted.append(1)
        self.give()

    def look(self) -> object:
        """Ask whether there is one."""
        return self.left()

    def available(self) -> bool:
        """As said."""
        return self.left() > 0

    def check(self) -> str:
        """They add up."""
        if len(self.posted) == len(self.taken) + self.left():
            return ""
        return f"W {len(self.posted)} posted, {len(self.taken)} taken, {self.left()} left"


def post(self: Standard) -> None:
    self.posted.append(1)
    self.give()


def _take(self: Standard) -> None:
    if self.take():
        self.taken.append(1)


def _wait(self: Standard) -> None:
    self.wait()
    self.taken.append(1)


def _wait_with_one(self: Standard) -> None:
    self.posted.append(1)
    self.give()
    self.wait()
    self.taken.append(1)


class OnSemaphore(Standard):
    """threading.Semaphore(0)."""

    group = "threading.Semaphore"

    def __init__(self) -> None:
        super().__init__()
        self.it = threading.Semaphore(0)
        self.give = self.it.release  # type: ignore[method-assign]
        self.wait = self.it.acquire  # type: ignore[method-assign,assignment]

    def take(self) -> bool:
        return self.it.acquire(blocking=False)

    def left(self) -> int:
        return self.it._value


class OnCondition(Standard):
    """A counter under threading.Condition(), whose lock is an RLock unless told otherwise."""

    group = "threading.Condition"

    def __init__(self) -> None:
        super().__init__()
        self.it = threading.Condition(self.lock())
        self.n = 0

    @staticmethod
    def lock() -> Any:
        """None for the default."""
        return None

    def give(self) -> None:
        with self.it:
            self.n += 1
            self.it.notify()

    def take(self) -> bool:
        with self.it:
            if self.n:
                self.n -= 1
                return True
        return False

    def wait(self) -> None:
        with self.it:
            while not self.n:
                self.it.wait()
            self.n -= 1

    def left(self) -> int:
        return self.n


class OnConditionLock(OnCondition):
    """As before, with a Lock."""

    group = "threading.Condition(Lock)"
    lock = staticmethod(threading.Lock)


class OnQueue(Standard):
    """queue.Queue."""

    group = "queue.Queue"
    files: ClassVar[tuple[str, ...]] = (HERE, "/threading.py", "/queue.py")
    kind: ClassVar[Any] = queue.Queue

    def __init__(self) -> None:
        super().__init__()
        self.it = self.kind()

    def give(self) -> None:
        self.it.put(1)

    def take(self) -> bool:
        try:
            self.it.get_nowait()
        except queue.Empty:
            return False
        return True

    def wait(self) -> None:
        self.it.get()

    def left(self) -> int:
        return len(self.it.queue)

    def look(self) -> object:
        return self.it.empty()


class OnSimpleQueue(OnQueue):
    """queue.SimpleQueue, which is written in C to be reentrant."""

    group = "queue.SimpleQueue"
    kind = queue.SimpleQueue

    def left(self) -> int:
        return int(self.it.qsize())


@functools.cache
def programs() -> list[type[Program]]:
    """All of them."""
    return list(_programs())


def _programs() -> Iterator[type[Program]]:
    for base in (OnSemaphore, OnCondition, OnConditionLock, OnQueue, OnSimpleQueue):
        words = {"OnSemaphore": "release acquire", "OnQueue": "put get", "OnSimpleQueue": "put get"}
        give, take = words.get(base.__name__, "notify wait").split()
        yield program(base, give, post)
        yield program(base, f"{take} without sleeping", _take)
        yield program(base, f"{take} that sleeps", _wait)
        yield program(base, f"{give}, {take}", _wait_with_one)
