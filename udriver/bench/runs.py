# SPDX-License-Identifier: MIT
"""Composition. Several runs in one table: the median of each figure, and whether they agree.

What is asked of them is who is ahead, ours or the peer; where there is no peer, whether the bar is met.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from udriver.bench.growth import Curve
from udriver.bench.rows import Row
from udriver.errors import UDriverError

__all__ = ["Run", "disagreeing", "merge", "read_run"]

Run = tuple[list[Row], list[Curve]]
SCHEMA = "udriver.bench/1"


def read_run(file: Path) -> tuple[Run, str]:
    """A file that ``udriver bench --json`` gave, and the port in it. Raises UDriverError."""
    try:
        report = json.loads(file.read_text())
    except ValueError as exc:
        raise UDriverError(
            f"{file} is no JSON object ({exc}); `udriver bench --json` makes one"
        ) from None
    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        raise UDriverError(f"{file} is not of {SCHEMA}; `udriver bench --json` makes such a file")
    curves = [Curve(**_known(Curve, curve)) for curve in report["curves"]]
    rows = [Row(**{**_known(Row, row), "runs": tuple(row["runs"])}) for row in report["rows"]]
    return (rows, curves), report["port"]


def _known(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in values.items() if name in names}


def merge(runs: Sequence[Run]) -> Run:
    """In the order of the first run; of a run that has no such figure nothing is counted."""
    first_rows, first_curves = runs[0]
    if len(runs) == 1:
        return runs[0]
    rows = [
        _row([row for row in _all_rows(runs) if _key(row) == _key(first)]) for first in first_rows
    ]
    curves = []
    for first in first_curves:
        same = [
            c for _, run in runs for c in run if (c.name, c.numbers) == (first.name, first.numbers)
        ]
        points = zip(*(curve.microseconds for curve in same), strict=True)
        curves.append(replace(first, microseconds=[statistics.median(point) for point in points]))
    return rows, curves


def _key(row: Row) -> tuple[str, str]:
    return row.figure, row.against


def _all_rows(runs: Sequence[Run]) -> list[Row]:
    return [row for rows, _ in runs for row in rows]


def _row(rows: list[Row]) -> Row:
    measured = [row for row in rows if row.value is not None]
    if not measured:
        return rows[0]
    values = [
        value for row in measured for value in (row.runs or (row.value,)) if value is not None
    ]
    middle = statistics.median_low(values)
    told = next((row for row in measured if row.value == middle), measured[0])
    return replace(
        told,
        value=statistics.median(values),
        ours=_median([row.ours for row in measured]),
        theirs=_median([row.theirs for row in measured]),
        reason=told.reason or next((row.reason for row in measured if row.reason), ""),
        runs=tuple(values),
    )


def _median(values: list[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return statistics.median(present) if present else None


def disagreeing(rows: list[Row]) -> list[Row]:
    """Those of which one run says what another does not."""
    return [row for row in rows if len(set(row.agreement())) > 1]
