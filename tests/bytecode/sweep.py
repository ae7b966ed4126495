# SPDX-License-Identifier: MIT
"""Plans the cases of each program, runs them under this interpreter, prints one JSON line a program.

    python -m tests.bytecode.sweep '{"groups": ["irq"], "only": [], "stride": 1, "driver_stride": 1,
                                     "pairs": 40, "timers": 20, "seed": 1}'

One deep is exhaustive: each boundary, each handler, each way to interrupt (``stride`` 1). Two deep, the
product of the boundaries of two functions for each pair of handlers, is sampled evenly:
``pairs`` cases for each pair of handlers, spread over the whole product; -1 means all of it.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from typing import Any, TypedDict

from tests.bytecode import broken, completions, driver, lines, rest, states, stdlib
from tests.bytecode.boundary import MODES
from tests.bytecode.case import Case, Tally
from tests.bytecode.program import Program
from tests.bytecode.run import run_cases

__all__ = ["GROUPS", "Plan", "Row", "all_programs", "row_of", "sweep"]

REFERENCE = (
    "threading.Event",
    "threading.Semaphore",
    "threading.Condition",
    "threading.Condition(Lock)",
    "queue.Queue",
    "queue.SimpleQueue",
    "futures.Future",
)
GROUPS = ("completion", "irq", "kfifo", "other", "driver", *REFERENCE, "broken")
SLACK = 4  # boundaries beyond those counted: the number varies a little where threads take part


class Plan(TypedDict):
    """``stride``: every n-th boundary, ``driver_stride`` for the driver's programs, which are long.

    ``only`` are programs by name; none means all of the groups.
    """

    groups: list[str]
    only: list[str]
    stride: int
    driver_stride: int
    pairs: int
    timers: int
    seed: int


class Row(TypedDict):
    """What came out of one program. ``ways``: for each way to interrupt how many cases, and failures."""

    group: str
    program: str
    points: int
    pairs: int
    ways: dict[str, dict[str, int]]
    failures: list[str]
    seen: list[tuple[str, str]]
    reachable: list[tuple[str, str]]


def all_programs() -> list[type[Program]]:
    """Ours, then the standard library's, then the wrong ones."""
    found = (completions, lines, rest, driver, states, stdlib, broken)
    return [program for module in found for program in module.programs()]


def sweep(plan: Plan) -> Iterator[Row]:
    """Run each program of the groups."""
    for program in all_programs():
        if program.group in plan["groups"] and (not plan["only"] or program.name in plan["only"]):
            yield row_of(program, plan)


def row_of(program: type[Program], plan: Plan) -> Row:
    """Run one program by ``plan``."""
    probe = run_cases(program, [Case("call", "", 0)] * 3)  # the first ones make caches
    points = probe.points
    row = Row(
        group=program.group, program=program.name, points=points, pairs=0,
        ways={}, failures=[], seen=[], reachable=sorted(probe.seen),
    )  # fmt: skip
    chance = random.Random(plan["seed"])
    stride = plan["driver_stride" if program.group == "driver" else "stride"]
    first = 1 + plan["seed"] % min(stride, max(1, points))  # another sample with each seed
    ats = range(first, points + 1 + SLACK, stride)
    cases = [Case(mode, op, at) for mode in MODES for op in program.ops for at in ats]
    for op, inner_points in _inner_points(program, points).items() if plan["pairs"] else ():
        for inner_op in program.ops:
            row["pairs"] += 2 * points * inner_points
            cases += _pairs(op, inner_op, points, inner_points, plan["pairs"], chance)
    cases += [
        Case("timer", op, 0, inner_op, seed=chance.randrange(2**31))
        for _ in range(plan["timers"])
        for op in program.ops
        for inner_op in ("", *program.ops)
    ]
    _fill(row, run_cases(program, cases))
    return row


def _inner_points(program: type[Program], points: int) -> dict[str, int]:
    """How many boundaries each handler itself has, at its longest."""
    some = sorted({1, points // 3, 2 * points // 3, points - 1} & set(range(1, points + 1)))
    cases = [Case("call", op, at) for op in program.ops for at in some]
    most = dict.fromkeys(program.ops, 0)
    if not program.fragile:
        most |= run_cases(program, cases).inner_points
        return most
    for case in cases:  # a child that fails says nothing of this
        most[case.op] = max(most[case.op], *run_cases(program, [case]).inner_points.values(), 0)
    return most


def _pairs(
    op: str, inner_op: str, points: int, inner_points: int, most: int, chance: random.Random
) -> list[Case]:
    area = points * inner_points
    chosen = range(area) if most < 0 or area <= most else sorted(chance.sample(range(area), most))
    return [
        Case(mode, op, 1 + number // inner_points, inner_op, 1 + number % inner_points)
        for number in chosen
        for mode in ("call", "raise")
    ]


def _fill(row: Row, tally: Tally) -> None:
    row["ways"] = {way: {"cases": count} for way, count in tally.cases.items()}
    for failure in tally.failures:
        kinds = row["ways"][failure.case.way]
        kinds[failure.kind] = kinds.get(failure.kind, 0) + 1
    row["failures"] = [
        f"{one.kind} {one.case} {one.where}: {one.why}" for one in tally.failures[:5]
    ]
    row["seen"] = sorted(tally.seen)


def main(argument: str) -> None:
    """Print the rows as they come."""
    plan: Any = json.loads(argument)
    for row in sweep(plan):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
