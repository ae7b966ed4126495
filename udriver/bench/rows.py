# SPDX-License-Identifier: MIT
"""Composition. One line of the table: a figure of ours, what it is held against, and the bar."""

from __future__ import annotations

import operator
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["Row"]

Sense = Literal["<=", ">="]
MEETS = {"<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True, slots=True)
class Row:
    """``value`` is what the bar is for: a ratio ours / theirs, or a count where there is no peer.

    ``limit`` None: told for comparison, no bar. ``note`` says why a figure is not there, ``reason`` what
    was measured of its cause, which is told where the bar is missed. ``runs`` has the value of each
    run where there were several; ``value`` is then their median.
    """

    figure: str
    against: str
    value: float | None
    sense: Sense = "<="
    limit: float | None = None
    ours: float | None = None
    theirs: float | None = None
    unit: str = ""
    rung: str = "pty"
    note: str = ""
    reason: str = ""
    runs: tuple[float, ...] = ()

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None where there is no bar, or no figure."""
        return self._holds(self.value, self.limit)

    @property
    def ahead(self) -> bool | None:
        """Whether ours is the better one of the two; None where there is no peer, or no figure."""
        return self._holds(self.value, None if self.theirs is None else 1.0)

    def agreement(self) -> tuple[int, int]:
        """How many runs say of ``ahead`` (or of ``met``, without a peer) what the median says."""
        limit = self.limit if self.theirs is None else 1.0
        verdicts = [self._holds(value, limit) for value in self.runs]
        return verdicts.count(self._holds(self.value, limit)), len(verdicts)

    def _holds(self, value: float | None, limit: float | None) -> bool | None:
        if value is None or limit is None:
            return None
        return bool(MEETS[self.sense](value, limit))

    def missed_by(self) -> float:
        """How many times worse than the bar; at most 1 where it is met."""
        if self.value is None or not self.limit:
            return 1.0 if self.met in (True, None) else float("inf")
        worse = self.value / self.limit
        return worse if self.sense == "<=" else 1 / worse if worse else float("inf")

    def as_json(self) -> dict[str, Any]:
        """Its fields, and ``met``."""
        return {**asdict(self), "met": self.met}
