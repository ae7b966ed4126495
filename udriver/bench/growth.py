# SPDX-License-Identifier: MIT
"""Composition. How the cost grows: with the frame, and with the waiters on one completion."""

from __future__ import annotations

import asyncio
import gc
import math
import statistics
import time
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from udriver.bench.floor import bare_trips
from udriver.bench.rounds import Contestant, take_turns
from udriver.bench.roundtrip import driver_trips
from udriver.bench.rows import Row
from udriver.kernel.completion import Completion

__all__ = ["Curve", "frame_curves", "growth_rows", "waiter_curves"]


FEW = 8  # times a round, of each; all of them together are fewer than the fewest waiters


@dataclass(frozen=True, slots=True)
class Curve:
    """Microseconds over a number; ``exponent`` is of the power law that fits best, in log-log."""

    name: str
    over: str
    numbers: list[int]
    microseconds: list[float]

    @property
    def exponent(self) -> float:
        """About 0 is constant, about 1 is linear."""
        return self._fit()[0]

    @property
    def error(self) -> float:
        """The standard error of the exponent, by how far the points lie off the line; nan for two."""
        return self._fit()[1]

    def fitted(self) -> list[float]:
        """The power law, at each of the numbers."""
        slope, _, intercept = self._fit()
        return [math.exp(intercept) * number**slope for number in self.numbers]

    def _fit(self) -> tuple[float, float, float]:
        """Slope, its error, intercept; natural logarithms."""
        x, y = [list(map(math.log, values)) for values in (self.numbers, self.microseconds)]
        line = statistics.linear_regression(x, y)
        off = sum((b - line.intercept - line.slope * a) ** 2 for a, b in zip(x, y, strict=True))
        mean = statistics.fmean(x)
        spread = sum((a - mean) ** 2 for a in x)
        if len(x) < 3:
            return line.slope, math.nan, line.intercept
        return line.slope, math.sqrt(off / (len(x) - 2) / spread), line.intercept

    def as_json(self) -> dict[str, Any]:
        """Its fields, and the fit; an error that two points do not give is null."""
        error = None if math.isnan(self.error) else round(self.error, 3)
        return {**asdict(self), "exponent": round(self.exponent, 3), "error": error}


def frame_curves(path: str, sizes: list[int], rounds: int, count: int) -> list[Curve]:
    """The round trip, ours and bare, over the frame's size."""
    both: dict[str, list[float]] = {"inline": [], "bare": []}
    for size in sizes:
        frame = bytes(range(256)) * (size // 256) or bytes(range(size))
        contestants = [
            Contestant("inline", partial(driver_trips, path, frame, "inline")),
            Contestant("bare", partial(bare_trips, path, frame)),
        ]
        results = take_turns(contestants, rounds, count)
        for name, values in both.items():
            values.append(results.value(name, 50) / 1000)
    return [Curve(f"round trip, {name}", "bytes", sizes, values) for name, values in both.items()]


async def _waiters(count: int) -> tuple[float, float, float]:
    """Seconds of a complete(), of a waiter in the middle giving up, and of a complete_all()."""
    x = Completion("bench")

    async def wait() -> None:
        await x

    tasks = [asyncio.create_task(wait()) for _ in range(count)]
    while len(x.wait_queue) < count:
        await asyncio.sleep(0)
    gc.collect()
    gc.disable()  # as timeit does: a collection is as long as the heap is large
    clock = time.perf_counter
    posts, leaves = [], []
    for head in range(FEW):
        before = clock()
        x.complete()
        posts.append(clock() - before)
        await tasks[head]
        middle = tasks[count // 2 + head]
        middle.cancel()  # what asyncio.timeout() does when the time is up
        before = clock()
        await asyncio.wait([middle])
        leaves.append(clock() - before)
    before = clock()
    x.complete_all()
    everybody = clock() - before
    gc.enable()
    await asyncio.gather(*tasks, return_exceptions=True)
    return (
        statistics.median(posts),
        statistics.median(leaves),
        everybody / (count - 2 * FEW) * count,
    )


def waiter_curves(counts: list[int], rounds: int) -> list[Curve]:
    """With so many tasks of an asyncio loop waiting on one completion."""
    names = ("complete()", "a waiter in the middle times out", "complete_all()")
    measured: list[tuple[float, ...]] = []
    for count in counts:
        runs = [asyncio.run(_waiters(count)) for _ in range(rounds)]
        measured.append(tuple(statistics.median(run[which] for run in runs) for which in range(3)))
    return [
        Curve(name, "waiters", counts, [values[which] * 1e6 for values in measured])
        for which, name in enumerate(names)
    ]


LAWS = {
    "complete()": (0.0, "constant"),
    "a waiter in the middle times out": (0.0, "constant"),
    "complete_all()": (1.0, "linear"),
}
ROOM = 0.2  # in the exponent: caches are one reason that no line is straight


def growth_rows(curves: list[Curve]) -> list[Row]:
    """What the exponents of the waiters' curves may be; nothing of a fit through two points."""
    return [
        Row(
            f"{curve.name}, exponent",
            LAWS[curve.name][1],
            curve.exponent,
            limit=LAWS[curve.name][0] + ROOM,
            ours=curve.exponent,
            unit=f"+- {curve.error:.2f}",
            reason="by its points: "
            + ", ".join(
                f"{us:.3g} us at {number}"
                for number, us in zip(curve.numbers, curve.microseconds, strict=True)
            ),
        )
        for curve in curves
        if curve.name in LAWS and not math.isnan(curve.error)
    ]
