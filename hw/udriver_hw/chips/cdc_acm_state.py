# SPDX-License-Identifier: MIT
"""What a CDC-ACM function tells on its interrupt endpoint: SERIAL_STATE.

What this models: USB PSTN 1.2, section 6.5.4: a register of what is (DCD, DSR, RI)
and of what happened since it was told (break, framing, parity, overrun), which telling resets. A
notification is due when the former differ from what the host knows, or the latter are not empty.
Not modelled: CTS, for which the register has no bit; bInterval, as the wire asks at once.
Our choice, of no specification: what comes behind an error waits until that was told, so that a
host can count each, but no longer than bInterval; and the end of a ring is told. By the letter
telling resets a ring as it does an error, and a host that compares states would miss the next.
"""

from __future__ import annotations

import struct

from udriver_hw.chips.dte import BREAK, FRAMING, OVERRUN, PARITY, Dte

__all__ = ["INTERVAL", "SerialState"]

INTERVAL = 1  # ms: bInterval of the endpoint
NSEC_PER_MSEC = 1_000_000
DEVICE_TO_HOST, SERIAL_STATE = 0xA1, 0x20  # bmRequestType, bNotification
LEVELS = {"dcd": 0x01, "dsr": 0x02, "ri": 0x08}
ERRORS = {BREAK: 0x04, FRAMING: 0x10, PARITY: 0x20, OVERRUN: 0x40}


class SerialState:
    """The register; ``told`` is what the host knows of the lines."""

    def __init__(self, dte: Dte) -> None:
        self._dte = dte
        self.reset()

    def reset(self) -> None:
        """The host knows of no line, and nothing happened."""
        self.told = 0
        self._happened = 0
        self.held_until: int | None = None

    def add(self, status: int, now: int) -> None:
        """These errors happened."""
        self._happened |= sum(bit for error, bit in ERRORS.items() if status & error)
        self.held_until = now + INTERVAL * NSEC_PER_MSEC

    def holds(self, now: int) -> bool:
        """Whether what comes next has to wait until the host was told of an error."""
        return self.held_until is not None and now < self.held_until

    def notification(self) -> bytes | None:
        """What is due, or None. It is told then."""
        self._note_short_rings()
        lines = sum(bit for name, bit in LEVELS.items() if self._dte.inputs[name])
        if lines == self.told and not self._happened:
            return None
        value = lines | self._happened
        self.told = value & sum(LEVELS.values())
        self._happened = 0
        self.held_until = None
        return struct.pack("<BBHHHH", DEVICE_TO_HOST, SERIAL_STATE, 0, 0, 2, value)

    def _note_short_rings(self) -> None:
        """A ring that came and went between two questions is told as one, and then its end."""
        if (
            "ri" in self._dte.changed
            and not self._dte.inputs["ri"]
            and not self.told & LEVELS["ri"]
        ):
            self._happened |= LEVELS["ri"]
        self._dte.changed.clear()
