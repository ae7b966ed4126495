# SPDX-License-Identifier: MIT
"""The history of one completion: its tokens, its waits, the operation it is used for."""

from __future__ import annotations

import weakref
from collections import deque
from typing import Any, NamedTuple

from udriver.checker.place import Activation, Place
from udriver.kernel.completion import Completion

__all__ = ["SIGNAL", "TIMEOUT", "TOKEN", "End", "Operation", "Post", "Record", "Wait"]

TOKEN, TIMEOUT, SIGNAL = "token", "timeout", "signal"


class Post(NamedTuple):
    """A token: who posted it, when, and in which run of a handler, 0 if in none.

    ``needed`` are the locks that its completer took on the way, and where.
    """

    place: Place
    tick: int
    section: int
    call: Activation | None
    thread: int
    needed: tuple[tuple[Any, Place], ...]


class Wait(NamedTuple):
    """A wait that has not returned."""

    function: str
    place: Place
    tick: int
    call: Activation | None


class End(NamedTuple):
    """How the last wait ended."""

    outcome: str
    wait: Wait
    tick: int

    def left(self) -> bool:
        """Whether the function that waited has returned."""
        return self.wait.call is not None and self.wait.call.over()


class Operation:
    """What the hardware was told to do; annotated by operation_start()."""

    __slots__ = ("ended", "ident", "place", "posts", "stopped", "tick")

    def __init__(self, ident: object, place: Place, tick: int) -> None:
        self.ident = ident
        self.place = place
        self.tick = tick
        self.posts: deque[Post] = deque()
        self.ended: End | None = None  # the last wait for it
        self.stopped = False


class Record:
    """The history of one completion."""

    def __init__(self, x: Completion, name: str, born: Place | None, tick: int) -> None:
        self.name = name
        self.born = born
        self.tick = tick
        self.key: object = (born.top, name) if born else id(x)
        self.core = False  # the kernel package's own
        self.kind = ""  # "condition" or "counted", when annotated
        self.owner: Activation | None = None  # of an automatic variable
        self.posts: deque[Post] = deque()
        self.waits: dict[int, Wait] = {}
        self.last: End | None = None
        self.settled = False  # somebody stopped the completer or looked again since `last`
        self.overdue: tuple[Post, End] | None = None  # came late, and nobody has looked yet
        self.failed = False  # the caller took the end of `last` for a failure
        self.opened: Post | None = None  # by complete_all()
        self.operation: Operation | None = None
        self.reinits = 0
        self.virgin = True  # initialised, and nothing else yet
        self.unsure = False  # an exception cut a post or a wait short: tokens are not counted
        self.ended: Place | None = None  # its scope was left
        self.done_seen: Place | None = None  # completion_done() said yes
        self.polled: Place | None = None  # `done` was read, and was not 0
        self.dropped: tuple[Post, Place] | None = None  # by reinit_completion()
        self.alone: tuple[Post, int] | None = None  # complete() with several waiters
        self.late: dict[int, Place] = {}  # lines requested before it was initialised
        self.completers: dict[int, int] = {}  # id of an irqaction: when it completed this last
        self.latest: Post | None = None
        self.ref = weakref.ref(x)

    @property
    def quiet(self) -> bool:
        """Whether tokens say nothing about mistakes: annotated, or out of step."""
        return self.core or bool(self.kind) or self.unsure

    @property
    def one_shot(self) -> bool:
        """Whether it is used for one event at a time: it is reinitialised, or annotated."""
        return bool(self.reinits) or self.operation is not None

    def waiting(self) -> list[Wait]:
        """The waits that have not returned."""
        waits = list(self.waits.values())
        return [wait for wait in waits if wait.call is None or not wait.call.over()]

    def newest(self) -> Post | None:
        """The token that was posted last, and is not taken yet."""
        try:
            return self.posts[-1]
        except IndexError:
            return None

    def settle(self) -> None:
        """Its completer was stopped, or somebody looked again."""
        self.settled = True
        self.overdue = None

    def given_up(self) -> bool:
        """Whether its last wait got no token, and the caller left: it does not wait in a loop.

        Who waits for the next of many events leaves, too, and comes back. So it also takes an event of
        one operation, which reinit_completion() or an annotation shows, or a caller that failed.
        """
        last = self.last
        if last is None or last.outcome == TOKEN:
            return False
        return self.failed or (self.one_shot and last.left())

    def abandoned(self) -> bool:
        """Whether it was given up and its caller is gone, and nobody did anything about it."""
        last = self.last
        if last is None or self.settled or self.waits or not self.given_up():
            return False
        return last.left()

    def began(self) -> Place | None:
        """The place that tells most about what it is for: the operation's start, or its birth."""
        return self.operation.place if self.operation is not None else self.born
