# SPDX-License-Identifier: MIT
"""The standard library's primitives with a state instead of a count: Event and Future."""

from __future__ import annotations

import functools
import threading
from concurrent import futures
from typing import ClassVar

from tests.bytecode.program import Program
from tests.bytecode.stdlib import HERE, Standard, post, program

__all__ = ["programs"]

ALSO_HERE = "/tests/bytecode/states.py"


class OnEvent(Standard):
    """threading.Event. It has a state and no count: set() and clear() have nothing to add up."""

    group = "threading.Event"
    files: ClassVar[tuple[str, ...]] = (HERE, ALSO_HERE, "/threading.py")
    ops = ("set", "clear", "is_set")
    posts: ClassVar[tuple[str, ...]] = ("set",)

    def __init__(self) -> None:
        super().__init__()
        self.it = threading.Event()
        self.cleared: list[int] = []

    def op(self, name: str) -> None:
        if name == "set":
            self.post()
        elif name == "clear":
            self.cleared.append(1)
            self.it.clear()
        else:
            self.it.is_set()

    def give(self) -> None:
        self.it.set()

    def left(self) -> int:
        return self.it._flag  # type: ignore[attr-defined,no-any-return]

    def check(self) -> str:
        if self.posted and not self.cleared and not self.it._flag:  # type: ignore[attr-defined]
            return "W set, and not set"
        return ""


class OnFuture(Standard):
    """concurrent.futures.Future, done once; the handlers do what an executor and a caller do."""

    group = "futures.Future"
    files: ClassVar[tuple[str, ...]] = (
        HERE,
        ALSO_HERE,
        "/threading.py",
        "/concurrent/futures/_base.py",
    )
    ops = ("set_result", "cancel", "done")
    posts: ClassVar[tuple[str, ...]] = ("set_result",)

    def __init__(self) -> None:
        super().__init__()
        self.it: futures.Future[int] = futures.Future()
        self.called: list[int] = []
        self.cancelled: list[int] = []
        self.callbacks = 0

    def op(self, name: str) -> None:
        if name == "set_result":
            self.give()
        elif name == "cancel":
            if self.it.cancel():
                self.cancelled.append(1)
        else:
            self.it.done()

    def give(self) -> None:
        try:
            self.it.set_result(1)
        except futures.InvalidStateError:
            return  # it was done already, which a caller has to expect
        self.posted.append(1)

    post = give

    def left(self) -> int:
        return self.it._state in ("FINISHED", "CANCELLED", "CANCELLED_AND_NOTIFIED")

    def check(self) -> str:
        if len(self.posted) > 1:
            return "W two results were accepted"
        if self.posted and self.cancelled:
            return "W it has a result and is cancelled"
        done = bool(self.posted or self.cancelled)
        if len(self.called) != self.callbacks * done:
            return f"W {self.callbacks} callback was called {len(self.called)} times"
        return ""


def _result(self: OnFuture) -> None:
    try:
        self.it.result()
    except futures.CancelledError:
        pass


def _set_result(self: OnFuture) -> None:
    try:
        self.it.set_result(1)
    except futures.InvalidStateError:
        return
    self.posted.append(1)


def _cancel(self: OnFuture) -> None:
    if self.it.cancel():
        self.cancelled.append(1)


def _add_callback(self: OnFuture) -> None:
    self.callbacks = 1
    self.it.add_done_callback(self.called.append)  # type: ignore[arg-type]


@functools.cache
def programs() -> list[type[Program]]:
    """All of them."""
    return [
        program(OnEvent, "set", post),
        program(OnEvent, "clear", lambda self: self.cleared.append(1) or self.it.clear()),
        program(OnEvent, "is_set", lambda self: self.it.is_set()),
        program(OnEvent, "wait", lambda self: self.it.wait()),
        program(OnFuture, "set_result", _set_result),
        program(OnFuture, "cancel", _cancel),
        program(OnFuture, "result", _result),
        program(OnFuture, "add_done_callback", _add_callback),
    ]
