# SPDX-License-Identifier: MIT
"""What joins the serial side of a chip to something: to itself, to a second chip, to a firmware.

What this models: characters with their errors and breaks, DTR and RTS as the other end sees them,
a wire that can be cut. Two ends that disagree on the line hear what a UART would sample.
Lines: step() moves all that moved by now; next_event() says when something will.
Not modelled: length, noise; ends that disagree by more than a character's length each (a sender
so slow that the receiver sees several characters in one gives one of them).
"""

from __future__ import annotations

from collections import deque
from fractions import Fraction
from typing import Protocol

from udriver_hw.chips.dte import BREAK, FRAMING, PARITY, Run
from udriver_hw.chips.firmware import Firmware
from udriver_hw.chips.uart import Framing, Uart

__all__ = ["Cable", "End", "FarEnd", "Jumpered", "NullModem", "OneEnded"]


class End(Protocol):
    """What a cable needs to know of a chip: its dte, or what stands in front of that."""

    @property
    def uart(self) -> Uart:
        """For the line's settings."""
        ...

    @property
    def parity(self) -> str:
        """N, O, E, M or S."""
        ...

    @property
    def dtr(self) -> bool:
        """The DTR pin."""
        ...

    @property
    def rts(self) -> bool:
        """The RTS pin."""
        ...

    @property
    def room(self) -> int:
        """Characters RXD has room for."""
        ...

    def set_line(self, name: str, on: bool, now: int) -> None:
        """Move an input."""
        ...

    def transmit(self, now: int) -> list[Run]:
        """What left TXD by ``now``."""
        ...

    def receive(self, run: Run, now: int) -> None:
        """Characters at RXD."""
        ...

    def next_event(self) -> int | None:
        """When transmit() has something; 0 for at once."""
        ...


class Cable(Protocol):
    """What a chip needs to know of its cable."""

    def step(self, now: int) -> None:
        """Move what moved by ``now``. Raises firmware.Unplugged if a script says so."""
        ...

    def next_event(self) -> int | None:
        """When to step again, in ns; None: not before the chip does something."""
        ...


class OneEnded:
    """A cable of one chip: say() speaks from its far end."""

    def __init__(self, end: End) -> None:
        self.end = end
        self._wire: deque[Run] = deque()  # what is on its way to RXD

    def say(self, data: bytes, status: int = 0) -> None:
        """Send these to the chip, with the errors in ``status``."""
        self._wire.append(Run(data, status))


class Jumpered(OneEnded):
    """TXD wired to RXD, and no line to any other.

    While ``joined`` is false the wire is cut, and what left TXD is kept in ``heard``.
    """

    def __init__(self, end: End) -> None:
        super().__init__(end)
        self.joined = True
        self.heard = bytearray()

    def step(self, now: int) -> None:
        """Around."""
        while True:
            _deliver(self._wire, self.end, now)
            if self._wire:
                return  # no room: what is behind waits in the chip
            sent = self.end.transmit(now)
            if not sent:
                return
            for run in sent:
                if self.joined:
                    self._wire.append(run)
                else:
                    self.heard += run.data

    def next_event(self) -> int | None:
        """At once while something is on the wire and would fit."""
        return _when(self._wire, self.end)


class FarEnd(OneEnded):
    """A firmware of chips/firmware at the far end; it hears no break and makes no error."""

    def __init__(self, end: End, firmware: Firmware) -> None:
        super().__init__(end)
        self._firmware = firmware

    def step(self, now: int) -> None:
        """There and back, until nothing moves."""
        while True:
            _deliver(self._wire, self.end, now)
            if self._wire:
                return
            sent = self.end.transmit(now)
            for run in sent:
                if not run.status:
                    self._firmware.receive(run.data, now)
            answer = self._firmware.transmit(now)
            if answer:
                self._wire.append(Run(answer))
            elif not sent:
                return

    def next_event(self) -> int | None:
        """The chip's, or the firmware's."""
        if self._wire:
            return _when(self._wire, self.end)
        return _first(self.end.next_event(), self._firmware.next_event())


class NullModem:
    """Two chips: TXD to RXD, RTS to CTS, DTR to DSR and DCD, each way."""

    def __init__(self, one: End, other: End) -> None:
        self._ways = ((one, other, deque[Run]()), (other, one, deque[Run]()))

    def step(self, now: int) -> None:
        """Both ways, until nothing moves: what one end heard may let the other go on."""
        while any(self._move(*way, now) for way in self._ways):
            pass

    def _move(self, sender: End, receiver: End, wire: deque[Run], now: int) -> bool:
        receiver.set_line("cts", sender.rts, now)
        receiver.set_line("dsr", sender.dtr, now)
        receiver.set_line("dcd", sender.dtr, now)
        moved = _deliver(wire, receiver, now)
        if not wire:
            for run in sender.transmit(now):
                wire.extend(_heard(run, sender, receiver))
            moved = _deliver(wire, receiver, now) or moved
        return moved

    def next_event(self) -> int | None:
        """Of either end."""
        return _first(*(_when(wire, sender, receiver) for sender, receiver, wire in self._ways))


def _deliver(wire: deque[Run], end: End, now: int) -> bool:
    """Put at RXD what is on the wire; unpaced no more than fits. Give whether anything moved."""
    moved = False
    while wire and (end.uart.paced or end.room):
        data, status = wire.popleft()
        if not end.uart.paced and len(data) > end.room:
            wire.appendleft(Run(data[end.room :], status))
            data = data[: end.room]
        end.receive(Run(data, status), now)
        moved = True
    return moved


def _when(wire: deque[Run], sender: End, receiver: End | None = None) -> int | None:
    if wire:
        return 0 if (receiver or sender).room else None
    return sender.next_event()


def _first(*events: int | None) -> int | None:
    return min((at for at in events if at is not None), default=None)


def _heard(run: Run, sender: End, receiver: End) -> list[Run]:
    """The run as ``receiver`` samples it: whole if both are set alike."""
    lines = (sender.uart.framing, sender.parity), (receiver.uart.framing, receiver.parity)
    if lines[0] == lines[1] or run.status & BREAK:
        return [run]
    heard = (sample(byte, *lines[0], *lines[1]) for byte in run.data)
    return [Run(bytes([byte]), errors) for byte, errors in heard]


def sample(
    byte: int, framing: Framing, parity: str, at_framing: Framing, at_parity: str
) -> tuple[int, int]:
    """One character of a line with ``framing``, sampled in the middle of each bit of another's.

    Give the byte and the line status. Before and after the character the line is idle.
    """
    levels = [0, *bits_of(byte, framing, parity), 1]
    bit = Fraction(1) / framing.baudrate
    at_bit = Fraction(1) / at_framing.baudrate

    def level(index: int) -> int:
        at = int((index + Fraction(1, 2)) * at_bit / bit)
        return levels[at] if at < len(levels) else 1

    count = at_framing.databits
    value = sum(level(1 + index) << index for index in range(count))
    status, behind = 0, 1 + count
    if at_parity != "N":
        expected = bits_of(value, at_framing, at_parity)[-1]
        status |= PARITY * (level(behind) != expected)
        behind += 1
    status |= FRAMING * (level(behind) == 0)
    return value, status


def bits_of(byte: int, framing: Framing, parity: str) -> list[int]:
    """The data bits, lowest first, and the parity bit if there is one."""
    bits = [byte >> index & 1 for index in range(framing.databits)]
    odd = sum(bits) & 1
    return bits + {"N": [], "E": [odd], "O": [1 - odd], "M": [1], "S": [0]}[parity]
