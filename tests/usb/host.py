# SPDX-License-Identifier: MIT
"""A host for one chip in a test: no kernel, no socket, and the time is whatever the test says."""

from __future__ import annotations

from udriver_hw.chips.cable import Jumpered
from udriver_hw.chips.cdc_acm import CdcAcm
from udriver_hw.chips.cp210x import Cp210x
from udriver_hw.chips.ft232r import Ft232r
from udriver_hw.chips.usb import Setup, Stall
from udriver_hw.chips.usb_serial import UsbSerial

MS = 1_000_000  # ns


class Host:
    """Configures ``chip`` and asks of it; ``now`` only goes forward."""

    def __init__(self, chip: UsbSerial, now: int = 0) -> None:
        self.chip = chip
        self.now = now
        chip.advance(now)
        self.standard(0x00, 9, value=1)

    def standard(
        self, kind: int, request: int, value: int = 0, index: int = 0, length: int = 0
    ) -> bytes:
        """One control transfer without data to the chip."""
        setup = Setup(kind, request, value, index, length)
        return self.chip.control(setup, b"", self.now)

    def send(
        self, kind: int, request: int, value: int = 0, data: bytes = b"", index: int = 0
    ) -> None:
        """One control transfer with data to the chip; what it set off on the line has happened."""
        self.chip.control(Setup(kind, request, value, index, len(data)), data, self.now)
        self.chip.advance(self.now)

    def order(self, request: int, value: int = 0, index: int = 0) -> None:
        """A vendor request, as ftdi_sio sends it."""
        self.standard(0x40, request, value, index)

    def ask(self, request: int, length: int, index: int = 0) -> bytes:
        """A vendor request that has an answer."""
        return self.standard(0xC0, request, 0, index, length)

    def at(self, now: int) -> None:
        """Let time pass, from event to event as a wire does."""
        self.chip.advance(self.now)  # what the test has done to the cable meanwhile
        while (event := self.chip.next_event()) is not None and event <= now:
            assert event > self.now, "an event that is no news: a wire would spin"
            self.now = event
            self.chip.advance(event)
        self.now = now
        self.chip.advance(now)

    def write(self, data: bytes) -> int:
        """Bulk OUT; give how many bytes were taken."""
        taken = self.chip.take_out(0x02, data, self.now)
        self.chip.advance(self.now)
        return taken

    def read(self) -> bytes | None:
        """Bulk IN, one packet."""
        packet = self.chip.give_in(0x81, self.now)
        self.chip.advance(self.now)
        return packet

    def told(self) -> bytes | None:
        """Interrupt IN, one packet."""
        packet = self.chip.give_in(0x83, self.now)
        self.chip.advance(self.now)
        return packet

    def packets(self) -> list[bytes]:
        """All packets there are now."""
        found = []
        while (packet := self.read()) is not None:
            found.append(packet)
        return found

    def until_packet(self, end: int) -> bytes:
        """Poll at each event until a packet comes; ``now`` is then when it left."""
        while (packet := self.read()) is None:
            event = self.chip.next_event()
            assert event is not None, "nothing will ever come"
            assert event <= end, f"nothing before {event} ns"
            self.at(event)
        return packet

    def drain(self) -> bytes:
        """All packets there are now, without their status bytes."""
        return b"".join(packet[2:] for packet in self.packets())


def stalls(
    host: Host,
    kind: int,
    request: int,
    value: int = 0,
    index: int = 0,
    length: int = 0,
    data: bytes = b"",
) -> bool:
    """Whether this control transfer is stalled."""
    try:
        host.chip.control(Setup(kind, request, value, index, length or len(data)), data, host.now)
    except Stall:
        return True
    return False


def ft232r(**options: bool) -> Host:
    """A host with one of ours."""
    return Host(Ft232r("UDTEST01", **options))


def cp210x(**options: bool) -> Host:
    """A host with one of ours, its UART switched on."""
    host = Host(Cp210x("UDTEST01", **options))
    host.send(0x41, 0x00, 1)
    return host


def cdc_acm(**options: bool) -> Host:
    """A host with one of ours."""
    return Host(CdcAcm("UDTEST01", **options))


def jumper(host: Host) -> Jumpered:
    """What is on the chip's line."""
    cable = host.chip.cable
    assert isinstance(cable, Jumpered)
    return cable


def plain_and_whole(host: Host) -> None:
    """All 256 characters come back over the jumper as they are; a full packet is followed by a short one."""
    everything = bytes(range(256))
    assert host.write(everything) == 256
    packets = host.packets()
    assert [len(packet) for packet in packets] == [64] * 4 + [0]
    assert b"".join(packets) == everything
    host.write(b"short")
    assert host.packets() == [b"short"]
