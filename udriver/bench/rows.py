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

    ``limit`` None: told for comparison, no bar. ``note`` says why a figure is not there.
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

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None where there is no bar, or no figure."""
        if self.value is None or self.limit is None:
            return None
        return bool(MEETS[self.sense](self.value, self.limit))

    def missed_by(self) -> float:
        """How many times worse than the bar; at most 1 where it is met."""
        if self.value is None or not self.limit:
            return 1.0 if self.met in (True, None) else float("inf")
        worse = self.value / self.limit
        return worse if self.sense == "<=" else 1 / worse if worse else float("inf")

    def as_json(self) -> dict[str, Any]:
        """Its fields, and ``met``."""
        return {**asdict(self), "met": self.met}
