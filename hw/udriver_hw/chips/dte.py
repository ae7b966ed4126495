# SPDX-License-Identifier: MIT
"""The serial side of a USB-serial chip: a UART, its errors, its modem lines, its flow control.

What this models: TXD by chips/uart (the line's pace); at RXD characters with the line status that
came with them (16550 LSR bits, the only language of errors that all these chips share); CTS, DSR,
RI and DCD in; DTR and RTS out; break each way; RTS/CTS, DTR/DSR and XON/XOFF flow control.
Lines: a cable (chips/cable) calls transmit(), receive() and set_line(); the chip does the rest.
Not modelled: voltages; XON and XOFF of our own do not wait for the character being shifted out.
"""

from __future__ import annotations

from collections import deque
from enum import Flag, auto
from typing import NamedTuple

from udriver_hw.chips.uart import Uart

__all__ = ["BREAK", "FRAMING", "INPUTS", "OVERRUN", "PARITY", "Dte", "Flow", "Run"]

# line status bits of the 16550 (LSR 1 to 4), of the FTDI chips too
OVERRUN, PARITY, FRAMING, BREAK = 0x02, 0x04, 0x08, 0x10
INPUTS = ("cts", "dsr", "ri", "dcd")
# Our choice, of no datasheet: RTS or DTR falls, or XOFF is sent, with a quarter of the FIFO left.
LOW_WATER = 4


class Flow(Flag):
    """Who may hold whom back: an input TXD, an output the far end. IXON and IXOFF as in termios."""

    NONE = 0
    CTS = auto()
    RTS = auto()
    DSR = auto()
    DTR = auto()
    IXON = auto()  # an XOFF that comes stops TXD
    IXOFF = auto()  # we send XOFF when we are full
    RTS_CTS = RTS | CTS
    DTR_DSR = DTR | DSR
    XON_XOFF = IXON | IXOFF

    def __str__(self) -> str:
        return PAIRS.get(self) or "+".join(str(flag.name).lower() for flag in self)


PAIRS = {
    Flow.NONE: "none",
    Flow.RTS_CTS: "rts/cts",
    Flow.DTR_DSR: "dtr/dsr",
    Flow.XON_XOFF: "xon/xoff",
}


class Run(NamedTuple):
    """Characters that share a line status, so that a megabyte is not a million objects."""

    data: bytes
    status: int = 0


class Dte:
    """A UART with modem lines. ``now`` is in ns and never goes back.

    ``fed`` bytes fit between USB and TXD, ``kept`` between RXD and USB. Unpaced, a character takes
    no time, and a cable holds back what does not fit instead of letting it overrun.
    """

    def __init__(self, *, fed: int, kept: int, paced: bool = False) -> None:
        self.uart = Uart(fed, paced=paced)
        self.kept = kept
        self.listening = True  # else what comes to RXD is lost: the chip's UART is off
        self.parity = "N"  # N, O, E, M or S; Framing knows only whether there is one
        self.flow = Flow.NONE
        self.xon, self.xoff = 0x11, 0x13
        self.inputs = dict.fromkeys(INPUTS, False)
        self.changed: set[str] = set()  # inputs that moved; the chip clears it as it tells the host
        self.overruns = 0
        self.purges = 0  # how often purge_received() was called
        self._dtr = self._rts = False
        self._breaking = False
        self._runs: deque[Run] = deque()
        self._held = 0  # bytes in _runs
        self._lost = False  # since the last run that was kept
        self._stopped = False  # by an XOFF
        self._stopped_by_hand = False
        self._urgent = bytearray()  # XON and XOFF of our own
        self._sent_xoff = False
        self._break_to_send: list[Run] = []

    # the chip's side

    def write(self, data: bytes, now: int) -> int:
        """Feed TXD; give how many bytes there was room for."""
        return self.uart.write(data, now)

    def read(self, count: int, now: int) -> Run:
        """Up to ``count`` good characters, or one with an error; an empty run if there are none."""
        if not self._runs:
            return Run(b"")
        data, status = self._runs[0]
        count = 1 if status else count
        if len(data) <= count:
            self._runs.popleft()
        else:
            # the overrun belongs to the first of them
            self._runs[0] = Run(data[count:], status & ~OVERRUN)
            data = data[:count]
        self._held -= len(data)
        self._steer(now)
        return Run(data, status)

    def head(self) -> Run:
        """What read() would begin with."""
        return self._runs[0] if self._runs else Run(b"")

    def __len__(self) -> int:
        return self._held

    @property
    def mixed(self) -> bool:
        """Whether characters of another status wait behind those of head()."""
        return len(self._runs) > 1

    def set_outputs(self, now: int, *, dtr: bool | None = None, rts: bool | None = None) -> None:
        """What the host wants of DTR and RTS."""
        self._dtr = self._dtr if dtr is None else dtr
        self._rts = self._rts if rts is None else rts
        self._steer(now)

    def set_break(self, on: bool, now: int) -> None:
        """Hold TXD low, or let it go. What is in the FIFO waits meanwhile."""
        if on and not self._breaking:
            self._break_to_send.append(Run(b"\0", BREAK))
        self._breaking = on
        self._steer(now)

    def set_hold(self, on: bool, now: int) -> None:
        """Hold TXD back for a reason of the far end's own, whatever the flow control."""
        self._stopped_by_hand = on
        self._steer(now)

    def set_flow(self, flow: Flow, now: int) -> None:
        """Another flow control; an XOFF that was received counts no more."""
        self.flow = flow
        self._stopped = self._sent_xoff = False
        self._steer(now)

    def purge_received(self, now: int) -> None:
        """Drop what came from RXD and the host has not taken."""
        self._runs.clear()
        self._held = 0
        self.purges += 1
        self._steer(now)

    # the cable's side

    @property
    def dtr(self) -> bool:
        """The DTR pin: what the host wants, or less while we hold the far end back by it."""
        return self._dtr and not (Flow.DTR in self.flow and self._full)

    @property
    def rts(self) -> bool:
        """The RTS pin, likewise."""
        return self._rts and not (Flow.RTS in self.flow and self._full)

    @property
    def breaking(self) -> bool:
        """Whether TXD is held low."""
        return self._breaking

    @property
    def stopped(self) -> bool:
        """Whether an XOFF holds TXD back."""
        return self._stopped

    @property
    def room(self) -> int:
        """Characters RXD has room for."""
        return self.kept - self._held

    def transmit(self, now: int) -> list[Run]:
        """What left TXD by ``now``."""
        sent = [Run(bytes(self._urgent))] if self._urgent else []
        self._urgent.clear()
        data = self.uart.transmit(now)
        if data:
            sent.append(Run(data))
        sent += self._break_to_send
        self._break_to_send.clear()
        return sent

    def next_event(self) -> int | None:
        """When transmit() has something; 0 for at once."""
        return 0 if self._urgent or self._break_to_send else self.uart.next_event()

    def receive(self, run: Run, now: int) -> None:
        """Characters at RXD; those there is no room for are lost, and the next one kept says so."""
        if not self.listening:
            return
        data = self._without_xon_xoff(run.data, now) if Flow.IXON in self.flow else run.data
        fits = data[: self.room]
        if fits:
            self._keep(Run(fits, run.status))
        if len(fits) < len(data):
            self.overruns += len(data) - len(fits)
            self._lost = True
        self._steer(now)

    def set_line(self, name: str, on: bool, now: int) -> None:
        """Move an input: "cts", "dsr", "ri" or "dcd"."""
        if self.inputs[name] != on:
            self.inputs[name] = on
            self.changed.add(name)
            self._steer(now)

    # inside

    @property
    def _full(self) -> bool:
        return self.room * LOW_WATER < self.kept

    def _keep(self, run: Run) -> None:
        self._held += len(run.data)
        if self._lost:
            self._lost = False
            run = Run(run.data, run.status | OVERRUN)
        if self._runs and not run.status and not self._runs[-1].status:
            run = Run(self._runs.pop().data + run.data)
        self._runs.append(run)

    def _without_xon_xoff(self, data: bytes, now: int) -> bytes:
        last = max(data.rfind(self.xon), data.rfind(self.xoff))
        if last >= 0:
            self._stopped = data[last] == self.xoff
        return bytes(byte for byte in data if byte not in (self.xon, self.xoff))

    def _steer(self, now: int) -> None:
        """Hold TXD back, or the far end, as the flow control says."""
        self.uart.hold(
            self._breaking
            or self._stopped
            or self._stopped_by_hand
            or (Flow.CTS in self.flow and not self.inputs["cts"])
            or (Flow.DSR in self.flow and not self.inputs["dsr"]),
            now,
        )
        if Flow.IXOFF in self.flow and self._full != self._sent_xoff:
            self._sent_xoff = self._full
            self._urgent.append(self.xoff if self._full else self.xon)
