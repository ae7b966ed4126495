# SPDX-License-Identifier: MIT
"""A UART: a FIFO each way and a shift register that takes its time.

What this models: the bit time of the line (start, data, parity, stop bits at this baud rate), a
transmit FIFO that holds its feeder back when full, a receive FIFO that overruns when nobody
empties it.
Lines: TXD and RXD, as whole characters; something may hold the shift register back (CTS, XOFF).
Not modelled: modem lines, break, parity and framing errors, sampling: both ends always agree on
the line's settings, so no wrong baud rate yields garbage.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from udriver_hw.chips.fifo8 import Fifo8

__all__ = ["Framing", "Uart"]

NSEC = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Framing:
    """How a character looks on the line. ``stopbits`` may be 1.5."""

    baudrate: int | Fraction = 115200
    databits: int = 8
    parity: bool = False
    stopbits: float = 1

    @property
    def char_ns(self) -> Fraction:
        """Nanoseconds for one character; a fraction, so that a million of them do not drift."""
        bits = 1 + self.databits + self.parity + Fraction(self.stopbits)
        return bits * NSEC / max(1, self.baudrate)


class Uart:
    """A UART with FIFOs of ``depth`` bytes. Unpaced, a character takes no time.

    The feeder calls write(); whatever left TXD by ``now`` comes out of transmit(). What arrives
    at RXD goes in by receive() and out by read(). ``now`` never goes back.
    """

    def __init__(self, depth: int = 4096, *, paced: bool = False) -> None:
        self.paced = paced
        self.framing = Framing()
        self.held = False
        self.tx = Fifo8(depth)
        self.rx = Fifo8(depth)
        self._free_at = Fraction(0)  # when the shift register had sent its last character
        self._head_end = Fraction(0)  # when the one at the head of the FIFO will have left
        self._under_way = False  # held, with a character in the shift register
        self._left = b""  # what has left TXD and was not asked for yet

    def set_framing(self, framing: Framing, now: int) -> None:
        """Change the line; a character that is being shifted out finishes as it began."""
        if framing != self.framing:
            self._shift(now)
            self.framing = framing

    def write(self, data: bytes, now: int) -> int:
        """Fill the transmit FIFO; give how many bytes it had room for."""
        if self.paced:  # else it empties when transmit() is called: a wire that is stuck fills it
            self._shift(now)
        if not len(self.tx):
            self._head_end = max(self._free_at, Fraction(now)) + self.framing.char_ns
        return self.tx.push(data[: self.tx.room])

    def transmit(self, now: int) -> bytes:
        """The characters whose last stop bit was over by ``now``."""
        self._shift(now)
        left, self._left = self._left, b""
        return left

    def hold(self, held: bool, now: int) -> None:
        """Send nothing behind the character that is being shifted out; or go on."""
        if held == self.held:
            return
        self._shift(now)
        self.held = held
        if held:
            self._under_way = self.paced and len(self.tx) > 0
        elif not self._under_way:
            self._head_end = max(self._free_at, Fraction(now)) + self.framing.char_ns

    def purge(self, now: int) -> None:
        """Empty the transmit FIFO; the character that is being shifted out is lost too."""
        self._shift(now)
        self.tx.pop(len(self.tx))
        self._under_way = False

    def _shift(self, now: int) -> None:
        if self.held and not self._under_way:
            return
        if not self.paced:
            self._left += self.tx.pop(len(self.tx))
        elif len(self.tx) and now >= self._head_end:
            char_ns = self.framing.char_ns
            sent = self.tx.pop(1 if self.held else 1 + int((now - self._head_end) / char_ns))
            self._under_way = False
            self._free_at = self._head_end + (len(sent) - 1) * char_ns
            self._head_end = self._free_at + char_ns
            self._left += sent

    def next_event(self) -> int | None:
        """When the next character will have left, in ns; None while there is none."""
        if self._left:
            return 0
        if not len(self.tx) or (self.held and not self._under_way):
            return None
        return -int(-self._head_end // 1) if self.paced else 0

    def receive(self, data: bytes) -> int:
        """Characters from RXD; give how many the receive FIFO had room for."""
        return self.rx.push(data)

    def read(self, count: int) -> bytes:
        """Empty the receive FIFO."""
        return self.rx.pop(count)
