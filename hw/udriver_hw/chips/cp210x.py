# SPDX-License-Identifier: MIT
"""Silicon Labs' CP2102, as the Linux driver cp210x knows it: 10c4:ea60, part number 2.

What this models: AN571 "CP210x virtual COM port interface", section 5: IFC_ENABLE (5.1), line
control (5.7), SET_MHS (5.9), GET_MDMSTS (5.10), SET_BREAK (5.20), PURGE (5.27), baud rate,
SET_CHARS, flow control (tables 9 to 11), GET_COMM_STATUS (table 8), EMBED_EVENTS; the rates
(chips/cp210x_baud); what goes to the host (chips/cp210x_events); the buffers of the data sheet,
640 bytes from the host and 576 to it. While IFC_ENABLE is off so is the UART: what comes to RXD is
lost, and the host gets NAKs.
Lines: those of ``dte``, on whatever ``cable`` joins it to.
Not modelled: ulErrors (0), XON and XOFF limits (kept, but chips/dte has its own), suspend.
Stalled, as requests that no Linux driver sends to a CP2102 are: handshake by DCD, DSR sensitivity,
replacing characters, RTS while transmitting, customising the EEPROM. The count of what waits to be
sent includes the character that is being shifted out.
"""

from __future__ import annotations

import struct
from functools import reduce
from operator import or_
from typing import Any

from udriver_hw.chips import cp210x_baud, cp210x_events
from udriver_hw.chips.dte import Flow
from udriver_hw.chips.uart import Framing
from udriver_hw.chips.usb import BULK, Setup, Stall, endpoint, interface
from udriver_hw.chips.usb_serial import UsbSerial

__all__ = ["Cp210x"]

IN, OUT, PACKET = 0x81, 0x02, 64
FROM_HOST, TO_HOST = 640, 576  # bytes
LONGEST_SERIAL = 63  # characters
# bmRequestType and bRequest, AN571, section 5
WRITE, READ, READ_DEVICE = 0x41, 0xC1, 0xC0
IFC_ENABLE, SET_LINE_CTL, GET_LINE_CTL, SET_BREAK = 0x00, 0x03, 0x04, 0x05
SET_MHS, GET_MDMSTS, GET_COMM_STATUS, PURGE = 0x07, 0x08, 0x10, 0x12
SET_FLOW, GET_FLOW, EMBED_EVENTS, SET_CHARS = 0x13, 0x14, 0x15, 0x19
GET_BAUDRATE, SET_BAUDRATE, VENDOR_SPECIFIC = 0x1D, 0x1E, 0xFF
GET_PARTNUM, CP2102 = 0x370B, 0x02  # wValue of VENDOR_SPECIFIC, and the answer
STOPBITS = (1, 1.5, 2)
# SET_MHS and GET_MDMSTS
DTR, RTS, DTR_MASK, RTS_MASK = 0x0001, 0x0002, 0x0100, 0x0200
MODEM_BITS = {"cts": 0x10, "dsr": 0x20, "ri": 0x40, "dcd": 0x80}
PURGE_TX, PURGE_RX = 0b0101, 0b1010
# ulControlHandshake and ulFlowReplace of SET_FLOW; DTR is bits 0 and 1, RTS is bits 6 and 7
INACTIVE, BY_THE_CHIP = 0, 2  # 1 is active
HANDSHAKES = {0x08: Flow.CTS, 0x10: Flow.DSR}
REPLACEMENTS = {0x01: Flow.IXON, 0x02: Flow.IXOFF}
# ulHoldReasons of GET_COMM_STATUS
CTS_LOW, DSR_LOW, XOFF_CAME, BREAK_HELD = 0x01, 0x02, 0x08, 0x20


class Cp210x(UsbSerial):
    """One chip. Raises ValueError for strings that are too long."""

    idVendor, idProduct, bcdDevice = 0x10C4, 0xEA60, 0x0100
    bmAttributes, bMaxPower = 0x80, 50

    def __init__(
        self,
        serial: str = "0001",
        *,
        product: str = "CP2102 USB to UART Bridge Controller",
        manufacturer: str = "Silicon Labs",
        paced: bool = False,
    ) -> None:
        if len(serial) > LONGEST_SERIAL:
            raise ValueError(f"a CP2102's serial has no more than {LONGEST_SERIAL} characters")
        strings = (manufacturer, product, serial)
        super().__init__(strings, fed=FROM_HOST, kept=TO_HOST, paced=paced)
        self._power_on(0)

    def _power_on(self, now: int) -> None:
        self._escape: int | None = None
        self._line_ctl = 0x0800  # 8N1
        self._baudrate = 115200
        self._flow = bytes(16)
        self.dte.set_flow(Flow.NONE, now)
        self.dte.set_outputs(now, dtr=False, rts=False)
        self._enable(False, now)
        self._frame(now)

    def interfaces(self) -> list[bytes]:
        """One, of the vendor's class, with a bulk endpoint each way."""
        pipes = endpoint(IN, BULK, PACKET), endpoint(OUT, BULK, PACKET)
        return [interface(0, (0xFF, 0, 0), *pipes, endpoints=2)]

    def on_out(self, address: int, data: bytes, now: int) -> int:
        """Nothing while the UART is off."""
        return super().on_out(address, data, now) if self.enabled else 0

    def on_in(self, address: int, now: int) -> bytes | None:
        """What was received, with events in it if the host wants them."""
        return self.ended(address, cp210x_events.packet(self.dte, self._escape, PACKET, now))

    def on_configured(self, now: int) -> None:
        """As after power-on."""
        self._power_on(now)

    def state(self) -> dict[str, Any]:
        """With the UART's switch, and whether events are embedded."""
        events = self._escape is not None
        return super().state() | {"enabled": self.enabled, "embed_events": events}

    # vendor requests

    def request(self, setup: Setup, data: bytes, now: int) -> bytes:
        """What cp210x sends to a CP2102."""
        if setup.wIndex:
            raise Stall  # there is one interface
        if setup.bmRequestType == WRITE and data:
            self._settings(setup, data, now)
        elif setup.bmRequestType == WRITE:
            self._order(setup.bRequest, setup.wValue, now)
        elif setup.bmRequestType == READ:
            return self._answer(setup.bRequest)
        elif setup[:3] == (READ_DEVICE, VENDOR_SPECIFIC, GET_PARTNUM):
            # a second byte if asked: by that the driver knows a genuine one, which has events
            return bytes([CP2102, 0])
        else:
            raise Stall
        return b""

    def _answer(self, request: int) -> bytes:
        if request == GET_LINE_CTL:
            return struct.pack("<H", self._line_ctl)
        if request == GET_BAUDRATE:
            return struct.pack("<I", self._baudrate)
        if request == GET_MDMSTS:
            inputs = sum(bit for name, bit in MODEM_BITS.items() if self.dte.inputs[name])
            return bytes([inputs | DTR * self.dte.dtr | RTS * self.dte.rts])
        if request == GET_FLOW:
            return self._flow
        if request == GET_COMM_STATUS:
            waiting = len(self.dte), len(self.dte.uart.tx)
            return struct.pack("<4I3x", 0, self._hold_reasons(), *waiting)
        raise Stall

    def _hold_reasons(self) -> int:
        dte = self.dte
        return (
            CTS_LOW * (Flow.CTS in dte.flow and not dte.inputs["cts"])
            | DSR_LOW * (Flow.DSR in dte.flow and not dte.inputs["dsr"])
            | XOFF_CAME * dte.stopped
            | BREAK_HELD * dte.breaking
        )

    def _order(self, request: int, value: int, now: int) -> None:
        if request == IFC_ENABLE and value <= 1:
            self._enable(bool(value), now)
        elif request == SET_LINE_CTL:
            self._set_line_ctl(value, now)
        elif request == SET_BREAK and value <= 1:
            self.dte.set_break(bool(value), now)
        elif request == SET_MHS:
            dtr = bool(value & DTR) if value & DTR_MASK else None
            rts = bool(value & RTS) if value & RTS_MASK else None
            self.dte.set_outputs(now, dtr=dtr, rts=rts)
        elif request == PURGE and value <= PURGE_TX | PURGE_RX:
            self._purge(value, now)
        elif request == EMBED_EVENTS and value <= 0xFF:
            self._escape = value or None
            self.dte.changed.clear()
        else:
            raise Stall

    def _settings(self, setup: Setup, data: bytes, now: int) -> None:
        shape = (setup.bRequest, setup.wValue, len(data))
        if shape == (SET_BAUDRATE, 0, 4):
            self._baudrate = cp210x_baud.nominal(int.from_bytes(data, "little"))
            self._frame(now)
        elif shape == (SET_FLOW, 0, 16):
            self._set_flow(data, now)
        elif shape == (SET_CHARS, 0, 6):
            *_eof_error_break_event, self.dte.xon, self.dte.xoff = data
        else:
            raise Stall

    def _enable(self, on: bool, now: int) -> None:
        self.enabled = self.dte.listening = on
        if not on:
            self._escape = None
            self.dte.set_break(False, now)
            self._purge(PURGE_TX | PURGE_RX, now)

    def _purge(self, what: int, now: int) -> None:
        if what & PURGE_TX:
            self.dte.uart.purge(now)
        if what & PURGE_RX:
            self.dte.purge_received(now)

    def _set_line_ctl(self, value: int, now: int) -> None:
        stop, parity, databits = value & 0xF, value >> 4 & 0xF, value >> 8
        if stop >= len(STOPBITS) or parity >= 5 or not 5 <= databits <= 8:
            raise Stall
        self._line_ctl = value
        self._frame(now)

    def _frame(self, now: int) -> None:
        stop, parity, databits = (
            self._line_ctl & 0xF,
            self._line_ctl >> 4 & 0xF,
            self._line_ctl >> 8,
        )
        self.dte.parity = "NOEMS"[parity]
        rate = cp210x_baud.actual(self._baudrate)
        self.dte.uart.set_framing(Framing(rate, databits, bool(parity), STOPBITS[stop]), now)

    def _set_flow(self, data: bytes, now: int) -> None:
        control, replacement, *_limits = struct.unpack("<4I", data)
        dtr, rts = control & 3, replacement >> 6 & 3
        others = control & ~(3 | sum(HANDSHAKES)) | replacement & ~(0xC0 | sum(REPLACEMENTS))
        if others or dtr > BY_THE_CHIP or rts > BY_THE_CHIP:
            raise Stall
        chosen = [flow for bit, flow in HANDSHAKES.items() if control & bit]
        chosen += [flow for bit, flow in REPLACEMENTS.items() if replacement & bit]
        chosen += [Flow.DTR] * (dtr == BY_THE_CHIP) + [Flow.RTS] * (rts == BY_THE_CHIP)
        flow = reduce(or_, chosen, Flow.NONE)
        self._flow = data
        self.dte.set_outputs(now, dtr=dtr != INACTIVE, rts=rts != INACTIVE)
        if flow != self.dte.flow:  # the driver sends it for DTR and RTS too: an XOFF still holds
            self.dte.set_flow(flow, now)
