# SPDX-License-Identifier: MIT
"""Composition. ``udriver bench``: run all measurements, print the table, judge by the ratios."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from udriver.bench import plot
from udriver.bench.budget import take_stock
from udriver.bench.checks import check_rows
from udriver.bench.completions import completion_rows
from udriver.bench.growth import frame_curves, growth_rows, waiter_curves
from udriver.bench.interrupt import interrupt_rows
from udriver.bench.ladder import ladder_rows
from udriver.bench.ports import idle_rows, many_rows
from udriver.bench.reasons import explained, who_to_count
from udriver.bench.report import as_json, print_table
from udriver.bench.roundtrip import roundtrip_rows
from udriver.bench.rows import Row
from udriver.bench.runs import Run, merge, read_run
from udriver.bench.stream import stream_rows
from udriver.cli import Status
from udriver.drivers.port import Port
from udriver.target import open_target

__all__ = ["Wishes", "bench_command"]


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
    fits: int
    counted: int


FULL = _Effort(
    rounds=15,
    trips=500,
    stream=8_000_000,
    posts=100_000,
    ports=(1, 10, 100, 1000),
    idle=1.0,
    stamps=200,
    sizes=(1, 4, 16, 64, 256, 1024, 4096),
    waiters=(100, 300, 1000, 3000, 10_000),
    fits=5,
    counted=100,
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
    waiters=(100, 300),
    fits=2,
    counted=0,
)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user asked for.

    ``compare`` are files of --json that take the place of measuring; ``known`` is one that says what has
    been reached, ``slack`` is then from there where that is off its bar, too.
    """

    quick: bool = False
    plot_file: Path | None = None
    slack: float | None = None
    as_object: bool = False
    runs: int = 1
    compare: tuple[Path, ...] = ()
    rounds: int | None = None
    known: Path | None = None


def bench_command(port: str | None, wishes: Wishes) -> int:
    """Measure and report; exit status 1 if a ratio misses its bar by more than ``slack`` times.

    Raises UDriverError for a file that no bench has written.
    """
    if wishes.plot_file is not None and (why := plot.missing()):
        print(f"udriver: {why}", file=sys.stderr)
        return Status.SKIPPED
    known = read_run(wishes.known)[0][0] if wishes.known is not None else []
    if wishes.compare:
        read = [read_run(file) for file in wishes.compare]
        runs, chosen = [run for run, _ in read], read[0][1]
    else:
        effort = QUICK if wishes.quick else FULL
        if wishes.rounds is not None:
            effort = replace(effort, rounds=wishes.rounds, fits=min(wishes.rounds, effort.fits))
        runs = []
        for _ in range(wishes.runs):
            run, chosen = _measure(port, effort)
            runs.append(run)
    rows, curves = merge(runs)
    if wishes.as_object:
        print(json.dumps(as_json(rows, curves, chosen)), flush=True)
    else:
        print_table(rows, curves)
    if wishes.plot_file is not None:
        plot.plot(wishes.plot_file, rows, curves)
    return _judge(rows, wishes.slack, known)


def _measure(port: str | None, effort: _Effort) -> tuple[Run, str]:
    from udriver_hw.spawned import spawn_counterpart

    rows: list[Row] = []
    with (
        spawn_counterpart("echo") as device,
        open_target(device.path if port in (None, "pty") else port) as target,
    ):
        Port(target.path).close()  # says in a sentence what is no port; who measures does not
        _note(f"round trips on {target.path}, everybody in turn")
        rows += roundtrip_rows(target.path, target.rung, effort.rounds, effort.trips)
        rows += check_rows(target.path, target.rung, effort.rounds, effort.trips)
        rungs = ladder_rows(target.path, target.rung, effort.rounds, effort.trips // 2)
        _note("idle")
        rows += idle_rows(target.path, effort.idle)
        _note("growth")
        curves = frame_curves(target.path, list(effort.sizes), effort.fits, effort.trips // 2)
    with spawn_counterpart("flood") as device:
        _note("streams, on a pty")
        rows += stream_rows(device.path, effort.rounds, effort.stream)
    _note("completions")
    rows += completion_rows(effort.rounds, effort.posts)
    _note("many ports, on ptys")
    many, growing = many_rows(list(effort.ports), effort.trips * 4, effort.idle)
    rows += many
    with spawn_counterpart("stamps") as device:
        _note("interrupt latency, on a pty")
        rows += interrupt_rows(device.path, effort.stamps)
    curves += growing + waiter_curves(list(effort.waiters), effort.fits)
    rows += growth_rows(curves)
    rows += rungs
    return (_explain(rows, effort.counted), curves), target.path


def _explain(rows: list[Row], count: int) -> list[Row]:
    """Count what the missed rows are made of; a quick run does not, its figures are none."""
    who = who_to_count(rows)
    if not count or not who:
        return rows
    _note("counting what was missed")
    return explained(rows, take_stock(count, who=who, answers=["at once"]))


def _note(what: str) -> None:
    print(f"udriver: {what}", file=sys.stderr)


def _judge(rows: list[Row], slack: float | None, known: Sequence[Row] = ()) -> int:
    """p99 is told and not judged: on a machine that others use it is theirs."""
    if slack is None:
        return Status.OK
    reached = {(row.figure, row.against): row for row in known}
    missed = [
        row
        for row in rows
        if not row.figure.endswith("p99")
        and _off(row, reached.get((row.figure, row.against))) > slack
    ]
    if not missed:
        return Status.OK
    names = ", ".join(f"{row.figure} / {row.against}" for row in missed)
    print(
        f"udriver: more than {slack:g} times off the bar: {names}; run it again on a quiet machine",
        file=sys.stderr,
    )
    return Status.FAILED


def _off(row: Row, known: Row | None) -> float:
    """How many times worse than the bar, or than what has been reached if that is worse."""
    if row.limit == 0:
        return row.value or 0.0  # of a count that is to be 0 there are no times: so many
    return row.missed_by() / max(1.0, known.missed_by() if known is not None else 1.0)
