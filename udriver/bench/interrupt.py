# SPDX-License-Identifier: MIT
"""Composition. From the device's write to the first line of the ISR, while Python is busy.

The device stamps each frame with CLOCK_MONOTONIC just before it writes it; the ISR looks at the same
clock first of all. A frame that an earlier interrupt's drain took along counts with that one.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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


def _latencies(path: str, irqchip: str, count: int, busy: str) -> HdrHistogram:
    """``busy`` main: the main thread computes; thread: another one does, and main waits."""
    with _Clocked.open(path, irqchip=irqchip) as driver:
        driver.write(struct.pack("<Q", count))
        size = count * STAMP
        if busy == "main":
            _burn(lambda: driver.stats().buffered >= size)
            stamps = driver.readexactly(size, 5.0)
        else:
            with _burning_thread():
                stamps = driver.readexactly(size, 60.0)
        entries: list[tuple[int, int]] = driver.__dict__["entries"]
    histogram = HdrHistogram(1, 60_000_000_000, 3)
    for number in range(count):
        (sent,) = struct.unpack_from("<Q", stamps, number * STAMP)
        entered = next(at for at, received in entries if received >= (number + 1) * STAMP)
        histogram.record_value(max(1, entered - sent))
    return histogram


def interrupt_rows(path: str, count: int) -> list[Row]:
    """``path`` has a counterpart in stamps mode."""
    rows = []
    for busy in ("main", "thread"):
        signal, select = (_latencies(path, chip, count, busy) for chip in ("signal", "select"))
        for percent in (50, 99):
            ours = max(1, signal.get_value_at_percentile(percent))
            theirs = select.get_value_at_percentile(percent)
            rows.append(
                Row(
                    f"interrupt latency, signal, {busy} thread burns, p{percent}".replace(
                        "thread thread", "another thread"
                    ),
                    "select",
                    theirs / ours,
                    ">=",
                    10.0 if busy == "main" and percent == 99 else None,
                    ours=ours / 1000,
                    theirs=theirs / 1000,
                    unit="us",
                )
            )
    return rows
