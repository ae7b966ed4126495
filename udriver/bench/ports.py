# SPDX-License-Identifier: MIT
"""Composition. Many ports in one process, and what an idle one costs: wakeups and memory.

Wakeups are context switches of all our threads, as /proc/self/task/*/status counts them. Cross-check:
``strace -f -c -e trace=epoll_wait,read,ppoll,futex`` on a program that waits.
"""

from __future__ import annotations

import errno
import gc
import os
import resource
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from udriver.bench.floor import bare_fd
from udriver.bench.growth import Curve
from udriver.bench.rounds import timed
from udriver.bench.roundtrip import FRAME
from udriver.bench.rows import Row
from udriver.drivers.usbserial import UsbSerial
from udriver.kernel.completion import Completion

__all__ = ["idle_rows", "many_rows"]

PAGE = resource.getpagesize()
FDS_A_PORT = 4
KFIFO = 4096  # bytes
SETTLE = 0.02  # s; a chip's thread that has just been started still has to go to sleep


def _switches() -> int:
    """How often our threads went to sleep of their own will."""
    total = 0
    for status in Path("/proc/self/task").glob("*/status"):
        line = next(x for x in status.read_text().splitlines() if x.startswith("voluntary_ctxt"))
        total += int(line.split()[1])
    return total


def _idle_wakeups(seconds: float) -> float:
    """Wakeups per second while nothing arrives, but for the one that ends the measurement."""
    end = Completion("the end of the idle time")
    before = _switches()
    try:
        end.wait(seconds)
    except TimeoutError:
        pass
    return max(0, _switches() - before - 1) / seconds


def idle_rows(path: str, seconds: float) -> list[Row]:
    """One open port, nothing comes, the main thread waits."""
    rows = []
    for chip in ("inline", "select", "signal"):
        with UsbSerial.open(path, irqchip=chip):
            _idle_wakeups(SETTLE)
            value = _idle_wakeups(seconds)
        rows.append(Row(f"idle, {chip}", "nothing", value, limit=0.0, ours=value, unit="wakeups/s"))
    return rows


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


@contextmanager
def _opened(paths: list[str]) -> Iterator[tuple[list[UsbSerial], float]]:
    """The drivers, and how many bytes each has added to what is resident, beyond its kfifo.

    The kfifo is a small one, all of it counted: whether the pages of a large one are resident before
    they are used depends on where malloc found them.
    """
    gc.collect()
    before = _resident()
    with ExitStack() as stack:
        drivers = [
            stack.enter_context(UsbSerial.open(path, exclusive=len(paths) < 100, fifo_size=KFIFO))
            for path in paths
        ]
        gc.collect()
        yield drivers, max(0.0, (_resident() - before) / len(drivers) - KFIFO)


@dataclass(frozen=True, slots=True)
class _Many:
    """So many ports: ns per frame through the driver and bare, bytes and wakeups/s of an idle one."""

    cost: float
    floor: float
    memory: float
    wakeups: float


def many_rows(counts: list[int], frames: int, seconds: float) -> tuple[list[Row], list[Curve]]:
    """Frames in turn through all of so many ports, inline and bare; each count has its own far end."""
    measured: dict[int, _Many] = {}
    rows = []
    for count in counts:
        try:
            measured[count] = _measure(count, frames, seconds)
        except OSError as exc:
            note = f"{count} ports cannot be had here: {os.strerror(exc.errno or errno.EMFILE)}"
            rows.append(Row(f"{count} ports, cost per frame", "10 ports", None, note=note))
            continue
        rows += _rows(count, measured)
    if len(measured) < 2:
        return rows, []
    costs = [many.cost / 1000 for many in measured.values()]
    floors = [many.floor / 1000 for many in measured.values()]
    curves = [("inline", costs), ("bare", floors)]
    return rows, [Curve(f"frame, {name}", "ports", list(measured), us) for name, us in curves]


def _measure(count: int, frames: int, seconds: float) -> _Many:
    from udriver_hw.spawned import spawn_counterpart

    with _more_fds(count * FDS_A_PORT + 100), spawn_counterpart("echo", count) as device:
        paths = device.path.split()
        with ExitStack() as stack:
            fds = [stack.enter_context(bare_fd(path)) for path in paths]
            floor = _cost_per_frame([partial(_bare, fd) for fd in fds], frames)
        with _opened(paths) as (drivers, memory):
            trips = [partial(driver.transact, FRAME, len(FRAME), 5.0) for driver in drivers]
            cost = _cost_per_frame(trips, frames)
            _idle_wakeups(SETTLE)
            return _Many(cost, floor, memory, _idle_wakeups(seconds))


def _bare(fd: int) -> None:
    os.write(fd, FRAME)
    got = 0
    while got < len(FRAME):
        got += len(os.read(fd, len(FRAME) - got))


def _cost_per_frame(trips: Sequence[Callable[[], object]], frames: int) -> float:
    """The median, in ns, of a round trip through a port that all others were used before."""
    durations = []
    for _ in range(max(2, frames // len(trips))):
        for trip in trips:
            durations += timed(trip, 1)
    return statistics.median(durations)


def _rows(count: int, measured: dict[int, _Many]) -> list[Row]:
    rows = []
    now, ten = measured[count], measured.get(10)
    if count != 10 and ten is not None:
        bare = now.floor / ten.floor
        rows.append(
            Row(
                f"{count} ports, cost per frame",
                "10 ports",
                now.cost / ten.cost,
                limit=1.5 if count == 1000 else None,
                ours=now.cost / 1000,
                theirs=ten.cost / 1000,
                unit="us",
                reason=f"a bare write and read in turn through as many grows by {bare:.2f}, too",
            )
        )
    if count >= 10:
        kib = now.memory / 1024
        figure = f"{count} ports, memory each beyond the kfifo"
        rows.append(Row(figure, "nothing", kib, limit=64.0, ours=kib, unit="KiB"))
        figure = f"{count} ports, idle"
        rows.append(
            Row(figure, "nothing", now.wakeups, limit=0.0, ours=now.wakeups, unit="wakeups/s")
        )
    return rows


@contextmanager
def _more_fds(count: int) -> Iterator[None]:
    found, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count:
        raise OSError(errno.EMFILE, f"{hard} open files is the hard limit")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(found, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (found, hard))
