# SPDX-License-Identifier: MIT
"""Composition. The table and the JSON object of ``udriver bench``."""

from __future__ import annotations

import os
import platform
from typing import Any

from rich.table import Table

from udriver import __version__
from udriver.bench.growth import Curve
from udriver.bench.rows import Row
from udriver.console import Console

__all__ = ["SCHEMA", "as_json", "print_table"]

SCHEMA = "udriver.bench/1"
_WIDTH = 140


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
    table = Table("figure", "against", "ratio", "bar", "met", "ours", "theirs", "unit", "port")
    for column in (2, 5, 6):
        table.columns[column].justify = "right"
    for row in rows:
        table.add_row(
            row.figure,
            row.against,
            _number(row.value) if row.theirs is not None or row.value is None else "",
            f"{row.sense} {row.limit:g}" if row.limit is not None else "",
            {True: "yes", False: "NO", None: ""}[row.met],
            _number(row.ours),
            _number(row.theirs),
            row.unit,
            row.rung,
        )
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH  # a log has no edge, and nine columns do not fit in 80
    console.print(table)
    for row in rows:
        if row.note:
            console.print(f"{row.figure} / {row.against}: {row.note}", highlight=False)
    for curve in curves:
        first, last = curve.microseconds[0], curve.microseconds[-1]
        console.print(
            f"{curve.name}: {first:.3g} us at {curve.numbers[0]} {curve.over}, {last:.3g} us at "
            f"{curve.numbers[-1]}; grows as n^{curve.exponent:.2f}",
            highlight=False,
        )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"
