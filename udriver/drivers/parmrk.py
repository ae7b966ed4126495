# SPDX-License-Identifier: MIT
r"""Pure: what a tty with INPCK and PARMRK puts into its stream, taken out of it again (man 3 termios).

    \xff \xff         the byte 255
    \xff \x00 X       X came with a parity or framing error
    \xff \x00 \x00    a break, or a zero with such an error: the counters tell which

An overrun has no mark: n_tty_receive_overrun() only logs it (drivers/tty/n_tty.c).
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Mark", "Parmrk"]

_SPECIAL = re.compile(rb"\xff(?:\xff|\x00(?P<marked>[\x00-\xff])|(?P<other>[\x01-\xfe]))")


class Mark(NamedTuple):
    """A byte that came with an error; of a break it is 0."""

    byte: int


class Parmrk:
    """The parser; its input may be split anywhere."""

    def __init__(self) -> None:
        self.held = b""

    def feed(self, raw: bytes) -> list[bytes | Mark]:
        """Take the next bytes of the stream; give runs of data and marks, in order.

        An \\xff before anything else is from before the tty was set so: it stays as it is.
        """
        raw = self.held + raw
        if b"\xff" not in raw:
            self.held = b""
            return [raw] if raw else []
        parts: list[bytes | Mark] = []
        run = bytearray()
        at = 0
        for special in _SPECIAL.finditer(raw):
            run += raw[at : special.start()]
            at = special.end()
            if special["marked"] is not None:
                if run:
                    parts.append(bytes(run))
                    run.clear()
                parts.append(Mark(special["marked"][0]))
            elif special["other"] is not None:
                run += special[0]
            else:
                run.append(0xFF)
        rest = raw[at:]
        whole = rest.find(b"\xff")  # only a mark that is not whole is left to begin with one
        whole = len(rest) if whole < 0 else whole
        run += rest[:whole]
        self.held = rest[whole:]
        if run:
            parts.append(bytes(run))
        return parts
