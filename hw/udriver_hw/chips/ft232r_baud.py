# SPDX-License-Identifier: MIT
"""The FT232R's baud rate generator: 3 MHz by a divisor in eighths.

What this models: AN232B-05 "Configuring FT232R baud rates": 14 bits of integer, 3 bits of a code
for the eighths (in no order), and the two values that stand for what a divisor cannot: 0 is 3 Mbaud,
1 is 2 Mbaud.
Not modelled: nothing is known of divisors between 0 and 2 with a fraction, which the note
forbids: the fraction is ignored.
"""

from __future__ import annotations

from fractions import Fraction

__all__ = ["baudrate"]

CLOCK = 3_000_000  # Hz: 48 MHz by 16
EIGHTHS = (0, 4, 2, 1, 3, 5, 6, 7)  # by the three bits of the code


def baudrate(wValue: int, wIndex: int) -> Fraction:
    """The rate in baud that SET_BAUD_RATE with these two asks for."""
    divisor = wValue & 0x3FFF
    code = wValue >> 14 | (wIndex & 1) << 2
    if divisor == 0:
        return Fraction(CLOCK)
    if divisor == 1:
        return Fraction(2_000_000)
    return Fraction(8 * CLOCK, 8 * divisor + EIGHTHS[code])
