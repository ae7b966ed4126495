# SPDX-License-Identifier: MIT
"""FTDI's FT232R, as the Linux driver ftdi_sio knows it: 0403:6001, bcdDevice 0x0600.

What this models: the FIFOs (FT232R data sheet, "Functional block descriptions": 128 bytes from
the host, 256 to it); the two status bytes that begin each packet; the latency timer
(chips/ft232r_latency); the divisors (chips/ft232r_baud); the EEPROM (chips/ft232r_eeprom); the vendor requests of drivers/usb/serial/
ftdi_sio.h; modem lines, break, line errors and flow control (chips/dte).
Lines: those of ``dte``, on whatever ``cable`` joins it to.
Not modelled: bit-bang and CBUS pins (the mode is kept, the pins read 0), the error character,
writing the EEPROM, other clocks. Requests that no Linux driver sends are stalled.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from udriver_hw.chips import ft232r_eeprom
from udriver_hw.chips.dte import Flow
from udriver_hw.chips.ft232r_baud import baudrate
from udriver_hw.chips.ft232r_latency import Latency
from udriver_hw.chips.uart import Framing
from udriver_hw.chips.usb import BULK, Setup, Stall, endpoint, interface
from udriver_hw.chips.usb_serial import UsbSerial

__all__ = ["Ft232r"]

IN, OUT, PACKET = 0x81, 0x02, 64
FROM_HOST, TO_HOST = 128, 256  # bytes
# bmRequestType and bRequest, ftdi_sio.h
WRITE, READ = 0x40, 0xC0
RESET, MODEM_CTRL, SET_FLOW_CTRL, SET_BAUD_RATE, SET_DATA, GET_MODEM_STATUS = range(6)
SET_EVENT_CHAR, SET_ERROR_CHAR = 6, 7
SET_LATENCY_TIMER, GET_LATENCY_TIMER, SET_BITMODE, READ_PINS = range(9, 13)
READ_EEPROM = 0x90
RESET_SIO, PURGE_RX, PURGE_TX = range(3)  # wValue of RESET; RX is towards the host
SET_DTR_HIGH, SET_RTS_HIGH, DTR_MASK, RTS_MASK = 0x0001, 0x0002, 0x0100, 0x0200
SET_BREAK = 1 << 14  # in wValue of SET_DATA
FLOWS = {0: Flow.NONE, 1: Flow.RTS_CTS, 2: Flow.DTR_DSR, 4: Flow.XON_XOFF}  # high byte of wIndex
STOPBITS = (1, 1.5, 2)
# the status bytes, ftdi_sio.h
RESERVED = 0x01
MODEM_BITS = {"cts": 0x10, "dsr": 0x20, "ri": 0x40, "dcd": 0x80}
THRE, TEMT = 0x20, 0x40


class Ft232r(UsbSerial):
    """One chip. ``chatty``: see chips/ft232r_latency.

    Raises ValueError if the strings do not fit into the EEPROM.
    """

    idVendor, idProduct, bcdDevice = 0x0403, 0x6001, 0x0600

    def __init__(
        self,
        serial: str = "UD232R01",
        *,
        product: str = "FT232R USB UART",
        manufacturer: str = "FTDI",
        paced: bool = False,
        chatty: bool = False,
    ) -> None:
        strings = (manufacturer, product, serial)
        super().__init__(strings, fed=FROM_HOST, kept=TO_HOST, paced=paced)
        self.latency = Latency(self.dte, chatty=chatty)
        ids = (self.idVendor, self.idProduct, self.bcdDevice)
        power = (self.bmAttributes, self.bMaxPower)
        self.eeprom = ft232r_eeprom.image(ids, power, self.strings)
        self.bitmode = 0

    def interfaces(self) -> list[bytes]:
        """One, of the vendor's class, with a bulk endpoint each way."""
        pipes = endpoint(IN, BULK, PACKET), endpoint(OUT, BULK, PACKET)
        return [interface(0, (0xFF, 0xFF, 0xFF), *pipes, endpoints=2)]

    # bulk endpoints

    def on_in(self, address: int, now: int) -> bytes | None:
        """The two status bytes and up to 62 characters."""
        run = self.latency.packet(now)
        return None if run is None else self.status(run.status) + run.data

    def status(self, errors: int = 0) -> bytes:
        """Modem status and line status, now."""
        modem = sum(bit for name, bit in MODEM_BITS.items() if self.dte.inputs[name])
        waiting = len(self.dte.uart.tx)
        return bytes([RESERVED | modem, errors | THRE * (waiting <= 1) | TEMT * (not waiting)])

    def advance(self, now: int) -> None:
        """Let characters arrive. Raises firmware.Unplugged."""
        super().advance(now)
        self.latency.advance(now)

    def next_event(self) -> int | None:
        """The cable's, or the end of the latency timer."""
        events = (super().next_event(), self.latency.next_event())
        return min((at for at in events if at is not None), default=None)

    def state(self) -> dict[str, Any]:
        """With the latency timer, in ms."""
        return super().state() | {"latency_timer": self.latency.milliseconds}

    def on_configured(self, now: int) -> None:
        """As after power-on."""
        self._reset(RESET_SIO, now)

    # vendor requests

    def request(self, setup: Setup, data: bytes, now: int) -> bytes:
        """What ftdi_sio sends."""
        if setup.bmRequestType == READ:
            return self._answer(setup)
        if setup.bmRequestType != WRITE or setup.wLength:
            raise Stall
        self._order(setup.bRequest, setup.wValue, setup.wIndex, now)
        return b""

    def _answer(self, setup: Setup) -> bytes:
        if setup.bRequest == GET_MODEM_STATUS:
            return self.status()
        if setup.bRequest == GET_LATENCY_TIMER:
            return bytes([self.latency.milliseconds])
        if setup.bRequest == READ_EEPROM and setup.wIndex < len(self.eeprom) // 2:
            return self.eeprom[2 * setup.wIndex : 2 * setup.wIndex + 2]
        if setup.bRequest == READ_PINS:
            return b"\0"
        raise Stall

    def _order(self, request: int, value: int, index: int, now: int) -> None:
        if request == RESET and value <= PURGE_TX:
            self._reset(value, now)
        elif request == MODEM_CTRL:
            dtr = bool(value & SET_DTR_HIGH) if value & DTR_MASK else None
            rts = bool(value & SET_RTS_HIGH) if value & RTS_MASK else None
            self.dte.set_outputs(now, dtr=dtr, rts=rts)
        elif request == SET_FLOW_CTRL and index >> 8 in FLOWS:
            self.dte.xon, self.dte.xoff = value & 0xFF, value >> 8
            self.dte.set_flow(FLOWS[index >> 8], now)
        elif request == SET_BAUD_RATE:
            self._frame(now, baudrate(value, index))
        elif request == SET_DATA:
            self._set_data(value, now)
        elif request == SET_EVENT_CHAR:
            self.latency.event_character = value & 0xFF if value & 0x100 else None
        elif request == SET_LATENCY_TIMER and value <= 255:
            self.latency.milliseconds = value
        elif request == SET_BITMODE:
            self.bitmode = value
        elif request != SET_ERROR_CHAR:
            raise Stall

    def _reset(self, what: int, now: int) -> None:
        if what != PURGE_TX:
            self.dte.purge_received(now)
            self.latency.reset(now)
        if what != PURGE_RX:
            self.dte.uart.purge(now)

    def _set_data(self, value: int, now: int) -> None:
        databits, parity, stop = value & 0xFF, value >> 8 & 7, value >> 11 & 3
        if databits not in (7, 8) or parity >= 5 or stop >= 3:
            raise Stall
        self.dte.parity = "NOEMS"[parity]
        framing = self.dte.uart.framing
        self.dte.uart.set_framing(
            Framing(framing.baudrate, databits, bool(parity), STOPBITS[stop]), now
        )
        self.dte.set_break(bool(value & SET_BREAK), now)

    def _frame(self, now: int, rate: Fraction) -> None:
        framing = self.dte.uart.framing
        self.dte.uart.set_framing(
            Framing(rate, framing.databits, framing.parity, framing.stopbits), now
        )
