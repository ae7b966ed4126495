# SPDX-License-Identifier: MIT
"""An actor on our side, and the module's words in ours: functions, states, timeouts, results."""

from __future__ import annotations

import signal
from collections import deque
from typing import Protocol

from tests.oracle.processor import UNIT, Sleeper
from tests.oracle.script import NUMBERS, TIMED, Op
from udriver.kernel import completion as kernel
from udriver.kernel import sched
from udriver.kernel.sched import (
    MAX_SCHEDULE_TIMEOUT,
    TASK_FREEZABLE,
    TASK_IDLE,
    TASK_INTERRUPTIBLE,
    TASK_KILLABLE,
    TASK_WAKEKILL,
)

SLACK, SLOT, MOST_COMMANDS = 768, 128, 4  # as in oracle_abi.h, oracle.h
STATES = {
    "idle": TASK_IDLE, "freezable": TASK_INTERRUPTIBLE | TASK_FREEZABLE, "killable": TASK_KILLABLE,
    "wakekill": TASK_WAKEKILL,
}  # fmt: skip
COUNTS = {
    "1": 1, "2": 2, "uint_max-1": kernel.UINT_MAX - 1, "uint_max": kernel.UINT_MAX,
}  # fmt: skip
SIGNALS = {"usr1": signal.SIGUSR1, "term": signal.SIGTERM, "kill": signal.SIGKILL}
FUNCTIONS = {
    "try": "try_wait_for_completion", "done": "completion_done", "reinit": "reinit_completion",
    "wait": "wait_for_completion", **{name: name for name in NUMBERS if name.startswith("complete")},
    **{name: f"wait_for_completion_{name}" for name in (*TIMED, "io", "interruptible", "killable", "state")},
}  # fmt: skip


class Actor(Sleeper):
    """Who carries out commands, one after the other, in a system call that may last for many."""

    __slots__ = ("commands", "dead", "fell", "idle", "number", "trap", "waits_on")

    def __init__(self, number: int) -> None:
        super().__init__(str(number))
        self.number = number
        self.new()

    def new(self) -> None:
        """As at the start of a script."""
        self.state = TASK_IDLE
        self.pending = []
        self.commands: deque[Op] = deque()
        self.idle, self.dead, self.reaped = True, False, False
        self.waits_on: kernel.Completion | None = None
        self.fell = False  # whether the wait came as far as schedule_timeout()
        self.trap: Op | None = None  # what is to be done when it comes there

    @property
    def mark(self) -> str:
        """``f``: a fatal signal is pending, ``p``: another."""
        if not self.pending:
            return ""
        return "f" if sched.signal_pending_state(TASK_WAKEKILL, self) else "p"


class Watch(Protocol):
    """Who counts what was met on the way; see coverage.py."""

    def performs(self, op: Op, x: kernel.Completion) -> None: ...
    def waits_on(self, actor: Actor, op: Op, x: kernel.Completion) -> None: ...
    def returns(self, actor: Actor, op: Op, said: str, slept: int) -> None: ...
    def sleeps(self, task: Sleeper) -> None: ...
    def wakes(self, task: Sleeper, left: int) -> None: ...


def timeout_of(number: int, word: str) -> int:
    """Jiffies, as C's unsigned long."""
    if word == "max":
        return MAX_SCHEDULE_TIMEOUT
    if word == "negative":
        return 2**64 - 5
    return int(word) * UNIT - SLACK + number * SLOT if word != "0" else 0


def told(result: int, timeout: int, fell: bool) -> str:
    """As the module tells it: what is left of a sleep in units, everything else exactly."""
    result, timeout = ((value + 2**63) % 2**64 - 2**63 for value in (result, timeout))  # long
    if result == MAX_SCHEDULE_TIMEOUT:
        return "max"
    if result > 1 and fell:
        return f"{-(-result // UNIT)}u"
    return "arg" if result == timeout and result > 1 else str(result)
