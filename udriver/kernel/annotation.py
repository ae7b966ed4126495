# SPDX-License-Identifier: MIT
"""What a driver tells the completion checker that its calls do not show.

As lockdep's annotations, they mean nothing to the driver itself; while no ``udriver.checking()``
block runs each is one false test, but for completion_set_kind(), which is remembered.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol
from weakref import WeakKeyDictionary

from udriver.kernel.completion import Completion

__all__ = [
    "Checker",
    "completion_set_kind",
    "completion_shares",
    "lock_set_class",
    "operation",
    "operation_start",
    "operation_stop",
]

Kind = Literal["condition", "counted"]


class Checker(Protocol):
    """The other side: :mod:`udriver.checker`."""

    def start(self, x: Completion, ident: object) -> None:
        """See operation_start().

        Context: Any context.
        """
        ...

    def stop(self, x: Completion) -> None:
        """See operation_stop().

        Context: Any context.
        """
        ...

    def kind(self, x: Completion, kind: str) -> None:
        """See completion_set_kind().

        Context: Any context.
        """
        ...

    def shares(self, x: Completion, obj: Any) -> None:
        """See completion_shares().

        Context: Any context.
        """
        ...

    def lock(self, lock: Any, name: str, *, spin: bool) -> Any:
        """See lock_set_class().

        Context: Any context.
        """
        ...


checker: Checker | None = None
kinds: WeakKeyDictionary[Completion, Kind] = WeakKeyDictionary()
"""Kept at all times: a driver may have been opened before the block began."""


def operation_start(x: Completion, ident: object = None) -> None:
    """The hardware is about to be told to do what ends with complete(x). Call it just before.

    ``ident`` names the operation, where a second complete() for it is a mistake of its own.

    Context: Any context.
    """
    if checker is not None:
        checker.start(x, ident)


def operation_stop(x: Completion) -> None:
    """The hardware has been stopped: nothing completes ``x`` for this operation any more.

    Context: Any context.
    """
    if checker is not None:
        checker.stop(x)


@contextmanager
def operation(x: Completion, ident: object = None) -> Iterator[None]:
    """The hardware works on ``x``'s operation at most as long as the block runs.

    Context: Any context.
    """
    operation_start(x, ident)
    try:
        yield
    finally:
        operation_stop(x)


def completion_set_kind(x: Completion, kind: Kind) -> None:
    """Say what tokens of ``x`` mean, if not one event of one operation.

    ``"condition"``: look again. The waiter has a state of its own to look at after each wait, so
    that a token too many or too old does no harm. ``"counted"``: so many of something, as in a semaphore.

    Context: Any context.
    """
    kinds[x] = kind
    if checker is not None:
        checker.kind(x, kind)


def completion_shares(x: Completion, obj: Any) -> None:
    """``obj`` is the waiter's once complete(x) was called: its attributes are not written then.

    Context: Any context.
    """
    if checker is not None:
        checker.shares(x, obj)


def lock_set_class(lock: Any, name: str, *, spinlock: bool = False) -> Any:
    """Have ``lock`` watched, and use what this returns in its place; no wait is made under a spinlock.

    Locks that a module makes itself with threading.Lock() inside the block are watched anyway.

    Context: Any context.
    """
    return lock if checker is None else checker.lock(lock, name, spin=spinlock)
