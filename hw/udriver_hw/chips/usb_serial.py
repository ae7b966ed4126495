# SPDX-License-Identifier: MIT
"""A USB function with a serial side: what the models of all USB-serial chips share.

What this models: nothing of its own; it joins chips/usb, chips/dte and a cable.
Lines: those of ``dte``.
Not modelled: see the chips.
"""

from __future__ import annotations

from typing import Any

from udriver_hw.chips.cable import Cable, End, Jumpered
from udriver_hw.chips.dte import Dte
from udriver_hw.chips.usb import Function

__all__ = ["UsbSerial"]


class UsbSerial(Function):
    """The serial side is ``dte``; ``cable`` is what that is joined to, at first a jumper, and
    ``end`` is what a cable is joined to here: ``dte``, or faults in front of it.

    ``fed`` and ``kept`` are the depths in bytes of the FIFOs from and to the host; ``paced``: a
    character takes as long as the line's settings say. Raises ValueError for strings that do not fit.
    """

    def __init__(
        self, strings: tuple[str, str, str], *, fed: int, kept: int, paced: bool = False
    ) -> None:
        super().__init__(*strings)
        self.owes = False  # a short packet: the last one was full, and the host's transfer goes on
        self.dte = Dte(fed=fed, kept=kept, paced=paced)
        self.end: End = self.dte
        self.cable: Cable = Jumpered(self.end)

    def advance(self, now: int) -> None:
        """Let characters move. Raises firmware.Unplugged."""
        self.cable.step(now)

    def next_event(self) -> int | None:
        """The cable's."""
        return self.cable.next_event()

    def on_out(self, address: int, data: bytes, now: int) -> int:
        """Whole packets, as many as there is room for."""
        size = self.endpoints[address]
        taken = 0
        while taken < len(data):
            packet = data[taken : taken + size]
            if self.dte.uart.tx.room < len(packet):
                break
            taken += self.dte.write(packet, now)
        return taken

    def ended(self, address: int, data: bytes) -> bytes | None:
        """``data`` as a packet, None if there is none, or one without data behind a full one.

        A host's transfer ends with a short packet: without that its driver would wait for more.
        """
        owed, self.owes = self.owes, len(data) == self.endpoints[address]
        return data if data or owed else None

    def state(self) -> dict[str, Any]:
        """What the host has set, and what came of it; a chip adds its own."""
        dte, framing = self.dte, self.dte.uart.framing
        return {
            "configuration": self.configuration,
            "baudrate": round(framing.baudrate),
            "format": f"{framing.databits}{dte.parity}{framing.stopbits:g}",
            "flow": str(dte.flow),
            "dtr": dte.dtr,
            "rts": dte.rts,
            "break": dte.breaking,
            "inputs": dte.inputs,
            "overruns": dte.overruns,
            "stalled": [list(setup) for setup in self.stalled],
        }
