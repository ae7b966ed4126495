# SPDX-License-Identifier: MIT
"""Scripts made on purpose: every operation in every state and context, every wait in every race.

Chance meets the rows of the who-wins table often enough, and hardly ever "completion_done from a
softirq at UINT_MAX - 1 with two waiters"; so the products are written out.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from tests.oracle.script import CONTEXTS, STATES, TIMED, UNTIMED, Script, parsed

ONE_SHOTS = ("complete", "complete_all", "complete_on_current_cpu", "reinit", "try", "done")
DONE = ("0", "1", "2", "uint_max-1", "uint_max")
WAITING = ("", "a0: wait x; ", "a0: killable x; a1: interruptible_timeout x max; ")
PLACES = (*CONTEXTS, "actor")  # the last: a task of its own, scheduled behind whom it wakes

# {w} is the wait of a0. Each is a situation that a waiter finds when it gets to run.
RACES = (
    "{w}; complete x",
    "complete x; {w}",
    "complete_all x; {w}; {w}",
    "set x uint_max-1; {w}; complete x; {w}",
    "{w} & complete x",
    "{w}; tick; tick; tick",
    "{w}; tick; complete x",
    "{w}; tick & tick & tick & complete x",
    "{w}; complete x & tick & tick & tick",
    "{w}; usr1 a0; complete x",
    "{w}; kill a0; complete x",
    "{w}; term a0; complete x",
    "{w}; usr1 a0 & complete x",
    "{w}; complete x & usr1 a0",
    "{w}; kill a0 & complete x",
    "{w}; complete x & kill a0",
    "{w}; usr1 a0 & kill a0",
    "{w}; usr1 a0 & term a0; complete x",
    "{w}; tick & tick & tick & usr1 a0",
    "{w}; usr1 a0 & tick & tick & tick",
    "{w}; tick & tick & tick & kill a0",
    "{w}; tick & tick & tick & kill a0 & complete x",
    "{w}; complete x & tick & tick & tick & usr1 a0",
    "usr1 a0; {w}; complete x",
    "kill a0; {w}; complete x",
    "usr1 a0; complete x; {w}; a0: user",
    "kill a0; complete x; {w}; a0: user",
    "usr1 a0; a0: user; {w}; complete x",
    "{w}; complete x & try x; tick; complete x",
    "{w}; complete x & try x & tick & tick & tick",
    "{w}; complete x & try x & usr1 a0",
    "{w}; complete x & try x & kill a0",
    "{w}; complete x & try x & kill a0 & tick & tick & tick",
    "{w}; complete x & reinit x; complete x",
    "{w}; complete_all x & reinit x; tick; complete x",
    "{w}; complete x & reinit x & complete x",
    "{w}; wake a0; complete x",
    "{w}; wake a0 & complete x",
    "{w}; complete x & wake a0",
    "{w}; set x 1; wake a0",
    "{w}; a1: wait x; wake a0; complete x",
    "{w}; a1: wait x; wake a0 & complete x",
    "a1: wait x; {w}; wake a0 & complete x",
    "a1: wait x; {w}; usr1 a0 & complete x; complete x",
    "a1: wait x; {w}; kill a0 & complete x; complete x",
    "a1: wait x; {w}; tick & tick & tick & complete x; complete x",
    "{w}; a1: wait x; complete x & try x; complete x",
    "{w}; a1: wait x; usr1 a0 & complete x; complete x",
    "{w}; a1: wait x; tick & tick & tick & complete x; complete x",
    "{w}; a1: timeout x 3; a1: complete y; complete_all x",
    "{w}; a1: interruptible x; a2: wait x; complete_all x & reinit x; complete x",
    "{w}; a1: interruptible x; a2: wait x; complete_all x & reinit x & complete x",
    "{w}; a1: try x & complete x; complete x",
    "{w}; a1: wait x & complete x; complete x",
    "{w}; a1: io x; complete x & complete x & try x",
    "{w}; reinit x; complete x",
    "{w}; done x & complete x & done x; done x",
    "a0 falling: complete x; {w}; complete x",
    "a0 falling: complete_all x; {w}; reinit x; {w}",
    "a0 falling: complete x; a1: wait x; {w}; complete x; complete x",
    "a0 falling: usr1; {w}; complete x",
    "a0 falling: kill; {w}; complete x",
    "a0 falling: wake; {w}; complete x",
    "a0 falling: try x; {w}; a0 falling: complete x; wake a0; complete x",
    "{w}; a1: interruptible x; a1 falling: complete x & wake a1; complete x",
)
SPECIAL = (
    "a0: wait x; a1: wait x; a2: wait x; a3: wait x; complete x; complete x; complete x; complete x",
    "a0: wait x; a1: wait x; a2: wait x; a3: wait x; complete_all x",
    "a0: wait x; a1: wait x; a2: wait x; a3: wait x; wake a3 & complete_all x; reinit x",
    "a0: timeout x 3; a1: timeout x 3; tick; complete x & try x; tick; complete x & tick; tick",
    "a3: timeout x 2; a2: timeout x 2; a1: timeout x 2; a0: timeout x 2; tick; tick",
    "a0: wait x; a0: complete y; a1: wait y; a1: complete z; a2: wait z; complete x",
    "a0: timeout x 0 & complete x; a0: timeout x 0; a0: timeout x 0 & a1: timeout x 0; tick",
    "complete x & complete x & complete x; a0: wait x & a1: try x & a2: wait x & a3: wait x",
    "a0: state x wakekill; a1: state x wakekill; complete_all x; kill a0; usr1 a1; kill a1",
    "a0: state x idle; a1: state x freezable; a2: state x killable; usr1 a0 & usr1 a1 & usr1 a2",
    "a0: interruptible x; a1: killable x; a2: wait x; usr1 a2; usr1 a1; usr1 a0; complete_all x",
    "a0: wait x; a1: wait y; a2: wait z; complete y & complete z & complete x",
    "a0: wait x; a0: try x; a0: done x; a0: reinit x; a0: complete x; complete x",
)


def scripts() -> Iterator[Script]:
    """All of them."""
    yield from map(parsed, SPECIAL)
    for wait in waits():
        yield from (parsed(race.replace("{w}", f"a0: {wait}")) for race in RACES)
    for what, done, waiting, place in product(ONE_SHOTS, DONE, WAITING, PLACES):
        yield parsed(one_shot(what, done, waiting, place))


def waits() -> Iterator[str]:
    """Every variant, timed ones with the timeouts that differ in kind."""
    yield from (f"{what} x" for what in UNTIMED)
    yield from (f"state x {state}" for state in STATES)
    for what in TIMED:
        yield from (f"{what} x {timeout}" for timeout in ("0", "2", "max", "negative"))


def one_shot(what: str, done: str, waiting: str, place: str) -> str:
    """One operation in one state and one place, what it left, and who passes afterwards."""
    op = f"a3: {what} x" if place == "actor" else f"{what} x @{place}".removesuffix(" @task")
    # the state is written after whom it would let through has queued, before they can run
    written = "" if done == "0" else f"set x {done} & "
    return f"{waiting}{written}{op}; done x & a2: wait x; complete x"
