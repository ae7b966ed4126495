# SPDX-License-Identifier: MIT
"""Pure: from what the kernel counts and the levels it tells to one record for each edge.

The fields are those of ``struct gpio_v2_line_event`` (linux/gpio.h) and two more: what was missed, and
how wrong the time may be.

TIOCGICOUNT says how many edges a line had, TIOCMGET where it is now, and the two are not read at
once: for ftdi_sio the first is a copy in memory of what the chip has sent, the second asks the chip. Edges
of a line alternate, so the parity of the count must agree with the level; while it does not, one of
the two is on its way, and the caller looks again. If the counter then stands still, the level is right:
an 8250 counts only one of RI's edges (man 2 ioctl_tty: "except for RI").
"""

from __future__ import annotations

import termios
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["LINES", "Counts", "Edge", "LineEdges", "Lines"]

LINES: dict[str, int] = {
    "cts": termios.TIOCM_CTS,
    "dsr": termios.TIOCM_DSR,
    "dcd": termios.TIOCM_CD,
    "ri": termios.TIOCM_RI,
}
"""The four inputs of a DTE, and their TIOCM_* bits."""

Counts = Mapping[str, int]
"""How many edges the kernel has counted of each line that it counts; empty where it counts none."""


@dataclass(frozen=True, slots=True)
class Edge:
    """One edge of a modem line.

    ``timestamp_ns`` is CLOCK_MONOTONIC when we learned of it, at most ``error_ns`` after the kernel
    did, as far as the method can tell (``ModemLines.method``); the adapter's own delay comes on top.
    ``seqno`` numbers the records of all lines, ``line_seqno`` the line's edges of the kind that was
    asked for, ``missed`` of which came between this record and the line's last one and have none.
    """

    line: str
    edge: Literal["rising", "falling"]
    timestamp_ns: int
    error_ns: int
    seqno: int
    line_seqno: int
    missed: int


@dataclass(frozen=True, slots=True)
class LineEdges:
    """``count`` edges of ``line``, the last of which left it at ``level``."""

    line: str
    count: int
    level: bool

    def of_kind(self, rising: bool, falling: bool) -> tuple[int, bool]:
        """How many of them are asked for, and whether the last of those is a rising one."""
        if rising and falling:
            return self.count, self.level
        if not rising and not falling:
            return 0, self.level
        same_as_last = rising == self.level
        return (self.count + same_as_last) // 2, rising


class Lines:
    """What is known of the four lines: ``level`` in TIOCM_* bits, ``counts`` where they are counted."""

    def __init__(self, level: int, counts: Counts) -> None:
        self.level = level
        self.counts = dict(counts)

    def agree(self, level: int, counts: Counts) -> bool:
        """Whether counts and levels tell the same story since the last look."""
        return all(
            self.counted(line, counts) & 1 == bool((level ^ self.level) & LINES[line])
            for line in counts
        )

    def by_count(self, level: int, counts: Counts) -> int:
        """``level`` with the lines that are counted where the parity of their counts says they are."""
        for line in counts:
            bit = LINES[line]
            odd = self.counted(line, counts) & 1
            level = level & ~bit | (self.level ^ bit * odd) & bit
        return level

    def take(self, level: int, counts: Counts) -> list[LineEdges]:
        """The edges since the last look, at most one entry for each line; the new state is kept."""
        edges = []
        for line, bit in LINES.items():
            changed = bool((level ^ self.level) & bit)
            count = max(self.counted(line, counts), int(changed))
            if count:
                edges.append(LineEdges(line, count, bool(level & bit)))
        self.level = level
        self.counts = dict(counts)
        return edges

    def counted(self, line: str, counts: Counts) -> int:
        """How many edges of ``line`` came since the last look."""
        # the kernel's counters are C ints and run over
        return (counts.get(line, 0) - self.counts.get(line, 0)) & 0xFFFFFFFF
