# SPDX-License-Identifier: MIT
"""A USB function: descriptors, the standard requests, endpoints that take, give, NAK or stall.

What this models: chapter 9 of the USB 2.0 specification as a host's drivers use it (9.4 requests,
9.6 descriptors), endpoint halt, a NAK each way. A chip derives from Function and adds its own.
Lines: control(), take_out() and give_in() are one transfer or packet of the wire each.
Not modelled: packets of the control pipe, data toggles, suspend, isochronous endpoints, other
alternate settings, more than one configuration; the address is the wire's business.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import ClassVar, NamedTuple

__all__ = ["Function", "Nak", "NeverAnswered", "Setup", "Stall", "endpoint", "interface"]

# bmRequestType, USB 2.0 table 9-2
DEVICE_TO_HOST = 0x80
TYPE, STANDARD = 0x60, 0x00
RECIPIENT = 0x1F
TO_DEVICE, TO_INTERFACE, TO_ENDPOINT = 0, 1, 2
# bRequest, table 9-4
GET_STATUS, CLEAR_FEATURE, SET_FEATURE, SET_ADDRESS = 0, 1, 3, 5
GET_DESCRIPTOR, GET_CONFIGURATION, SET_CONFIGURATION = 6, 8, 9
GET_INTERFACE, SET_INTERFACE = 10, 11
# descriptor types, table 9-5
DEVICE, CONFIGURATION, STRING, INTERFACE, ENDPOINT = 1, 2, 3, 4, 5
# feature selectors, table 9-6
ENDPOINT_HALT, DEVICE_REMOTE_WAKEUP = 0, 1
BULK, INTERRUPT = 2, 3  # bmAttributes of an endpoint, table 9-13
FULL_SPEED = 2  # enum usb_device_speed of linux/usb/ch9.h, which is what USB/IP carries
US_ENGLISH = b"\x09\x04"
LONGEST_STRING = 126  # characters: bLength is one byte
LOG_LENGTH = 1000


class Setup(NamedTuple):
    """The setup packet, USB 2.0 section 9.3."""

    bmRequestType: int
    bRequest: int
    wValue: int
    wIndex: int
    wLength: int


class Stall(Exception):
    """The function answers with STALL: it does not know this request."""


class Nak(Exception):
    """Not yet: the host asks again after the next event."""


class NeverAnswered(Exception):
    """The function says nothing until the host gives up."""


class Function:
    """A device with one configuration. A chip sets the class attributes and overrides the hooks.

    Everything takes ``now``, integer nanoseconds that never go back. Malformed requests raise
    Stall, and are kept in ``stalled``, oldest first.
    """

    idVendor: ClassVar[int]
    idProduct: ClassVar[int]
    bcdDevice: ClassVar[int]
    device_class: ClassVar[tuple[int, int, int]] = (0, 0, 0)  # class, subclass, protocol
    bMaxPacketSize0: ClassVar[int] = 64
    speed: ClassVar[int] = FULL_SPEED
    bmAttributes: ClassVar[int] = 0xA0  # bus powered, remote wakeup
    bMaxPower: ClassVar[int] = 45  # in 2 mA

    def __init__(self, manufacturer: str, product: str, serial: str) -> None:
        self.strings = (manufacturer, product, serial)
        for text in self.strings:
            if len(text.encode("utf-16-le")) > 2 * LONGEST_STRING:
                raise ValueError(f"{text[:20]!r}... is longer than {LONGEST_STRING} characters")
        self.configuration = 0  # what the host chose; 0 until then
        self.remote_wakeup = False
        self.halted: set[int] = set()  # endpoint addresses
        self.stalled: deque[Setup] = deque(maxlen=LOG_LENGTH)
        self.endpoints = _endpoints(self.configuration_descriptor())  # address: wMaxPacketSize

    # what a chip overrides

    def interfaces(self) -> list[bytes]:
        """Each interface's descriptor with all that belongs to it, such as its endpoints'."""
        raise NotImplementedError

    def request(self, setup: Setup, data: bytes, now: int) -> bytes:
        """A class or vendor request. Raises Stall, Nak or NeverAnswered."""
        raise Stall

    def on_out(self, address: int, data: bytes, now: int) -> int:
        """Give how many of these bytes were taken; the others get a NAK and come again."""
        return len(data)

    def on_in(self, address: int, now: int) -> bytes | None:
        """A packet of at most wMaxPacketSize bytes, or None for a NAK."""
        return None

    def on_configured(self, now: int) -> None:
        """The host chose a configuration: what it knew before is over."""

    def on_urb_ended(self, address: int, *, completed: bool) -> None:
        """The URB that was being served at this endpoint is over: answered, or unlinked.

        No chip knows of URBs; this is for whoever counts them.
        """

    def advance(self, now: int) -> None:
        """Let happen what happens by itself until ``now``. Raises firmware.Unplugged.

        To be called before whatever else is called with this ``now``.
        """

    def next_event(self) -> int | None:
        """When to advance() next, in ns; None: not before the host does something.

        What only waits for the host to ask is no event.
        """
        return None

    # what a wire calls

    def control(self, setup: Setup, data: bytes, now: int) -> bytes:
        """A control transfer; ``data`` is that of an OUT one. Give the data of an IN one.

        Raises Stall, Nak or NeverAnswered.
        """
        try:
            inward = setup.bmRequestType & DEVICE_TO_HOST
            if not inward and len(data) != setup.wLength:
                raise Stall
            standard = setup.bmRequestType & TYPE == STANDARD
            answer = self._standard(setup, now) if standard else self.request(setup, data, now)
        except Stall:
            self.stalled.append(setup)
            raise
        return answer[: setup.wLength] if inward else b""

    def take_out(self, address: int, data: bytes, now: int) -> int:
        """The host writes; give how many bytes were taken. Raises Stall."""
        self._check(address)
        return self.on_out(address, data, now)

    def give_in(self, address: int, now: int) -> bytes | None:
        """The host reads: one packet, or None for a NAK. Raises Stall."""
        self._check(address)
        return self.on_in(address, now)

    def _check(self, address: int) -> None:
        if not self.configuration or address not in self.endpoints or address in self.halted:
            raise Stall

    # standard requests

    def _standard(self, setup: Setup, now: int) -> bytes:
        recipient, request = setup.bmRequestType & RECIPIENT, setup.bRequest
        if setup.bmRequestType & DEVICE_TO_HOST:
            if request == GET_DESCRIPTOR and recipient == TO_DEVICE:
                return self._descriptor(setup.wValue >> 8, setup.wValue & 0xFF)
            if request == GET_STATUS:
                return self._status(recipient, setup.wIndex)
            if request == GET_CONFIGURATION and recipient == TO_DEVICE:
                return bytes([self.configuration])
            if request == GET_INTERFACE and recipient == TO_INTERFACE:
                return b"\0"
        elif request == SET_CONFIGURATION and recipient == TO_DEVICE and setup.wValue <= 1:
            self.configuration = setup.wValue
            self.halted.clear()
            self.on_configured(now)
            return b""
        elif request in (SET_FEATURE, CLEAR_FEATURE):
            self._feature(recipient, setup, on=request == SET_FEATURE)
            return b""
        elif (request == SET_ADDRESS and recipient == TO_DEVICE) or (
            request == SET_INTERFACE and recipient == TO_INTERFACE and setup.wValue == 0
        ):
            return b""
        raise Stall

    def _feature(self, recipient: int, setup: Setup, *, on: bool) -> None:
        if recipient == TO_DEVICE and setup.wValue == DEVICE_REMOTE_WAKEUP:
            self.remote_wakeup = on
        elif (
            recipient != TO_ENDPOINT
            or setup.wValue != ENDPOINT_HALT
            or setup.wIndex not in self.endpoints
        ):
            raise Stall
        elif on:
            self.halted.add(setup.wIndex)
        else:
            self.halted.discard(setup.wIndex)

    def _status(self, recipient: int, index: int) -> bytes:
        if recipient == TO_DEVICE:
            return bytes([self.remote_wakeup << 1, 0])
        if recipient == TO_ENDPOINT and index & 0x7F and index not in self.endpoints:
            raise Stall
        return bytes([recipient == TO_ENDPOINT and index in self.halted, 0])

    def _descriptor(self, kind: int, index: int) -> bytes:
        if kind == DEVICE and index == 0:
            return self.device_descriptor()
        if kind == CONFIGURATION and index == 0:
            return self.configuration_descriptor()
        if kind == STRING and index == 0:
            return _string(US_ENGLISH)
        if kind == STRING and index <= len(self.strings):
            return _string(self.strings[index - 1].encode("utf-16-le"))
        raise Stall

    def device_descriptor(self) -> bytes:
        """USB 2.0 table 9-8."""
        ids = (self.idVendor, self.idProduct, self.bcdDevice)
        texts = (index if text else 0 for index, text in enumerate(self.strings, 1))
        head = (18, DEVICE, 0x0200, *self.device_class, self.bMaxPacketSize0)
        return struct.pack("<BBHBBBBHHHBBBB", *head, *ids, *texts, 1)

    def configuration_descriptor(self) -> bytes:
        """USB 2.0 table 9-10, with the interfaces behind it."""
        interfaces = self.interfaces()
        behind = b"".join(interfaces)
        head = (9, CONFIGURATION, 9 + len(behind), len(interfaces), 1, 0)
        return struct.pack("<BBHBBBBB", *head, self.bmAttributes, self.bMaxPower) + behind


def interface(number: int, code: tuple[int, int, int], *behind: bytes, endpoints: int) -> bytes:
    """An interface descriptor (USB 2.0 table 9-12) and what belongs to it."""
    return struct.pack("9B", 9, INTERFACE, number, 0, endpoints, *code, 0) + b"".join(behind)


def endpoint(address: int, kind: int, wMaxPacketSize: int, bInterval: int = 0) -> bytes:
    """An endpoint descriptor (USB 2.0 table 9-13); ``kind`` is BULK or INTERRUPT."""
    return struct.pack("<BBBBHB", 7, ENDPOINT, address, kind, wMaxPacketSize, bInterval)


def _endpoints(configuration: bytes) -> dict[int, int]:
    found = {}
    at = 0
    while at < len(configuration):
        if configuration[at + 1] == ENDPOINT:
            found[configuration[at + 2]] = int.from_bytes(configuration[at + 4 : at + 6], "little")
        at += configuration[at]
    return found


def _string(text: bytes) -> bytes:
    return bytes([2 + len(text), STRING]) + text
