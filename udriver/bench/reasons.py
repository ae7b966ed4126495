# SPDX-License-Identifier: MIT
"""Composition. Why a bar is missed: the counts and the rungs of the same run, put beside the row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from udriver.bench.budget import Budget
from udriver.bench.rows import Row

__all__ = ["explained", "who_to_count"]

LADDER = "ladder, "


def who_to_count(rows: Sequence[Row]) -> list[str]:
    """Whose round trip the missed rows are about; for take_stock()."""
    found: dict[str, None] = {}
    for row in rows:
        if row.met is False and (ours := _ours(row)):
            found.update(dict.fromkeys([ours, _theirs(row)]))
    return list(found)


def _ours(row: Row) -> str | None:
    kind, _, rest = row.figure.partition(", ")
    if kind == "round trip":
        return rest.partition(",")[0]
    return "ping-pong, completion" if kind == "ping-pong" else None


def _theirs(row: Row) -> str:
    return f"ping-pong, {row.against}" if row.figure.startswith("ping-pong") else row.against


def explained(rows: Sequence[Row], budgets: Sequence[Budget]) -> list[Row]:
    """The rows; those that miss their bar and have no reason yet with one, if it was measured."""
    counted = {each.who: each for each in budgets if each.answer == "at once"}
    out = []
    for row in rows:
        if row.met is False and not row.reason and (ours := _ours(row)):
            parts = [_counts(counted.get(ours), counted.get(_theirs(row))), _rungs(row, ours, rows)]
            row = replace(row, reason="; ".join(filter(None, parts)))
        out.append(row)
    return out


def _counts(ours: Budget | None, theirs: Budget | None) -> str:
    if ours is None or theirs is None:
        return ""
    return f"{_what(ours)} here, {_what(theirs)} there; CPU time {ours.cpu:.0f} us and {theirs.cpu:.0f} us"


def _what(budget: Budget) -> str:
    calls = f"{sum(budget.syscalls.values()):.2g} system calls, " if budget.syscalls else ""
    sleeps = budget.plain.get("voluntary", 0.0)
    return f"{calls}{sleeps:.2g} sleeps and {sum(budget.bytecodes.values()):.0f} bytecodes"


def _rungs(row: Row, ours: str, rows: Sequence[Row]) -> str:
    """The same way rebuilt a layer at a time, if the row is about a way that has a ladder."""
    if ours == "signal":
        return ""
    floor = row.against
    if row.figure.startswith("round trip"):
        floor = "bare" if ours == "inline" else "select thread + Event"
    rungs = [
        f"{rung.figure.removeprefix(LADDER).removesuffix(', p50')} {rung.value:.2f}"
        for rung in rows
        if rung.figure.startswith(LADDER) and rung.against == floor and rung.value is not None
    ]
    return f"layer by layer, times {floor}: {', '.join(rungs)}" if rungs else ""
