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
from udriver.bench.roundtrip import CHIPS
from udriver.console import Console

__all__ = ["SCHEMA", "budget_command"]

SCHEMA = "udriver.budget/1"
FEW, MANY = 10, 100  # round trips
FUNCTIONS = 12  # that are told of each irqchip
_WIDTH = 150


def budget_command(before: Path | None, quick: bool, as_object: bool) -> int:
    """Count, and print; ``before`` is another checkout of udriver, counted with the same tool."""
    if why := budget.missing():
        print(f"udriver: {why}", file=sys.stderr)
    count = FEW if quick else MANY
    who = ["bare", *CHIPS] if quick else budget.contestants()
    after = take_stock(count, None, who)
    earlier = take_stock(count, before, list(CHIPS)) if before is not None else []
    idle = _idle()
    if as_object:
        print(json.dumps(_as_json(after, earlier, idle)), flush=True)
    else:
        _print(after, earlier, idle)
    return 0


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
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH
    earlier = {(each.who, each.answer): each for each in before}
    for answer in budget.ANSWERS:
        table = Table(
            "", "system calls", "which", "signals", "sleeps", "bytecodes", "locks", "CPU us",
            title=f"one round trip of 16 bytes, the answer {answer}",
        )  # fmt: skip
        for column in (1, 3, 4, 5, 6, 7):
            table.columns[column].justify = "right"
        for each in after:
            if each.answer == answer:
                table.add_row(*_cells(each, earlier.get((each.who, answer))))
        console.print(table)
    for chip, calls in idle.items():
        console.print(f"idle, {chip}: {calls} system calls in 0.7 s", highlight=False)
    for each in after:
        if each.who in CHIPS and each.answer == "late":
            console.print(f"\nbytecodes of {each.who}, the answer late:", highlight=False)
            for name, number in list(each.bytecodes.items())[:FUNCTIONS]:
                console.print(f"{number:7.0f}  {name}", highlight=False)
    for note in sorted({each.note for each in after if each.note}):
        console.print(note, highlight=False)


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
