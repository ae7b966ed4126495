# SPDX-License-Identifier: MIT
"""Composition. The table and the JSON object of ``udriver bench``."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterator
from typing import Any

from rich.box import HEAVY_HEAD, MARKDOWN, Box
from rich.table import Table

from udriver import __version__
from udriver.bench.growth import Curve
from udriver.bench.rows import Row
from udriver.bench.runs import SCHEMA, disagreeing
from udriver.console import Console

__all__ = ["as_json", "log_console", "print_table"]

WIDTH = 400  # a file has no edge, and ten columns do not fit in 80


def as_json(rows: list[Row], curves: list[Curve], port: str) -> dict[str, Any]:
    """One object; ``rows`` in the order of the table."""
    return {
        "schema": SCHEMA,
        "version": __version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "port": port,
        "rows": [row.as_json() for row in rows],
        "curves": [curve.as_json() for curve in curves],
    }


def print_table(rows: list[Row], curves: list[Curve]) -> None:
    """Ratios first, the bar beside them; then the two absolute figures they are made of."""
    heads = ["figure", "against", "ratio", "bar", "met", "ahead", "ours", "theirs", "unit", "port"]
    console, box = log_console()
    table = Table(*heads, box=box)
    for column in (2, 6, 7):
        table.columns[column].justify = "right"
    for row in rows:
        table.add_row(
            row.figure,
            row.against,
            _number(row.value) if row.theirs is not None or row.value is None else "",
            f"{row.sense} {row.limit:g}" if row.limit is not None else "",
            {True: "yes", False: "NO", None: ""}[row.met],
            _ahead(row),
            _number(row.ours),
            _number(row.theirs),
            row.unit,
            row.rung,
        )
    console.print(table)
    for line in _lines(rows, curves):
        console.print(f"- {line}", highlight=False, markup=False, soft_wrap=True)


def log_console() -> tuple[Console, Box]:
    """Where to print, and how a table is drawn there: in a file as Markdown, wide as it is."""
    console = Console()
    if console.is_terminal:
        return console, HEAVY_HEAD
    console.width = WIDTH
    return console, MARKDOWN


def _lines(rows: list[Row], curves: list[Curve]) -> Iterator[str]:
    said: set[str] = set()
    for row in rows:
        name = f"{row.figure} / {row.against}"
        if row.note:
            yield f"{name}: {row.note}"
        if row.met is False:
            parts = [part for part in row.reason.split("; ") if part not in said]
            said.update(parts)
            unsaid = "; ".join(parts) or "as above"
            yield f"MISSED {name}: {unsaid if row.reason else 'its cause was not measured here'}"
    for curve in curves:
        first, last = curve.microseconds[0], curve.microseconds[-1]
        error = "" if math.isnan(curve.error) else f" +- {curve.error:.2f}"
        yield (
            f"{curve.name}: {first:.3g} us at {curve.numbers[0]} {curve.over}, {last:.3g} us at "
            f"{curve.numbers[-1]}; grows as n^{curve.exponent:.2f}{error}"
        )
    several = [row for row in rows if len(row.runs) > 1 and row.limit is not None]
    if several:
        split = disagreeing(several)
        names = ": " + ", ".join(f"{row.figure} / {row.against}" for row in split) if split else ""
        yield (
            f"{max(len(row.runs) for row in several)} runs agree on who is ahead in "
            f"{len(several) - len(split)} of the {len(several)} rows with a bar, and do not in "
            f"{len(split)}{names}"
        )


def _ahead(row: Row) -> str:
    """Who of the two is better, and in how many of the runs."""
    word = {True: "ours", False: "theirs", None: ""}[row.ahead]
    agreed, of = row.agreement()
    return f"{word} {agreed}/{of}".strip() if of > 1 else word


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"
