# SPDX-License-Identifier: MIT
"""Which rules the scripts met, counted on our side, where one can look; the kernel's log is the same.

Three tables: who wins (decided when the waiter runs), every operation in every state of the
completion and in every context, every wait in every way to begin and end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import product

from tests.oracle.actor import STATES, Actor
from tests.oracle.directed import ONE_SHOTS, PLACES
from tests.oracle.processor import Sleeper
from tests.oracle.script import FALLING, TIMED, UNTIMED, Op
from udriver.kernel import completion as kernel
from udriver.kernel import sched
from udriver.kernel.context import in_hardirq
from udriver.kernel.sched import (
    TASK_INTERRUPTIBLE,
    TASK_KILLABLE,
    TASK_NORMAL,
    TASK_UNINTERRUPTIBLE,
    TASK_WAKEKILL,
)

Situation = tuple[bool, bool, bool, bool]  # done > 0, time is up, a signal that counts, dequeued
AGAIN = "sleeps again"
GOT, ONE, UP, ENDED, TAIL, KEPT = (
    "a token",
    "1",
    "0",
    "-ERESTARTSYS",
    "to the tail",
    "keeps its place",
)

WHO_WINS: dict[str, tuple[Situation | None, str]] = {
    "done>0, timer fired: completed, exactly 1": ((True, True, False, False), ONE),
    "the same, chosen by complete()": ((True, True, False, True), ONE),
    "done>0, signal pending: completed, it stays pending": ((True, False, True, False), GOT),
    "the same, chosen by complete(): completed": ((True, False, True, True), GOT),
    "done>0, timer and signal: completed, 1": ((True, True, True, False), ONE),
    "the same, chosen by complete(): completed, 1": ((True, True, True, True), ONE),
    "done==0, timer fired and signal pending: 0": ((False, True, True, False), UP),
    "done==0, signal, time left: -ERESTARTSYS": ((False, False, True, False), ENDED),
    "done==0, timer fired: 0": ((False, True, False, False), UP),
    "chosen, token gone, time left: to the tail": ((False, False, False, True), TAIL),
    "chosen, token gone, deadline passed: 0": ((False, True, False, True), UP),
    "chosen, token gone, signal: -ERESTARTSYS": ((False, False, True, True), ENDED),
    "chosen, token gone, deadline and signal: 0": ((False, True, True, True), UP),
    "spurious wake-up: keeps its place": ((False, False, False, False), KEPT),
    "chosen, and the token is there": ((True, False, False, True), GOT),
    "not chosen, and takes the token": ((True, False, False, False), GOT),
    "done>0 at the start: no sleep": (None, "at once"),
    "done>0 at the start, signal pending: no look at it": (None, "at once, signal"),
    "done>0 at the start, others queued: barging": (None, "at once, others queued"),
    "done==0 at the start, signal pending: no sleep": (None, "ended at once"),
    "something happens between queueing and sleeping": (None, "between"),
    "signal that does not count: sleeps on": (None, "deaf"),
}
OUTCOMES = ("at once", "after sleep", "time up", "signal", "fatal", AGAIN, "signal ignored")


class Coverage:
    """Attach to Ours(watch=...); the three counters are its result."""

    def __init__(self) -> None:
        self.who_wins: Counter[str] = Counter()
        self.one_shots: Counter[tuple[str, str, str]] = Counter()
        self.waits: Counter[tuple[str, str]] = Counter()
        self.unexpected: Counter[str] = Counter()
        self._op: dict[Actor, Op] = {}
        self._woke: dict[Sleeper, Situation] = {}

    # what Ours tells

    def performs(self, op: Op, x: kernel.Completion) -> None:
        if op.what in ONE_SHOTS:
            place = op.context if op.actor is None else "actor"
            if place == FALLING:
                self._who_wins(None, "between")
            assert in_hardirq() == (place == "hardirq")
            self.one_shots[op.what, state_of(x), place] += 1

    def waits_on(self, actor: Actor, op: Op, x: kernel.Completion) -> None:
        self._op[actor] = op
        self._woke.pop(actor, None)
        if x.done and len(x.wait_queue):
            self._who_wins(None, "at once, others queued")

    def sleeps(self, task: Sleeper) -> None:
        assert isinstance(task, Actor)
        if task.pending:
            self._who_wins(None, "deaf")
            self._count(task, "signal ignored")
        if (situation := self._woke.pop(task, None)) is not None:
            queue = list(on(task).wait_queue)
            self._who_wins(situation, TAIL if situation[3] and queue[-1] is task else KEPT)
            self._count(task, AGAIN)

    def wakes(self, task: Sleeper, left: int) -> None:
        assert isinstance(task, Actor)
        x = on(task)
        signalled = sched.signal_pending_state(state_in(self._op[task]), task)
        chosen = all(waiter is not task for waiter in x.wait_queue)
        self._woke[task] = (x.done > 0, left == 0, signalled, chosen)

    def returns(self, actor: Actor, op: Op, said: str, slept: int) -> None:
        situation = self._woke.pop(actor, None)
        timed = op.what in TIMED
        if said == "-512":
            self._count(actor, "fatal" if actor.mark == "f" else "signal")
            self._who_wins(situation, ENDED if situation else "ended at once")
        elif timed and said == "0":
            self._count(actor, "time up")
            if situation:
                self._who_wins(situation, UP)
        elif situation:
            self._count(actor, "after sleep")
            self._who_wins(situation, ONE if situation and situation[1] and said == "1" else GOT)
        else:
            self._count(actor, "at once")
            self._who_wins(None, "at once, signal" if actor.pending else "at once")

    # the tables

    def missing(self) -> list[str]:
        """Every row that no script met."""
        return [
            *(f"who wins: {row}" for row in WHO_WINS if not self.who_wins[row]),
            *(f"operation: {' '.join(cell)}" for cell in cells() if not self.one_shots[cell]),
            *(f"wait: {' '.join(cell)}" for cell in ends() if not self.waits[cell]),
        ]

    def tables(self) -> Iterator[str]:
        """To print; a table to each paragraph."""
        yield "who wins, decided when the waiter runs"
        yield from (f"{self.who_wins[row]:8} {row}" for row in WHO_WINS)
        yield ""
        yield f"operation in each of {len(list(states()))} states (done, waiters): fewest and all"
        yield " " * 26 + "".join(f"{place:>14}" for place in PLACES)
        for what in ONE_SHOTS:
            hits = [[self.one_shots[what, state, place] for state in states()] for place in PLACES]
            yield f"{what:26}" + "".join(f"{f'{min(hit)} / {sum(hit)}':>14}" for hit in hits)
        yield ""
        yield "wait" + " " * 22 + "".join(f"{outcome:>15}" for outcome in OUTCOMES)
        possible = set(ends())
        for what in every_wait():
            counts = [str(self.waits[what, end]) if (what, end) in possible else "-"
                      for end in OUTCOMES]  # fmt: skip
            yield f"{what:26}" + "".join(f"{count:>15}" for count in counts)

    def _count(self, actor: Actor, outcome: str) -> None:
        self.waits[name_of(self._op[actor]), outcome] += 1

    def _who_wins(self, situation: Situation | None, outcome: str) -> None:
        for row, rule in WHO_WINS.items():
            if rule == (situation, outcome):
                self.who_wins[row] += 1
                return
        self.unexpected[f"{situation}: {outcome}"] += 1


def on(actor: Actor) -> kernel.Completion:
    """What it sleeps on."""
    assert actor.waits_on is not None
    return actor.waits_on


def name_of(op: Op) -> str:
    """A wait's; that of a state with the state."""
    return f"{op.what} {op.word}" if op.what == "state" else op.what


def state_in(op: Op) -> int:
    """The task state in which it sleeps."""
    if op.what == "state":
        return STATES[op.word]
    if op.what.startswith("interruptible"):
        return TASK_INTERRUPTIBLE
    return TASK_KILLABLE if op.what.startswith("killable") else TASK_UNINTERRUPTIBLE


def state_of(x: kernel.Completion) -> str:
    """``done`` and who waits, each as far as a rule can tell them apart."""
    some = {0: "0", 1: "1", kernel.UINT_MAX: "UINT_MAX", kernel.UINT_MAX - 1: "UINT_MAX-1"}
    return f"{some.get(x.done, 'more')}/{min(len(x.wait_queue), 2)}"


def states() -> Iterator[str]:
    """All that state_of() can say."""
    for done, waiting in product(("0", "1", "more", "UINT_MAX-1", "UINT_MAX"), range(3)):
        yield f"{done}/{waiting}"


def cells() -> Iterator[tuple[str, str, str]]:
    """Every operation, state and place."""
    return product(ONE_SHOTS, states(), PLACES)


def every_wait() -> Iterator[str]:
    """The names of all waits."""
    yield from (*UNTIMED, *TIMED, *(f"state {state}" for state in STATES))


def ends() -> Iterator[tuple[str, str]]:
    """Every wait with every outcome that it can have."""
    for name in every_wait():
        what, _, word = name.partition(" ")
        state = state_in(Op(what, word=word))
        impossible = {
            "time up": what not in TIMED,
            "signal": not state & TASK_INTERRUPTIBLE,
            "fatal": not state & (TASK_INTERRUPTIBLE | TASK_WAKEKILL),
            "signal ignored": bool(state & TASK_INTERRUPTIBLE),
            AGAIN: not state & TASK_NORMAL,  # nothing wakes it but what ends it
        }
        yield from ((name, outcome) for outcome in OUTCOMES if not impossible.get(outcome))
