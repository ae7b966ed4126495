# SPDX-License-Identifier: MIT
"""Composition. ``udriver bench --budget``: the table, and the functions that the bytecodes are in."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Any

from rich.table import Table

from udriver import __version__
from udriver.bench import budget
from udriver.bench.budget import Budget, idle_calls, take_stock
from udriver.bench.report import log_console
from udriver.bench.roundtrip import CHIPS
from udriver.errors import UDriverError

__all__ = ["SCHEMA", "budget_command"]

SCHEMA = "udriver.budget/1"
FEW, MANY = 10, 100  # round trips
FUNCTIONS = 12  # that are told of each irqchip


def budget_command(
    before: Path | None, quick: bool, as_object: bool, counted: Path | None = None
) -> int:
    """Count, and print; ``before`` is another checkout of udriver, counted with the same tool.

    ``counted`` is a file of --json that takes the place of counting. Raises UDriverError for another.
    """
    report = _read(counted) if counted is not None else _take(before, quick)
    if as_object:
        print(json.dumps(report), flush=True)
    else:
        _print(
            [Budget(**each) for each in report["budget"]],
            [Budget(**each) for each in report["before"]],
            report["idle_system_calls"],
        )
    return 0


def _read(file: Path) -> dict[str, Any]:
    try:
        report = json.loads(file.read_text())
    except ValueError:
        report = None
    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        raise UDriverError(f"{file} is not of {SCHEMA}; `udriver bench --budget --json` makes one")
    return report


def _take(before: Path | None, quick: bool) -> dict[str, Any]:
    if why := budget.missing():
        print(f"udriver: {why}", file=sys.stderr)
    count = FEW if quick else MANY
    after = take_stock(count, None, ["bare", *CHIPS] if quick else budget.contestants())
    earlier = take_stock(count, before, list(CHIPS)) if before is not None else []
    return _as_json(after, earlier, _idle())


def _idle() -> dict[str, int]:
    """System calls in an idle 0.7 s; nothing of a chip where they cannot be counted."""
    from udriver_hw.spawned import spawn_counterpart

    if budget.missing():
        return {}
    with spawn_counterpart("echo") as device:
        return {chip: idle_calls(device.path, chip) for chip in CHIPS}


def _as_json(after: list[Budget], before: list[Budget], idle: dict[str, int]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "version": __version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "budget": [each.as_json() for each in after],
        "before": [each.as_json() for each in before],
        "idle_system_calls": idle,
        "note": budget.missing() or "",
    }


def _print(after: list[Budget], before: list[Budget], idle: dict[str, int]) -> None:
    console, box = log_console()
    earlier = {(each.who, each.answer): each for each in before}
    for answer in budget.ANSWERS:
        table = Table(
            "", "system calls", "which", "signals", "sleeps", "bytecodes", "locks", "CPU us",
            box=box,
        )  # fmt: skip
        for column in (1, 3, 4, 5, 6, 7):
            table.columns[column].justify = "right"
        for each in after:
            if each.answer == answer:
                table.add_row(*_cells(each, earlier.get((each.who, answer))))
        console.print(
            f"One round trip of 16 bytes, the answer {answer}:\n", highlight=False, markup=False
        )
        console.print(table)
        console.print()
    for chip, calls in idle.items():
        console.print(
            f"- idle, {chip}: {calls} system calls in 0.7 s", highlight=False, markup=False
        )
    for chip in CHIPS:
        now = next(each for each in after if (each.who, each.answer) == (chip, "late"))
        then = earlier.get((chip, "late"))
        console.print(
            f"\nBytecodes of {chip} by function, the answer late:\n", highlight=False, markup=False
        )
        console.print(_functions(now, then, Table("function", "", box=box)))
    for note in sorted({each.note for each in after if each.note}):
        console.print(note, highlight=False, markup=False)


def _functions(now: Budget, then: Budget | None, table: Table) -> Table:
    """The largest, with what they were before."""
    table.columns[1].justify = "right"
    names = list(now.bytecodes)[:FUNCTIONS]
    for name in names:
        was = f"{then.bytecodes.get(name, 0):.0f} -> " if then else ""
        table.add_row(name.removeprefix("udriver."), f"{was}{now.bytecodes[name]:.0f}")
    rest = sum(now.bytecodes.values()) - sum(now.bytecodes[name] for name in names)
    table.add_row(f"{len(now.bytecodes) - len(names)} more", f"{rest:.0f}")
    return table


def _cells(each: Budget, before: Budget | None) -> list[str]:
    def both(figure: str) -> str:
        now = f"{sum(getattr(each, figure).values()):.4g}"
        return f"{sum(getattr(before, figure).values()):.4g} -> {now}" if before else now

    # a call in less than a tenth of the trips is the clockwork of the count, or a noisy machine
    which = ", ".join(f"{n:.2g} {name}" for name, n in each.syscalls.items() if n >= 0.1)
    sleeps = f"{each.plain.get('voluntary', 0):.2g}"
    cpu = f"{each.cpu:.0f}"
    if before:
        sleeps = f"{before.plain.get('voluntary', 0):.2g} -> {sleeps}"
        cpu = f"{before.cpu:.0f} -> {cpu}"
    calls = both("syscalls") if each.syscalls else "-"
    return [
        each.who, calls, which, both("signals"), sleeps, both("bytecodes"), both("locks"), cpu,
    ]  # fmt: skip
