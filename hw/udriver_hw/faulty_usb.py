# SPDX-License-Identifier: MIT
"""Faults around a USB chip: of its line (faulty_end), of its requests and of its URBs.

1. A URB is met once, when the chip would answer it: an IN one with its first packet, an OUT one
   with its first byte. So an idle host meets nothing.
2. What was to go into a URB that is stalled goes into the next one.
3. A stall does not halt the endpoint: the chip takes the next URB as if its firmware had cleared it.
Not modelled: faults of interrupt endpoints, and of standard requests unless they are named.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from udriver_hw.chips.cable import Jumpered
from udriver_hw.chips.firmware import Unplugged
from udriver_hw.chips.usb import (
    BULK,
    ENDPOINT,
    STANDARD,
    TYPE,
    Nak,
    NeverAnswered,
    Setup,
    Stall,
)
from udriver_hw.chips.usb_serial import UsbSerial
from udriver_hw.fault_lane import Cursor
from udriver_hw.faults import NSEC_PER_MSEC, Fault, Faults
from udriver_hw.faulty_end import FaultyEnd, unplugged

__all__ = ["FaultyUsb", "faulty"]

Pulled = Callable[[], str]


class Gate:
    """What URBs or requests of one kind go through; ``position`` is the next one's."""

    def __init__(self, faults: Faults, mine: list[Fault], lost: Pulled) -> None:
        self.position = 0
        self.held_until: int | None = None
        self._faults = faults
        self._cursors = [Cursor(fault, faults) for fault in mine]
        self._lost = lost
        self._mute = False

    def enter(self, now: int) -> None:
        """Once passed it stays open until leave(). Raises Stall, Nak, NeverAnswered, Unplugged."""
        if self._mute or (self.held_until is not None and now < self.held_until):
            raise Nak
        self.held_until = None
        for cursor in self._cursors:
            if cursor.at == self.position:
                cursor.hit()
                self._act(cursor.fault, now)

    def leave(self, *, completed: bool) -> None:
        """That one is over."""
        self.position += completed
        self.held_until = None

    def _act(self, fault: Fault, now: int) -> None:
        if fault.kind == "unplug":
            self._faults.note(now, fault, self.position, self._lost())
            raise Unplugged
        if fault.kind == "delay":
            self._faults.note(now, fault, self.position, f"{fault.number} ms")
            self.held_until = now + fault.number * NSEC_PER_MSEC
            raise Nak
        if fault.kind == "stall":
            self._faults.note(now, fault, self.position, "stalled")
            raise Stall
        self._faults.note(now, fault, self.position, "mute")
        if fault.unit == "urb":
            self._mute = True  # this one and all behind it
            raise Nak
        raise NeverAnswered


class FaultyUsb(UsbSerial):
    """A chip behind ``faults``: to be mixed in in front of its class, which faulty() does."""

    def __init__(self, *arguments: Any, faults: Faults, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.faults = faults
        self.line = FaultyEnd(self.dte, faults)
        self.end = self.line
        self.cable = Jumpered(self.end)
        self._stashed: dict[int, tuple[bytes, int]] = {}  # a packet, and the characters in it
        self._purges = self.dte.purges
        self._now = 0
        self._gates = {
            address: self._gate("urb", "rx" if address & 0x80 else "tx") for address in _bulk(self)
        }
        self._requests = self._gate("request", "rx")
        self._setups = {
            fault.setup: self._gate("setup", "rx", fault.setup)
            for fault in faults.faults
            if fault.unit == "setup"
        }
        self._asked: list[Gate] = []  # that the request under way has to pass

    def _gate(self, unit: str, way: str, setup: tuple[int, int] = (0, 0)) -> Gate:
        mine = [
            fault
            for fault in self.faults.faults
            if (fault.unit, fault.way, fault.setup) == (unit, way, setup)
        ]
        return Gate(self.faults, mine, self._lost)

    def _lost(self) -> str:
        return unplugged(self.dte, sum(length for _, length in self._stashed.values()))

    # the wire's side

    def control(self, setup: Setup, data: bytes, now: int) -> bytes:
        """Through the gates first. Raises Unplugged, too."""
        if not self._asked:
            named = self._setups.get((setup.bmRequestType, setup.bRequest))
            counted = self._requests if setup.bmRequestType & TYPE != STANDARD else None
            self._asked = [gate for gate in (counted, named) if gate is not None]
        try:
            for gate in self._asked:
                gate.enter(now)
        except Stall:
            self.stalled.append(setup)
            raise
        return super().control(setup, data, now)

    def take_out(self, address: int, data: bytes, now: int) -> int:
        """Through the gate first. Raises Nak and Unplugged, too."""
        if address in self._gates and address not in self.halted:
            self._gates[address].enter(now)
        return super().take_out(address, data, now)

    def give_in(self, address: int, now: int) -> bytes | None:
        """Through the gate once there is something to give. Raises Nak and Unplugged, too."""
        if self.dte.purges != self._purges:  # what waits here is of the chip's FIFO, too
            self._stashed.clear()
            self._purges = self.dte.purges
        if address not in self._stashed:
            before = len(self.dte)
            packet = super().give_in(address, now)
            if packet is None or address not in self._gates:
                return packet
            self._stashed[address] = packet, before - len(self.dte)
        self._check(address)
        self._gates[address].enter(now)
        return self._stashed.pop(address)[0]

    def on_urb_ended(self, address: int, *, completed: bool) -> None:
        """Count it."""
        super().on_urb_ended(address, completed=completed)
        if not address:
            for gate in self._asked:
                gate.leave(completed=completed)
            self._asked = []
        elif address in self._gates:
            self._gates[address].leave(completed=completed)

    def on_configured(self, now: int) -> None:
        """What waited is gone."""
        super().on_configured(now)
        self._stashed.clear()

    def advance(self, now: int) -> None:
        """Faults that are due at a time come first, those that the bytes met come behind."""
        self._now = now
        self.line.advance(now)
        super().advance(now)
        self.line.advance(now)

    def next_event(self) -> int | None:
        """The chip's, the line's, or the end of a delay."""
        gates = [*self._gates.values(), self._requests, *self._setups.values()]
        held = [gate.held_until for gate in gates]
        ends = [at for at in held if at is not None and at > self._now]
        events = (super().next_event(), self.line.next_fault(), *ends)
        return min((at for at in events if at is not None), default=None)

    def state(self) -> dict[str, Any]:
        """With the faults: how often each happened, and the log."""
        counts = {fault.text: self.faults.counts[fault.text] for fault in self.faults.faults}
        return super().state() | {"faults": counts, "injected": list(self.faults.log)}


def _bulk(chip: UsbSerial) -> list[int]:
    """Addresses of its bulk endpoints."""
    descriptors, at, found = chip.configuration_descriptor(), 0, []
    while at < len(descriptors):
        if descriptors[at + 1] == ENDPOINT and descriptors[at + 3] & 3 == BULK:
            found.append(descriptors[at + 2])
        at += descriptors[at]
    return found


def faulty(make: Callable[..., UsbSerial], faults: Faults) -> Callable[..., FaultyUsb]:
    """The class ``make`` with faults in front; call it as ``make``."""
    assert isinstance(make, type)
    mixed = type(f"Faulty{make.__name__}", (FaultyUsb, make), {})
    return lambda *arguments, **options: cast(
        FaultyUsb, mixed(*arguments, faults=faults, **options)
    )
