# SPDX-License-Identifier: MIT
"""udriver.kernel under test: completions and their waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from tests.bytecode.program import Program
from udriver.kernel import completion as c
from udriver.kernel import sched
from udriver.kernel.completion import UINT_MAX, Completion
from udriver.kernel.threads import ThreadScheduler

__all__ = ["OnCompletion", "program"]

KERNEL = ("/udriver/kernel/",)


class OnCompletion(Program):
    """One completion; every token that was posted is taken once, or left."""

    group = "completion"
    files: ClassVar[tuple[str, ...]] = KERNEL
    ops: ClassVar[tuple[str, ...]] = ("complete", "complete_all", "try", "done")
    posts: ClassVar[tuple[str, ...]] = ("complete", "complete_all")
    patience = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.x = Completion("x")
        self.for_good: list[int] = []
        self.ended: list[int] = []

    def complete(self) -> None:
        """Post a token, counted."""
        self.posted.append(1)
        c.complete(self.x)

    def op(self, name: str) -> None:
        """One of the four functions that any context may call."""
        if name == "complete":
            self.complete()
        elif name == "complete_all":
            self.for_good.append(1)
            c.complete_all(self.x)
        elif name == "try":
            if c.try_wait_for_completion(self.x):
                self.taken.append(1)
        else:
            c.completion_done(self.x)

    def available(self) -> bool:
        """Whether a token is there."""
        return self.x.done > 0

    def post(self) -> None:
        """As a driver's thread would."""
        self.complete()

    def wait_in_background(self) -> None:
        """A thread that takes one token."""

        def body() -> None:
            c.wait_for_completion(self.x)
            self.taken.append(1)
            self.ended.append(1)

        queued = len(self.waiters) + 1
        self.in_background(body, lambda: len(self.x.wait_queue) >= queued)

    def check(self) -> str:
        """Nobody sleeps while there is a token; tokens add up."""
        if not self.settles(lambda: not (self.x.done and len(self.x.wait_queue))):
            return f"L {self.x!r}"
        if self.for_good:
            alive = not self.settles(lambda: len(self.ended) == len(self.waiters))
            return f"L {self.x!r}" if alive else self.check_for_good()
        if not self.settles(lambda: len(self.posted) == len(self.taken) + self.x.done):
            return f"W {len(self.posted)} posted, {len(self.taken)} taken, {self.x.done} left"
        return ""

    def check_for_good(self) -> str:
        """Complete for good is what it stays."""
        return "" if self.x.done == UINT_MAX else f"W done is {self.x.done} after complete_all()"

    def cleanup(self) -> None:
        """Let the background waiters go."""
        if self.waiters:
            c.complete_all(self.x)
            for thread in self.waiters:
                thread.join()


class WithWaiters(OnCompletion):
    """Two threads wait already."""

    def __init__(self) -> None:
        super().__init__()
        self.wait_in_background()
        self.wait_in_background()


class WithToken(OnCompletion):
    """A token is there already."""

    def __init__(self) -> None:
        super().__init__()
        self.complete()


class FirstWait(OnCompletion):
    """The thread has never slept: its task is made, with its file descriptors."""

    def __init__(self) -> None:
        super().__init__()
        self.block = sched.using(ThreadScheduler())
        self.block.__enter__()

    def cleanup(self) -> None:
        self.block.__exit__(None, None, None)


class ByHand(OnCompletion):
    """``done`` was written, not posted."""

    def __init__(self) -> None:
        super().__init__()
        self.posted += [1, 1]
        self.x.done = 2


class Forgetting(OnCompletion):
    """reinit: what was posted before it is forgotten, so that only bounds can be checked."""

    def check(self) -> str:
        """No more tokens than were posted."""
        if self.for_good:
            wrong = len(self.posted) < self.x.done < UINT_MAX
            return f"W done is {self.x.done}" if wrong else ""
        sum_ = len(self.taken) + self.x.done
        return "" if sum_ <= len(self.posted) else f"W {len(self.posted)} posted, {sum_} found"


class ForgettingWithToken(Forgetting):
    """And there was one."""

    def __init__(self) -> None:
        super().__init__()
        self.complete()


Act = Callable[[Any], object]


def program(base: type[Program], name: str, act: Act) -> type[Program]:
    """Make a Program of ``base`` that does ``act``."""
    made: type[Program] = type(name, (base,), {"name": name, "act": act})
    return made
