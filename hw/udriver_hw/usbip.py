# SPDX-License-Identifier: MIT
"""The USB/IP protocol, device's end: bytes in, bytes out; no socket, no thread, no clock.

1. A URB waits in its endpoint's queue until the function gives or takes enough; only the head of
   a queue is served. Replies leave in the order in which they were made.
2. Whoever owns a session calls it from one thread, so an UNLINK never meets a completion under
   way: either the URB still waits, and goes with -ECONNRESET, or its reply is out already.
3. A stream that makes no sense is over (ProtocolError): nothing behind it can be trusted. What
   makes sense but is not to be had is answered with -EPIPE, as a stall.
Source: Documentation/usb/usbip_protocol.rst of Linux, drivers/usb/usbip/usbip_common.h.
Not modelled: isochronous transfers (answered with -EPIPE), the import handshake, which an attach
through sysfs does not have.
"""

from __future__ import annotations

import errno
import struct
from collections import defaultdict, deque

from udriver_hw.chips.usb import Function, Nak, NeverAnswered, Setup, Stall

__all__ = ["ProtocolError", "Session"]

HEADER = 48  # bytes, of all four
CMD_SUBMIT, CMD_UNLINK, RET_SUBMIT, RET_UNLINK = 1, 2, 3, 4
DIRECTION_IN = 1
LONGEST_URB = 1 << 20  # bytes; a serial driver's are under 64 KiB
MOST_PENDING = 4096
MOST_ISO_PACKETS, ISO_PACKET = 1024, 16
NO_ISO = (0, -1)  # what kernels send; the document says the latter


class ProtocolError(Exception):
    """What came is no USB/IP."""


class _Urb:
    def __init__(self, seqnum: int, address: int, length: int, data: bytes, setup: bytes) -> None:
        self.seqnum = seqnum
        self.address = address  # bit 7: towards the host
        self.length = length
        self.data = bytearray(data)  # of an OUT one what was not taken yet, of an IN one what came
        self.setup = setup


class Session:
    """One host that has ``function`` plugged in. feed() it, pump() it, send what is in ``output``."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.output = bytearray()
        self._input = bytearray()
        self._pending: dict[int, _Urb] = {}
        self._queues: defaultdict[int, deque[_Urb]] = defaultdict(deque)

    def __len__(self) -> int:
        return len(self._pending)

    def feed(self, data: bytes) -> None:
        """Bytes from the host. Raises ProtocolError."""
        self._input += data
        while len(self._input) >= HEADER:
            whole = self._command(bytes(self._input[:HEADER]))
            if whole is None:
                return
            del self._input[:whole]

    def pump(self, now: int) -> bool:
        """Serve what can be served now; give whether anything moved. advance() comes first."""
        moved = False
        for queue in self._queues.values():
            while queue and self._serve(queue[0], now):
                moved = True
        return moved

    # commands

    def _command(self, header: bytes) -> int | None:
        """Take one command; give its length with what follows it, None if that is not there yet."""
        command, seqnum, _devid, direction, number = struct.unpack_from(">5I", header)
        if command == CMD_UNLINK:
            self._unlink(seqnum, struct.unpack_from(">I", header, 20)[0])
            return HEADER
        if command != CMD_SUBMIT or number > 15 or direction > 1:
            raise ProtocolError(f"command {command}, endpoint {number}, direction {direction}")
        length, _start, packets = struct.unpack_from(">3i", header, 24)
        if not 0 <= length <= LONGEST_URB or not -1 <= packets <= MOST_ISO_PACKETS:
            raise ProtocolError(f"a URB of {length} bytes and {packets} packets")
        behind = 0 if direction == DIRECTION_IN else int(length)
        whole = HEADER + behind + ISO_PACKET * max(0, int(packets))
        if len(self._input) < whole:
            return None
        if seqnum in self._pending or len(self._pending) >= MOST_PENDING:
            raise ProtocolError(f"seqnum {seqnum} is pending, as are {len(self._pending)} in all")
        address = number | (direction << 7 if number else 0)
        data = bytes(self._input[HEADER : HEADER + behind])
        urb = _Urb(seqnum, address, length, data, header[40:])
        self._pending[seqnum] = urb
        misled = not number and length > 0 and urb.setup[0] >> 7 != direction
        if packets not in NO_ISO or misled:
            self._complete(urb, -errno.EPIPE)
        else:
            self._queues[address].append(urb)
        return whole

    def _unlink(self, seqnum: int, victim: int) -> None:
        urb = self._pending.pop(victim, None)
        if urb is not None and urb in self._queues[urb.address]:  # one never answered is in none
            served = self._queues[urb.address][0] is urb
            self._queues[urb.address].remove(urb)
            if served:
                self.function.on_urb_ended(urb.address, completed=False)
        status = 0 if urb is None else -errno.ECONNRESET
        self.output += struct.pack(">5Ii24x", RET_UNLINK, seqnum, 0, 0, 0, status)

    # service

    def _serve(self, urb: _Urb, now: int) -> bool:
        """Whether anything moved."""
        try:
            if not urb.address:
                return self._control(urb, now)
            return (self._in if urb.address & 0x80 else self._out)(urb, now)
        except Stall:
            self._complete(urb, -errno.EPIPE)
        except Nak:
            return False
        return True

    def _control(self, urb: _Urb, now: int) -> bool:
        setup = Setup(*struct.unpack("<BBHHH", urb.setup))
        try:
            answer = self.function.control(setup, bytes(urb.data), now)
        except NeverAnswered:
            self._queues[0].popleft()  # it stays pending, and holds up no other
            self.function.on_urb_ended(0, completed=True)
            return True
        answer = answer[: urb.length]
        self._complete(urb, 0, answer, None if setup.bmRequestType & 0x80 else urb.length)
        return True

    def _in(self, urb: _Urb, now: int) -> bool:
        packet = self.function.give_in(urb.address, now)
        if packet is None:
            return False
        urb.data += packet
        if len(urb.data) > urb.length:
            self._complete(urb, -errno.EOVERFLOW, bytes(urb.data[: urb.length]))
        elif len(packet) < self.function.endpoints[urb.address] or len(urb.data) == urb.length:
            self._complete(urb, 0, bytes(urb.data))
        return True

    def _out(self, urb: _Urb, now: int) -> bool:
        taken = self.function.take_out(urb.address, bytes(urb.data), now)
        del urb.data[:taken]
        if not urb.data:
            self._complete(urb, 0, actual=urb.length)
        return taken > 0 or not urb.data

    def _complete(
        self, urb: _Urb, status: int, data: bytes = b"", actual: int | None = None
    ) -> None:
        del self._pending[urb.seqnum]
        queue = self._queues[urb.address]
        if queue and queue[0] is urb:
            queue.popleft()
            self.function.on_urb_ended(urb.address, completed=True)
        length = len(data) if actual is None else actual
        head = (RET_SUBMIT, urb.seqnum, 0, 0, 0, status, length, 0, 0, 0)
        self.output += struct.pack(">5I5i8x", *head) + data
