# SPDX-License-Identifier: MIT
"""A chip's own FIFO of bytes.

What this models: a fixed depth, and an overrun bit that stays set until it is read.
Not modelled: trigger levels, error bits beside each byte.
"""

from __future__ import annotations

__all__ = ["Fifo8"]


class Fifo8:
    """A FIFO of ``depth`` bytes; what does not fit is lost, and counted in ``overruns``."""

    __slots__ = ("_data", "depth", "high_water", "overrun", "overruns")

    def __init__(self, depth: int) -> None:
        if depth < 1:
            raise ValueError(f"a FIFO is at least 1 byte deep, not {depth}")
        self.depth = depth
        self.overrun = False
        self.overruns = 0
        self.high_water = 0
        self._data = bytearray()

    def __len__(self) -> int:
        return len(self._data)

    @property
    def room(self) -> int:
        """Bytes that fit."""
        return self.depth - len(self._data)

    def push(self, data: bytes) -> int:
        """Put bytes in; give how many fitted. The others are lost, and the overrun bit is set."""
        fits = data[: self.room]
        self._data += fits
        self.high_water = max(self.high_water, len(self._data))
        if len(fits) < len(data):
            self.overrun = True
            self.overruns += len(data) - len(fits)
        return len(fits)

    def pop(self, count: int) -> bytes:
        """Take up to ``count`` bytes out."""
        data = bytes(self._data[:count])
        del self._data[:count]
        return data

    def peek(self, count: int) -> bytes:
        """Look at up to ``count`` bytes."""
        return bytes(self._data[:count])

    def take_overrun(self) -> bool:
        """Read the overrun bit, which clears it (16550 LSR bit 1)."""
        overrun, self.overrun = self.overrun, False
        return overrun
