# SPDX-License-Identifier: MIT
"""A microcontroller's USB-serial function of the standard class, as the Linux driver cdc_acm knows it.

What this models: USB CDC PSTN 1.2: the descriptors of an Abstract Control Model (5.3, and 5.2.3 of
CDC 1.2); SET_ and GET_LINE_CODING, SET_CONTROL_LINE_STATE and SEND_BREAK (6.3);
SERIAL_STATE (6.5.4, in chips/cdc_acm_state). A break that comes is a notification and no character.
Lines: those of ``dte``, on whatever ``cable`` joins it to. The class has no bit for CTS and no flow
control but NAKs: CTS and RTS hold nobody back.
Not modelled: 16 data bits, encapsulated commands, COMM features, call management. Requests that no
Linux driver sends are stalled, but for GET_LINE_CODING, which the class demands.
Our choice, of no datasheet: 256 bytes from the host and 512 to it, any rate from 1 baud on, and
ids of pid.codes' test range, as drivers bind by the class.
"""

from __future__ import annotations

import struct
from typing import Any

from udriver_hw.chips.cdc_acm_state import INTERVAL, SerialState
from udriver_hw.chips.dte import BREAK
from udriver_hw.chips.uart import Framing
from udriver_hw.chips.usb import BULK, INTERRUPT, Setup, Stall, endpoint, interface
from udriver_hw.chips.usb_serial import UsbSerial

__all__ = ["CdcAcm"]

IN, OUT, NOTIFY = 0x81, 0x02, 0x83
PACKET, NOTIFICATION = 64, 16  # bytes; SERIAL_STATE has 10
FROM_HOST, TO_HOST = 256, 512  # bytes
# class and subclass codes: CDC 1.2, section 4
COMMUNICATION, ABSTRACT_CONTROL, DATA = 0x02, 0x02, 0x0A
CS_INTERFACE = 0x24
HEADER, CALL_MANAGEMENT, ACM, UNION = 0x00, 0x01, 0x02, 0x06  # CDC 1.2, 5.2.3
LINE_REQUESTS, BREAK_REQUEST = 0x02, 0x04  # bmCapabilities of ACM, PSTN 1.2 table 4
# bmRequestType and bRequest, PSTN 1.2, 6.3
WRITE, READ = 0x21, 0xA1
SET_LINE_CODING, GET_LINE_CODING, SET_CONTROL_LINE_STATE, SEND_BREAK = 0x20, 0x21, 0x22, 0x23
STOPBITS = (1, 1.5, 2)
FRESH = struct.pack("<I3B", 9600, 0, 0, 8)
DTR, RTS = 0x01, 0x02
UNTIL_TOLD = 0xFFFF  # wValue of SEND_BREAK; others are ms
NSEC_PER_MSEC = 1_000_000


class CdcAcm(UsbSerial):
    """One function. Raises ValueError for strings that are too long."""

    idVendor, idProduct, bcdDevice = 0x1209, 0x0001, 0x0100
    device_class = (COMMUNICATION, 0, 0)
    bmAttributes, bMaxPower = 0x80, 50

    def __init__(
        self,
        serial: str = "0001",
        *,
        product: str = "CDC-ACM",
        manufacturer: str = "udriver",
        paced: bool = False,
    ) -> None:
        strings = (manufacturer, product, serial)
        super().__init__(strings, fed=FROM_HOST, kept=TO_HOST, paced=paced)
        self._state = SerialState(self.dte)
        self._break_ends: int | None = None
        self._now = 0
        self._set_line_coding(FRESH, 0)

    def interfaces(self) -> list[bytes]:
        """One for requests and notifications, one for data."""
        functional = (
            bytes([5, CS_INTERFACE, HEADER, 0x20, 0x01]),  # CDC 1.2
            bytes([5, CS_INTERFACE, CALL_MANAGEMENT, 0, 1]),
            bytes([4, CS_INTERFACE, ACM, LINE_REQUESTS | BREAK_REQUEST]),
            bytes([5, CS_INTERFACE, UNION, 0, 1]),
        )
        told = endpoint(NOTIFY, INTERRUPT, NOTIFICATION, INTERVAL)
        pipes = endpoint(IN, BULK, PACKET), endpoint(OUT, BULK, PACKET)
        return [
            interface(0, (COMMUNICATION, ABSTRACT_CONTROL, 0), *functional, told, endpoints=1),
            interface(1, (DATA, 0, 0), *pipes, endpoints=2),
        ]

    # endpoints

    def on_in(self, address: int, now: int) -> bytes | None:
        """A notification, or characters; one with an error has a packet of its own."""
        if address == NOTIFY:
            return self._state.notification()
        if self._state.holds(now) or self.dte.head().status & BREAK:
            return self.ended(address, b"")
        run = self.dte.read(PACKET, now)
        if run.status:
            self._state.add(run.status, now)
        return self.ended(address, run.data)

    def advance(self, now: int) -> None:
        """Let characters arrive, and breaks come and end. Raises firmware.Unplugged."""
        self._now = now
        if self._break_ends is not None and now >= self._break_ends:
            self._send_break(0, now)
        super().advance(now)
        # behind the packet that ends what was before it, so that the host has both in order
        while self.dte.head().status & BREAK and not (self.owes or self._state.holds(now)):
            self._state.add(self.dte.read(1, now).status, now)
            super().advance(now)  # there is room for one more

    def next_event(self) -> int | None:
        """The cable's, the end of a break, or of the wait behind an error."""
        held = self._state.held_until if len(self.dte) and self._state.holds(self._now) else None
        events = (super().next_event(), self._break_ends, held)
        return min((at for at in events if at is not None), default=None)

    def on_configured(self, now: int) -> None:
        """As after power-on."""
        self._set_line_coding(FRESH, now)
        self._send_break(0, now)
        self.dte.set_outputs(now, dtr=False, rts=False)
        self.dte.purge_received(now)
        self.dte.uart.purge(now)
        self._state.reset()

    def state(self) -> dict[str, Any]:
        """With the last SERIAL_STATE's lines."""
        return super().state() | {"serial_state": self._state.told}

    # class requests

    def request(self, setup: Setup, data: bytes, now: int) -> bytes:
        """What cdc_acm sends, and GET_LINE_CODING, which the class demands."""
        kind, request, value, index, _length = setup
        if index:
            raise Stall  # requests go to the first interface
        if (kind, request, value) == (READ, GET_LINE_CODING, 0):
            return self._line_coding
        if (kind, request, value, len(data)) == (WRITE, SET_LINE_CODING, 0, 7):
            self._set_line_coding(data, now)
        elif (kind, request, len(data)) == (WRITE, SET_CONTROL_LINE_STATE, 0):
            self.dte.set_outputs(now, dtr=bool(value & DTR), rts=bool(value & RTS))
        elif (kind, request, len(data)) == (WRITE, SEND_BREAK, 0):
            self._send_break(value, now)
        else:
            raise Stall
        return b""

    def _set_line_coding(self, data: bytes, now: int) -> None:
        rate, stop, parity, databits = struct.unpack("<I3B", data)
        if not rate or stop >= len(STOPBITS) or parity >= 5 or not 5 <= databits <= 8:
            raise Stall
        self._line_coding = data
        self.dte.parity = "NOEMS"[parity]
        self.dte.uart.set_framing(Framing(rate, databits, bool(parity), STOPBITS[stop]), now)

    def _send_break(self, value: int, now: int) -> None:
        timed = 0 < value < UNTIL_TOLD
        self._break_ends = now + value * NSEC_PER_MSEC if timed else None
        self.dte.set_break(value > 0, now)
