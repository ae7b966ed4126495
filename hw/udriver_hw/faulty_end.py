# SPDX-License-Identifier: MIT
"""Faults between a chip's serial side and its cable: the end that the cable then sees.

What this does: all faults of the line, each way. A line that a fault has moved stays there,
whatever the cable says of it.
Lines: those of the chip's ``dte``. The chip does not know; faulty_usb calls advance().
"""

from __future__ import annotations

from collections import deque

from udriver_hw.chips.dte import Dte, Run
from udriver_hw.chips.firmware import Unplugged
from udriver_hw.chips.uart import Uart
from udriver_hw.fault_lane import Item, Lane, Move
from udriver_hw.faults import Faults

__all__ = ["FaultyEnd", "unplugged"]


class FaultyEnd:
    """``dte`` behind ``faults``."""

    def __init__(self, dte: Dte, faults: Faults) -> None:
        self._dte = dte
        self._faults = faults
        self.rx, self.tx = Lane("rx", faults), Lane("tx", faults)
        self._on_the_way: deque[Item] = deque()  # to RXD, through the faults already
        self._forced: set[str] = set()

    @property
    def uart(self) -> Uart:
        """The chip's."""
        return self._dte.uart

    @property
    def parity(self) -> str:
        """The chip's."""
        return self._dte.parity

    @property
    def dtr(self) -> bool:
        """The chip's."""
        return self._dte.dtr

    @property
    def rts(self) -> bool:
        """The chip's."""
        return self._dte.rts

    @property
    def room(self) -> int:
        """What the chip has, less what a delay or a storm of breaks keeps in front of it."""
        behind = sum(len(item.data) for item in self._on_the_way if isinstance(item, Run))
        return max(0, self._dte.room - self.rx.waiting - behind)

    def set_line(self, name: str, on: bool, now: int) -> None:
        """The cable moves an input."""
        if name not in self._forced:
            self._dte.set_line(name, on, now)

    def receive(self, run: Run, now: int) -> None:
        """Characters for RXD. Raises Unplugged."""
        self.rx.put(run)
        self.advance(now)

    def transmit(self, now: int) -> list[Run]:
        """What left TXD, and came through."""
        if not self.tx.holds(now):  # else it stays in the chip, whose host is then held back
            for run in self._dte.transmit(now):
                self.tx.put(run)
        sent = []
        for item in self.tx.take(now):
            if isinstance(item, Run):
                sent.append(item)
            else:
                self._on_the_way.append(item)
        return sent

    def advance(self, now: int) -> None:
        """Let happen what is due. Raises Unplugged."""
        self._on_the_way += self.rx.take(now)
        while self._on_the_way:
            item = self._on_the_way[0]
            if isinstance(item, Run) and not self._fits(item):
                return
            self._on_the_way.popleft()
            if isinstance(item, Run):
                self._dte.receive(item, now)
            elif isinstance(item, Move):
                self._forced.add(item.line)
                on = item.level == "on"
                if item.level == "flip":
                    on = not self._dte.inputs[item.line]
                self._dte.set_line(item.line, on, now)
            else:
                self._faults.note(now, item.fault, item.position, unplugged(self._dte))
                raise Unplugged

    def _fits(self, run: Run) -> bool:
        return self.uart.paced or len(run.data) <= self._dte.room

    def next_event(self) -> int | None:
        """When transmit() or advance() has something; 0 for at once."""
        chip = None if self.tx.held else self._dte.next_event()
        return min((at for at in (chip, self.next_fault()) if at is not None), default=None)

    def next_fault(self) -> int | None:
        """When advance() has something."""
        if self._on_the_way:
            item = self._on_the_way[0]
            return 0 if not isinstance(item, Run) or self._fits(item) else None
        events = (self.rx.next_event(), self.tx.next_event())
        return min((at for at in events if at is not None), default=None)


def unplugged(dte: Dte, more: int = 0) -> str:
    """What to say of a plug that is pulled; ``more`` bytes to the host had left ``dte``."""
    return f"unplugged; lost in the chip: {len(dte) + more} to the host, {len(dte.uart.tx)} from it"
