# SPDX-License-Identifier: MIT
"""Composition. From the device's write to the first line of the ISR, while Python is busy.

The device stamps each frame with CLOCK_MONOTONIC just before it writes it; the ISR looks at the same
clock first of all. A frame that an earlier interrupt's drain took along counts with that one.
"""

from __future__ import annotations

import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from hdrh.histogram import HdrHistogram

from udriver.bench.rows import Row
from udriver.drivers.usbserial import UsbSerial
from udriver.kernel.irq import IrqReturn

__all__ = ["interrupt_rows"]

STAMP = 8  # bytes


class _Clocked(UsbSerial):
    """A driver that notes, for each interrupt, when it came and how much it took."""

    def isr(self, irq: int, dev_id: object) -> IrqReturn:
        """As the driver's.

        Context: Hardirq context.
        """
        entered = time.monotonic_ns()
        result = super().isr(irq, dev_id)
        self.__dict__.setdefault("entries", []).append((entered, self.stats().received))
        return result


def _burn(until: Callable[[], bool]) -> None:
    total = 0
    while not until():
        for number in range(1000):
            total += number * number


@contextmanager
def _burning_thread() -> Iterator[None]:
    stop: list[None] = []
    thread = threading.Thread(target=_burn, args=(lambda: bool(stop),), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.append(None)
        thread.join()


def _latencies(
    path: str, irqchip: str, count: int, busy: str, recipe: bool
) -> tuple[HdrHistogram, list[str]]:
    """``busy`` main: the main thread computes; thread: another one does, and main waits.

    With it the steps of the recipe that were refused.
    """
    with _Clocked.open(path, irqchip=irqchip, realtime=recipe) as driver:
        driver.write(struct.pack("<Q", count))
        size = count * STAMP
        if busy == "main":
            _burn(lambda: driver.stats().buffered >= size)
            stamps = driver.readexactly(size, 5.0)
        else:
            with _burning_thread():
                stamps = driver.readexactly(size, 60.0)
        entries: list[tuple[int, int]] = driver.__dict__["entries"]
        steps = driver.realtime.steps if driver.realtime is not None else ()
        refused = [f"{step.name} ({step.what})" for step in steps if not step.taken]
    histogram = HdrHistogram(1, 60_000_000_000, 3)
    for number in range(count):
        (sent,) = struct.unpack_from("<Q", stamps, number * STAMP)
        entered = next(at for at, received in entries if received >= (number + 1) * STAMP)
        histogram.record_value(max(1, entered - sent))
    return histogram, refused


BUSY = {"main": "main thread burns", "thread": "another thread burns"}
REFUSED = "without what this machine did not permit: {}"


def interrupt_rows(path: str, count: int) -> list[Row]:
    """``path`` has a counterpart in stamps mode. With the recipe of ``realtime=`` and without."""
    rows = []
    for busy, what in BUSY.items():
        found: dict[tuple[str, bool], HdrHistogram] = {}
        for recipe in (False, True):
            for chip in ("signal", "select"):
                found[chip, recipe], refused = _latencies(path, chip, count, busy, recipe)
        for percent in (50, 99):
            rows += _rows(found, what, percent, refused)
    return rows


def _rows(
    found: dict[tuple[str, bool], HdrHistogram], what: str, percent: int, refused: list[str]
) -> list[Row]:
    us = {who: max(1, each.get_value_at_percentile(percent)) / 1000 for who, each in found.items()}
    with_recipe = f"{what}, realtime, p{percent}"
    bar = 10.0 if what == BUSY["main"] and percent == 99 else None
    note = REFUSED.format(", ".join(refused)) if refused and percent == 50 else ""

    def row(figure: str, against: str, ours: float, theirs: float, bar: float | None = None) -> Row:
        return Row(
            f"interrupt latency, {figure}", against, theirs / ours, ">=", bar, ours, theirs, "us"
        )

    plain = row(
        f"signal, {what}, p{percent}", "select", us["signal", False], us["select", False], bar
    )
    middle = [
        found[chip, False].get_value_at_percentile(50) / 1000 for chip in ("signal", "select")
    ]
    reason = (
        f"in the median it is {middle[0]:.0f} us and {middle[1]:.0f} us; the select chip's thread waits "
        f"for the GIL a switch interval of {sys.getswitchinterval() * 1e6:.0f} us, the signal's p99 is "
        "what the kernel let the main thread wait for a CPU"
    )
    return [
        replace(plain, reason=reason),
        row(f"signal, {with_recipe}", "select", us["signal", True], us["select", True]),
        *(
            replace(
                row(f"{chip}, {with_recipe}", "without", us[chip, True], us[chip, False]),
                note=note if chip == "select" else "",
            )
            for chip in ("signal", "select")
        ),
    ]
