# SPDX-License-Identifier: MIT
"""Cores that are right as long as nobody comes in between. Each must be caught.

Those of tests/oracle are wrong in what a script can see; some of them are here too, by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import call
from typing import Any

from tests.interleaving.automaton import Automaton
from tests.interleaving.check import Check, Verdict
from tests.interleaving.explore import GIL, Rules
from tests.interleaving.operations import ours
from tests.interleaving.program import Program, programs
from tests.oracle import wrong as oracle
from tests.oracle.mistake import mistaken, wake_head
from udriver.kernel import completion as kernel
from udriver.kernel.completion import Completion
from udriver.kernel.sched import ERESTARTSYS, Scheduler

WRONG: dict[str, dict[str, Any]] = {
    name: oracle.WRONG[name]
    for name in (
        "done is a flag",
        "complete() of a waiter leaves no token to others",
        "complete() does not wake when a token is there already",
        "complete_all() wakes nobody when it is done",
        "reinit drops the waiters",
        "who is late stays on the queue",
        "who was chosen and finds no token gives up",
    )
}


def wrong(name: str, *replaced: str) -> Callable[[Any], Any]:
    """Register what is decorated as the replacement of these names; not with the oracle's."""

    def register(what: Any) -> Any:
        WRONG[name] = dict.fromkeys(replaced, what)
        return what

    return register


@wrong("looks, then queues", "_Waiter")
class _LooksTooEarly(kernel._Waiter):
    def sleep(self, scheduler: Scheduler, state: int) -> int:
        while True:
            if scheduler.signal_pending_state(state, self.task):
                return 1 if self.leave() else -ERESTARTSYS
            self.task.state = state
            empty = not self.x._done.some
            self.enqueue()
            if empty:
                self.timeout = scheduler.schedule_timeout(self.timeout)
            if self.take():
                return self.timeout or 1
            if self.timeout == 0:
                return 1 if self.leave() else 0


@wrong("takes, then leaves, in two calls", "_Waiter")
class _TwoCalls(kernel._Waiter):
    def take(self) -> bool:
        try:
            self.taken.append(self.x._done.take())
        except IndexError:
            return False
        self.dequeue()
        return True


@wrong("takes, and does not leave", "_Waiter")
class _Stays(kernel._Waiter):
    def take(self) -> bool:
        try:
            self.taken.append(self.x._done.take())
        except IndexError:
            return False
        return True


@wrong("who is late or signalled does not look again", "_Waiter")
class _NoPassOn(kernel._Waiter):
    def leave(self) -> bool:
        self.dequeue()
        return False


@wrong("queues once only", "_Waiter")
class _QueuesOnce(kernel._Waiter):
    queued = False

    def enqueue(self) -> None:
        if not self.queued:
            super().enqueue()
        self.queued = True


@wrong("queues, then sets the state", "_Waiter")
class _StateLate(kernel._Waiter):
    """ThreadScheduler keeps a wake-up and does not mind; a scheduler like the kernel's loses it."""

    def sleep(self, scheduler: Scheduler, state: int) -> int:
        while True:
            if scheduler.signal_pending_state(state, self.task):
                return 1 if self.leave() else -ERESTARTSYS
            self.enqueue()
            if not self.x._done.some:
                self.task.state = state
                self.timeout = scheduler.schedule_timeout(self.timeout)
            if self.take():
                return self.timeout or 1
            if self.timeout == 0:
                return 1 if self.leave() else 0


@wrong("wakes, then posts", "complete")
def _wakes_first(x: Completion) -> None:
    wake_head(x)
    x._done.post()


@wrong("posts without a second look", "complete")
def _no_second_look(x: Completion) -> None:
    if x.wait_queue.task_list:
        any(map(call, (x._done.post, x.wait_queue.swake_up_one)))
    else:
        x._done.post()


@wrong("looks at an emptied queue without care", "complete")
def _no_key_error(x: Completion) -> None:
    x._done.post()
    if x.wait_queue.task_list:
        x.wait_queue.swake_up_one()


@wrong("complete_all() wakes, then opens", "complete_all")
def _opens_last(x: Completion) -> None:
    for _ in range(len(x.wait_queue.task_list)):
        _woken(x)
    x._done = kernel._DONE_FOR_GOOD


def _woken(x: Completion) -> bool:
    try:
        x.wait_queue.swake_up_one()
    except KeyError:
        return False
    return True


@wrong("complete_all() counts, then opens, then wakes so many", "complete_all")
def _counts_first(x: Completion) -> None:
    waiters = len(x.wait_queue.task_list)
    x._done = kernel._DONE_FOR_GOOD
    for _ in range(waiters):
        _woken(x)


@wrong("try looks, then leaps", "try_wait_for_completion")
def _leaps(x: Completion) -> bool:
    if not x._done.some:
        return False
    x._done.take()
    return True


@wrong("what is given back wakes nobody", "_wake_head")
def _silent(queue: object) -> None:
    pass


@wrong("complete_all() posts a token for each waiter", "complete_all")
def _posts_for_each(x: Completion) -> None:
    for _ in range(len(x.wait_queue.task_list)):
        kernel.complete(x)
    x._done = kernel._DONE_FOR_GOOD


class LeavesFirst(kernel._Waiter):
    """Not wrong: what would do without the GIL, at the price of a place in the queue."""

    def take(self) -> bool:
        try:
            self.taken.append(tuple(map(call, (self.dequeue, self.x._done.take))))
        except IndexError:
            return False
        return True


def small() -> Iterator[tuple[Program, Rules]]:
    """Programs in which mistakes show, the smallest first."""
    for rules in (GIL, Rules(sticky=False)):
        for program in programs((1, 1), "CARTWX"):
            yield program, rules
    for shape, letters, parked in (
        ((1, 1), "CAWXIBS", 1),
        ((1, 2), "CAWXBRT", 1),
        ((1, 1, 1), "CAWXBT", 1),
        ((1, 1, 2), "CAWX", 2),
    ):
        for program in programs(shape, letters, parked=parked):
            yield program, GIL


def caught(name: str) -> tuple[Check, Verdict] | None:
    """The first program in which the core that is wrong so shows it, and how."""
    with mistaken(WRONG[name]):
        wrong_core = Automaton(ours)
        for program, rules in small():
            check = Check(program, wrong_core, rules)
            verdict = check.run()
            if verdict.faults:
                return check, verdict
    return None
