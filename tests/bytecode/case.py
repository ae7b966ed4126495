# SPDX-License-Identifier: MIT
"""One case, what can go wrong with it, and the tally of many."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["KINDS", "Case", "Failure", "Tally"]

KINDS = {
    "D": "deadlock: the handler waits for what it interrupted",
    "L": "lost wake-up: somebody sleeps although what he waits for is there",
    "S": "stall: the signal has come, its handler runs only after the sleep that it was to end",
    "W": "wrong count or state",
    "E": "an exception",
}


class Case(NamedTuple):
    """One interruption: of boundary ``at`` by ``op``, and of that one's ``inner_at`` by ``inner_op``.

    With mode "timer" nothing is traced: a real timer interrupts at a time drawn from ``seed``.
    """

    mode: str
    op: str
    at: int
    inner_op: str = ""
    inner_at: int = 0
    seed: int = 0

    @property
    def way(self) -> str:
        """The column it counts in."""
        return "two deep" if self.inner_at else self.mode


class Failure(NamedTuple):
    """One case that went wrong."""

    kind: str
    case: Case
    where: str
    why: str


@dataclass
class Tally:
    """What came out: cases whose handlers all ran, by way; failures; functions interrupted.

    ``points`` are the boundaries of the last case, ``inner_points`` the most that each handler had.
    """

    cases: dict[str, int] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    seen: set[tuple[str, str]] = field(default_factory=set)
    points: int = 0
    inner_points: dict[str, int] = field(default_factory=dict)

    def add_cases(self, ran: dict[str, int]) -> None:
        """Count so many more."""
        for way, count in ran.items():
            self.cases[way] = self.cases.get(way, 0) + count
