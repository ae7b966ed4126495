# SPDX-License-Identifier: MIT
"""Composition. The round trip of a small frame: three irqchips, the floor, the peers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from udriver.bench.floor import bare_trips, select_thread_trips
from udriver.bench.peers import PEERS, missing
from udriver.bench.rounds import Block, Contestant, Results, take_turns, timed
from udriver.bench.rows import Row
from udriver.drivers.usbserial import UsbSerial

__all__ = ["FRAME", "driver_trips", "roundtrip_rows"]

FRAME = b"0123456789abcdef"
CHIPS = ("inline", "select", "signal")
BY_HAND = "select thread + Event"


@contextmanager
def driver_trips(path: str, frame: bytes, irqchip: str) -> Iterator[Block]:
    """transact() through the driver."""
    size = len(frame)
    with UsbSerial.open(path, irqchip=irqchip) as driver:
        yield partial(timed, lambda: driver.transact(frame, size, 5.0))


def contestants(path: str, frame: bytes = FRAME) -> list[Contestant]:
    """Everybody who is installed."""
    ours = [Contestant(chip, partial(driver_trips, path, frame, chip)) for chip in CHIPS]
    theirs = [
        Contestant(name, partial(trips, path, frame))
        for name, trips in PEERS.items()
        if not missing(name)
    ]
    return [
        Contestant("bare", partial(bare_trips, path, frame)),
        *ours,
        Contestant(BY_HAND, partial(select_thread_trips, path, frame)),
        *theirs,
    ]


def roundtrip_rows(path: str, rung: str, rounds: int, count: int) -> list[Row]:
    """The rows of the round trip, the bars first."""
    results = take_turns(contestants(path), rounds, count)
    row = partial(_row, results, rung)
    rows = [
        row("inline", "bare", 50, 1.25),
        row("inline", "bare", 99, 1.5),
        row("inline", "pySerial", 50, 1.0),
        row("inline", "serialx", 50, 1.0),
        row("select", BY_HAND, 50, 0.8),
        row("signal", "select", 50, 1.0),
    ]
    others = ["serialx async", "pyserial-asyncio-fast", "pySerial ReaderThread", BY_HAND]
    rows += [row("inline", name, 50, 1.0) for name in others]
    rows += [row(name, "bare", 99, None) for name in ("select", "signal", "pySerial", "serialx")]
    return rows


def _row(
    results: Results, rung: str, ours: str, theirs: str, percent: int, limit: float | None
) -> Row:
    figure = f"round trip, {ours}, p{percent}"
    for name in (ours, theirs):
        if name not in results.turns:
            return Row(figure, theirs, None, limit=limit, rung=rung, note=missing(name) or "")
    return Row(
        figure,
        theirs,
        results.ratio(ours, theirs, percent),
        limit=limit,
        ours=results.value(ours, percent) / 1000,
        theirs=results.value(theirs, percent) / 1000,
        unit="us",
        rung=rung,
    )
