# SPDX-License-Identifier: MIT
"""Which programs are explored, how far, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

from tests.interleaving.automaton import Automaton
from tests.interleaving.check import Check
from tests.interleaving.explore import GIL, Rules
from tests.interleaving.operations import ours
from tests.interleaving.program import ALL, BASE, Program, programs
from tests.interleaving.seed import seed_of

FEW = "CARTWXIU"  # K is I with another mask, S is U with another number, D is the first half of T
FAST = Rules(order=False)
KERNELS = Rules(sticky=False)
FREE = Rules(gil=False)
TORN = Rules(gil=False, torn=True)


class Part(NamedTuple):
    """A class of programs. ``bound``: most preemptions, None is exhaustive."""

    name: str
    shape: tuple[int, ...]
    letters: str
    rules: Rules = GIL
    interrupts: tuple[int, ...] = ()
    tokens: int = 0
    parked: int = 0
    bound: int | None = None

    def programs(self) -> Iterator[Program]:
        """Its programs."""
        return programs(
            self.shape,
            self.letters,
            interrupts=self.interrupts,
            tokens=self.tokens,
            parked=self.parked,
        )


class Row(NamedTuple):
    """What came of a part. ``faults``: for each kind how many programs, and the seed of a shortest way."""

    part: Part
    programs: int
    interleavings: int
    states: int
    steps: int
    seconds: float
    faults: dict[str, tuple[int, str]]


def _small(rules: Rules, letters: str, name: str) -> list[Part]:
    return [
        Part(f"{name}1 thread, 1 operation", (1,), letters, rules),
        Part(f"{name}1 thread, 2 operations", (2,), letters, rules),
        Part(f"{name}2 threads, 1 operation", (1, 1), letters, rules),
        Part(f"{name}2 threads, 1 operation, a token", (1, 1), letters, rules, tokens=1),
    ]


QUICK = [
    *_small(GIL, ALL, ""),
    *_small(KERNELS, BASE, "the kernel's scheduler: "),
    Part("1 parked, 1 thread with 2", (1, 2), FEW, parked=1),
    Part("3 threads, 1 operation", (1, 1, 1), "CAWX"),
    Part("2 parked, 1 thread with 2", (1, 1, 2), "CAWX", parked=2),
    Part("1 thread, an interrupt", (1,), ALL, interrupts=(1,)),
    Part("1 thread with 2, an interrupt", (2,), "CAWXTR", interrupts=(1,)),
    Part("1 thread, 2 interrupts", (1,), "CARWX", interrupts=(1, 1)),
]
FULL = [
    *QUICK[:8],
    Part("3 threads, 1 operation", (1, 1, 1), ALL),
    Part("3 threads, 1 operation, a token", (1, 1, 1), ALL, tokens=1),
    Part("1 parked, 2 threads, 1 operation", (1, 1, 1), ALL, parked=1),
    Part("2 parked, 1 thread with 1", (1, 1, 1), ALL, parked=2),
    Part("2 parked, 1 thread with 2", (1, 1, 2), FEW, parked=2),
    Part("the kernel's scheduler: 3 threads", (1, 1, 1), ALL, KERNELS),
    Part("2 threads, 2 and 1", (2, 1), ALL),
    Part("2 threads, 2 each", (2, 2), BASE),
    Part("3 threads, 2, 1 and 1", (2, 1, 1), FEW, FAST),
    Part("1 thread, an interrupt", (1,), ALL, interrupts=(1,)),
    Part("1 thread with 2, 2 interrupts", (2,), "CARTWX", interrupts=(1, 1)),
    Part("2 threads, an interrupt", (1, 1), ALL, interrupts=(1,)),
    Part("2 threads, 2 interrupts", (1, 1), "CAWX", FAST, interrupts=(1, 1)),
    Part("3 threads, 2, 2 and 1", (2, 2, 1), "CAWX", FAST, bound=2),
    Part("3 threads, 2 each", (2, 2, 2), "CWX", FAST, bound=2),
    Part("3 threads, 2, 2 and 1", (2, 2, 1), "CWX", FAST, bound=3),
    Part("4 threads, 1 operation", (1, 1, 1, 1), "CAWX", FAST, bound=3),
    Part("3 threads, an interrupt", (1, 1, 1), "CAWX", FAST, interrupts=(1,), bound=2),
]
DEEP = [
    Part("3 threads, 2, 2 and 1", (2, 2, 1), "CARTWX", FAST, bound=2),
    Part("3 threads, 2 each", (2, 2, 2), "CAWX", FAST, bound=3),
    Part("4 threads, 1 operation", (1, 1, 1, 1), FEW, FAST, bound=3),
    Part("3 threads, 2 interrupts", (1, 1, 1), "CAWX", FAST, interrupts=(1, 1), bound=2),
]
WITHOUT_GIL = [
    *_small(FREE, ALL, "no GIL: "),
    Part("no GIL: 3 threads, 1 operation", (1, 1, 1), ALL, FREE),
    Part("no GIL: 2 threads, 2 each", (2, 2), FEW, FREE),
    Part("no GIL: 2 parked, 1 thread with 2", (1, 1, 2), FEW, FREE, parked=2),
    Part("no GIL, torn popitem(): 3 threads", (1, 1, 1), "CAWX", TORN),
    Part("no GIL, torn popitem(): 2 parked, 2 threads", (1, 1, 1, 1), "CAX", TORN, parked=2),
]


def run(part: Part, automaton: Automaton) -> Row:
    """All programs of a part."""
    began = time.monotonic()
    counts = [0, 0, 0, 0]
    faults: dict[str, tuple[int, Program]] = {}
    for program in part.programs():
        verdict = Check(program, automaton, part.rules).run(part.bound)
        counts = [old + new for old, new in zip(counts, (1, *verdict[:3]), strict=True)]
        for kind in verdict.faults:
            many, first = faults.get(kind, (0, program))
            faults[kind] = (many + 1, first)
    seeds = {
        kind: (many, seed_of(Check(first, automaton, part.rules), kind))
        for kind, (many, first) in faults.items()
    }
    return Row(part, *counts, time.monotonic() - began, seeds)  # type: ignore[arg-type, call-arg]


def core() -> Automaton:
    """The core as it is now."""
    return Automaton(ours)
