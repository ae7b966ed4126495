# SPDX-License-Identifier: MIT
"""The CP2102's baud rates: a table of 29 of them, made of 24 MHz by a divisor.

What this models: AN205 "CP2101/2/3 baud rate support", table 1: the ranges of requests that become
one of the rates, and what comes of it by the nearest divisor.
Not modelled: a table that was customised. Requests outside all ranges become the lowest or the
highest rate; AN205 leaves open what those above 1,053,257 do.
"""

from __future__ import annotations

from bisect import bisect_left
from fractions import Fraction

__all__ = ["actual", "nominal"]

CLOCK = 24_000_000  # Hz; the prescaler that 300 baud needs changes no rate
# what a request of up to so many baud becomes
HIGHEST = {
    300: 300, 600: 600, 1200: 1200, 1800: 1800, 2400: 2400, 4000: 4000, 4803: 4800, 7207: 7200,
    9612: 9600, 14428: 14400, 16062: 16000, 19250: 19200, 28912: 28800, 38601: 38400,
    51558: 51200, 56280: 56000, 58053: 57600, 64111: 64000, 77608: 76800, 117028: 115200,
    129347: 128000, 156868: 153600, 237832: 230400, 254234: 250000, 273066: 256000,
    491520: 460800, 567138: 500000, 670254: 576000, 1053257: 921600,
}  # fmt: skip
LIMITS = list(HIGHEST)


def nominal(requested: int) -> int:
    """The rate of the table that this request chooses, in baud."""
    return HIGHEST[LIMITS[min(bisect_left(LIMITS, requested), len(LIMITS) - 1)]]


def actual(rate: int) -> Fraction:
    """What the generator makes of that rate of the table, in baud."""
    return Fraction(CLOCK, round(Fraction(CLOCK, rate)))
