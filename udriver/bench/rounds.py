# SPDX-License-Identifier: MIT
"""Composition. Interleaved measurement: everybody in turn, many times, and ratios within a round.

A machine that is busy, throttled or moved slows whoever is measured just then. Contestants that
take turns are slowed alike, so the figure is the median over the rounds of (ours / theirs in the same
round); the absolute numbers only say what kind of machine it was.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from hdrh.histogram import HdrHistogram

__all__ = ["Contestant", "Results", "take_turns", "timed"]

LONGEST = 60_000_000_000  # ns
Block = Callable[[int], list[int]]
"""Do it so many times; give what each took, in ns."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """Whoever is measured: opened anew for each of its turns, outside the time that counts."""

    name: str
    open: Callable[[], AbstractContextManager[Block]]


@dataclass(slots=True)
class Results:
    """By name: a histogram in ns for each round."""

    turns: dict[str, list[HdrHistogram]] = field(default_factory=dict)

    def percentiles(self, name: str, percent: float) -> list[float]:
        """That percentile of each round, in ns."""
        return [float(turn.get_value_at_percentile(percent)) for turn in self.turns[name]]

    def value(self, name: str, percent: float) -> float:
        """The median over the rounds, in ns."""
        return statistics.median(self.percentiles(name, percent))

    def ratio(self, ours: str, theirs: str, percent: float) -> float:
        """The median over the rounds of ours / theirs."""
        pairs = zip(self.percentiles(ours, percent), self.percentiles(theirs, percent), strict=True)
        return statistics.median(mine / other for mine, other in pairs)


def take_turns(contestants: Sequence[Contestant], rounds: int, count: int) -> Results:
    """``rounds`` times: each of them in turn, ``count`` times; where one begins, changes."""
    results = Results({contestant.name: [] for contestant in contestants})
    for turn in range(rounds):
        first = turn % len(contestants)
        for contestant in (*contestants[first:], *contestants[:first]):
            with contestant.open() as block:
                block(max(1, count // 10))  # caches, and threads that start
                histogram = HdrHistogram(1, LONGEST, 3)
                for duration in block(count):
                    histogram.record_value(max(1, min(duration, LONGEST)))
            results.turns[contestant.name].append(histogram)
    return results


def timed(trip: Callable[[], object], count: int) -> list[int]:
    """Call ``trip`` so many times; give what each took, in ns."""
    clock = time.perf_counter_ns
    durations = []
    for _ in range(count):
        before = clock()
        trip()
        durations.append(clock() - before)
    return durations
