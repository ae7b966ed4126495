# SPDX-License-Identifier: MIT
"""Deliberately wrong completions: a harness that finds nothing wrong with them is worth nothing."""

from __future__ import annotations

from typing import ClassVar

from tests.bytecode.ours import OnCompletion
from tests.bytecode.program import Program
from udriver.kernel import completion as c
from udriver.kernel import sched

__all__ = ["programs"]


class Counter:
    """``done`` as a plain int, as in C: the kernel has a spinlock around it, and this has nothing."""

    def __init__(self) -> None:
        self.done = 0
        self.wait_queue: tuple[()] = ()

    def complete(self) -> None:
        """A load, an addition and a store, and a handler may come in between."""
        self.done += 1

    def take(self) -> bool:
        """Look, and then leap."""
        if self.done == 0:
            return False
        self.done -= 1
        return True


class OnCounter(OnCompletion):
    """The programs' words, on that."""

    group = "broken"
    fragile = True
    patience = 0.0
    files: ClassVar[tuple[str, ...]] = ("/tests/bytecode/broken.py",)
    ops: ClassVar[tuple[str, ...]] = ("complete", "try")

    def __init__(self) -> None:
        super().__init__()
        self.x: Counter = Counter()  # type: ignore[assignment]

    def complete(self) -> None:
        self.posted.append(1)
        self.x.complete()

    def op(self, name: str) -> None:
        if name == "complete":
            self.complete()
        elif self.x.take():
            self.taken.append(1)


class CounterComplete(OnCounter):
    name = "broken: done += 1"

    def act(self) -> None:
        self.posted.append(1)
        self.x.complete()


class CounterTake(OnCounter):
    name = "broken: look, then leap"

    def __init__(self) -> None:
        super().__init__()
        self.complete()

    def act(self) -> None:
        if self.x.take():
            self.taken.append(1)


class LooksTooEarly(OnCompletion):
    """Tests ``done``, then queues, then sleeps: a token that comes in between wakes nobody."""

    group = "broken"
    fragile = True
    patience = 0.0
    name = "broken: queues after the look"
    files: ClassVar[tuple[str, ...]] = ("/tests/bytecode/broken.py", "/udriver/kernel/")

    def act(self) -> None:
        scheduler = sched.active()
        task = scheduler.current()
        while not c.try_wait_for_completion(self.x):
            self.x.wait_queue.task_list[lambda: scheduler.wake_up_process(task)] = task
            scheduler.schedule_timeout(sched.MAX_SCHEDULE_TIMEOUT)
        self.taken.append(1)


class OverALock(OnCompletion):
    """complete() under a plain lock, as in a transcription of the kernel's."""

    group = "broken"
    fragile = True
    patience = 0.0
    name = "broken: a lock around it"
    files: ClassVar[tuple[str, ...]] = ("/tests/bytecode/broken.py",)

    def __init__(self) -> None:
        import threading

        super().__init__()
        self.guard = threading.Lock()

    def op(self, name: str) -> None:
        with self.guard:
            super().op(name)

    def act(self) -> None:
        with self.guard:
            self.complete()


def programs() -> list[type[Program]]:
    """All of them."""
    return [CounterComplete, CounterTake, LooksTooEarly, OverALock]
