# SPDX-License-Identifier: MIT
"""Composition. A stream from the device: MB/s to the reader, and CPU seconds per MB in our process."""

from __future__ import annotations

import os
import statistics
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from udriver.bench.floor import bare_fd
from udriver.bench.peers import STREAMS, missing
from udriver.bench.rows import Row
from udriver.drivers.usbserial import UsbSerial

__all__ = ["stream_rows"]

Read = Callable[[], bytes]
CHIPS = ("inline", "select", "signal")


@dataclass(frozen=True, slots=True)
class _Ends:
    write: Callable[[bytes], object]
    read: Read
    driver: UsbSerial | None = None


@dataclass(frozen=True, slots=True)
class _Run:
    rate: float  # bytes per second
    cpu: float  # CPU seconds per byte
    reads: float  # that the reader asked for, per byte
    interrupts: float  # per byte
    drains: float  # reads of the tty by the ISR, per byte


@contextmanager
def _bare(path: str) -> Iterator[_Ends]:
    with bare_fd(path) as fd:
        yield _Ends(lambda data: os.write(fd, data), lambda: os.read(fd, 65536))


@contextmanager
def _driver(path: str, irqchip: str) -> Iterator[_Ends]:
    with UsbSerial.open(path, irqchip=irqchip) as driver:
        yield _Ends(driver.write, driver.read, driver)


@contextmanager
def _peer(path: str, name: str) -> Iterator[_Ends]:
    with STREAMS[name](path) as port:
        yield _Ends(port.write, lambda: port.read(max(1, port.in_waiting)))


@contextmanager
def _open(path: str, name: str) -> Iterator[_Ends]:
    if name == "bare":
        opened = _bare(path)
    else:
        opened = _driver(path, name) if name in CHIPS else _peer(path, name)
    with opened as ends:
        yield ends


def _run(ends: _Ends, size: int) -> _Run:
    left, reads = size, 0
    before, cpu_before = time.perf_counter(), time.process_time()
    ends.write(struct.pack("<Q", size))
    while left:
        left -= len(ends.read())
        reads += 1
    elapsed, cpu = time.perf_counter() - before, time.process_time() - cpu_before
    stats = ends.driver.stats() if ends.driver is not None else None
    return _Run(
        rate=size / elapsed,
        cpu=cpu / size,
        reads=reads / size,
        interrupts=stats.irq.count / size if stats else 0.0,
        drains=stats.drains / size if stats else 0.0,
    )


def stream_rows(path: str, rounds: int, size: int) -> list[Row]:
    """``size`` bytes each turn, from a counterpart in flood mode behind ``path``."""
    absent = {name: missing(name) for name in STREAMS}
    names = ["bare", *CHIPS, *(name for name, why in absent.items() if not why)]
    runs: dict[str, list[_Run]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            with _open(path, name) as ends:
                runs[name].append(_run(ends, size))
    rows = []
    for chip in CHIPS:
        bar = chip == "inline"
        rows += [_rate(runs, chip, "bare", 0.9 if bar else None), _cpu(runs, chip, bar)]
    for name, why in absent.items():
        figure = "stream, inline, MB/s"
        if why:
            rows.append(Row(figure, name, None, ">=", 1.0, note=why))
        else:
            rows.append(_rate(runs, "inline", name, 1.0))
    return rows


def _rate(runs: dict[str, list[_Run]], ours: str, theirs: str, limit: float | None) -> Row:
    pairs = list(zip(runs[ours], runs[theirs], strict=True))
    return Row(
        f"stream, {ours}, MB/s",
        theirs,
        statistics.median(mine.rate / other.rate for mine, other in pairs),
        ">=",
        limit,
        ours=statistics.median(mine.rate for mine, _ in pairs) / 1e6,
        theirs=statistics.median(other.rate for _, other in pairs) / 1e6,
        unit="MB/s",
        reason=_reason(runs, ours, theirs),
    )


def _cpu(runs: dict[str, list[_Run]], ours: str, bar: bool) -> Row:
    pairs = list(zip(runs[ours], runs["bare"], strict=True))
    return Row(
        f"stream, {ours}, CPU per MB",
        "bare",
        statistics.median(mine.cpu / other.cpu for mine, other in pairs),
        limit=1.3 if bar else None,
        ours=statistics.median(mine.cpu for mine, _ in pairs) * 1e9,
        theirs=statistics.median(other.cpu for _, other in pairs) * 1e9,
        unit="ms/MB",
        reason=_reason(runs, ours, "bare"),
    )


def _reason(runs: dict[str, list[_Run]], ours: str, theirs: str) -> str:
    """What a MB takes, from the counts and from the CPU time of both."""

    def per_mb(name: str, figure: str) -> float:
        return 1e6 * float(statistics.median(getattr(run, figure) for run in runs[name]))

    spent, floor = per_mb(ours, "cpu") * 1000, per_mb(theirs, "cpu") * 1000
    drains = per_mb(ours, "drains")
    text = (
        f"a MB takes {per_mb(ours, 'interrupts'):.0f} interrupts, {drains:.0f} reads of the tty and "
        f"{per_mb(ours, 'reads'):.0f} of the kfifo in {spent:.2g} ms of CPU; {theirs} takes "
        f"{per_mb(theirs, 'reads'):.0f} reads in {floor:.2g} ms"
    )
    if theirs != "bare":
        pairs = zip(runs["bare"], runs[theirs], strict=True)
        bare = statistics.median(one.rate / other.rate for one, other in pairs)
        text += f"; a bare read, with none of ours around it, is at {bare:.2f} of {theirs}, too"
    return text
