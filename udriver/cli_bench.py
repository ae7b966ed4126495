# SPDX-License-Identifier: MIT
"""Composition. ``udriver bench``: run all measurements, print the table, judge by the ratios."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from udriver.bench import plot
from udriver.bench.checks import check_rows
from udriver.bench.completions import completion_rows
from udriver.bench.growth import Curve, frame_curves, waiter_curves
from udriver.bench.interrupt import interrupt_rows
from udriver.bench.ports import idle_rows, many_rows
from udriver.bench.report import as_json, print_table
from udriver.bench.roundtrip import roundtrip_rows
from udriver.bench.rows import Row
from udriver.bench.stream import stream_rows
from udriver.cli import Status
from udriver.target import open_target

__all__ = ["bench_command"]


@dataclass(frozen=True, slots=True)
class _Effort:
    """How often everything is done."""

    rounds: int
    trips: int
    stream: int
    posts: int
    ports: tuple[int, ...]
    idle: float
    stamps: int
    sizes: tuple[int, ...]
    waiters: tuple[int, ...]


FULL = _Effort(
    rounds=15,
    trips=500,
    stream=8_000_000,
    posts=100_000,
    ports=(1, 10, 100, 1000),
    idle=1.0,
    stamps=200,
    sizes=(1, 4, 16, 64, 256, 1024, 4096),
    waiters=(10, 100, 1000, 10_000),
)
QUICK = _Effort(
    rounds=2,
    trips=20,
    stream=200_000,
    posts=1000,
    ports=(1, 10),
    idle=0.1,
    stamps=10,
    sizes=(1, 256),
    waiters=(10, 100),
)


def bench_command(
    port: str | None, quick: bool, plot_file: Path | None, slack: float | None, as_object: bool
) -> int:
    """Measure and report; exit status 1 if a ratio misses its bar by more than ``slack`` times."""
    if plot_file is not None and (why := plot.missing()):
        print(f"udriver: {why}", file=sys.stderr)
        return Status.SKIPPED
    effort = QUICK if quick else FULL
    rows, chosen = _measure(port, effort)
    curves = _grow(effort)
    if as_object:
        print(json.dumps(as_json(rows, curves, chosen)), flush=True)
    else:
        print_table(rows, curves)
    if plot_file is not None:
        plot.plot(plot_file, rows, curves)
    return _judge(rows, slack)


def _measure(port: str | None, effort: _Effort) -> tuple[list[Row], str]:
    from udriver_hw.spawned import spawn_counterpart

    rows: list[Row] = []
    with (
        spawn_counterpart("echo") as device,
        open_target(device.path if port in (None, "pty") else port) as target,
    ):
        _note(f"round trips on {target.path}, everybody in turn")
        rows += roundtrip_rows(target.path, target.rung, effort.rounds, effort.trips)
        rows += check_rows(target.path, target.rung, effort.rounds, effort.trips)
        _note("idle")
        rows += idle_rows(target.path, effort.idle)
    with spawn_counterpart("flood") as device:
        _note("streams, on a pty")
        rows += stream_rows(device.path, effort.rounds, effort.stream)
    _note("completions")
    rows += completion_rows(effort.rounds, effort.posts)
    _note("many ports, on ptys")
    rows += many_rows(list(effort.ports), effort.trips * 4, effort.idle)
    with spawn_counterpart("stamps") as device:
        _note("interrupt latency, on a pty")
        rows += interrupt_rows(device.path, effort.stamps)
    return rows, target.path


def _grow(effort: _Effort) -> list[Curve]:
    from udriver_hw.spawned import spawn_counterpart

    _note("growth")
    with spawn_counterpart("echo") as device:
        curves = frame_curves(
            device.path, list(effort.sizes), max(2, effort.rounds // 3), effort.trips // 2
        )
    return curves + waiter_curves(list(effort.waiters), max(2, effort.rounds // 3))


def _note(what: str) -> None:
    print(f"udriver: {what}", file=sys.stderr)


def _judge(rows: list[Row], slack: float | None) -> int:
    if slack is None:
        return Status.OK
    missed = [row for row in rows if row.missed_by() > slack]
    if not missed:
        return Status.OK
    names = ", ".join(f"{row.figure} / {row.against}" for row in missed)
    print(
        f"udriver: more than {slack:g} times off the bar: {names}; run it again on a quiet machine",
        file=sys.stderr,
    )
    return Status.FAILED
