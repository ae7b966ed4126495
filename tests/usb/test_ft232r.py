# SPDX-License-Identifier: MIT
"""The FT232R: requests, status bytes, FIFOs, errors, flow control, its EEPROM."""

from __future__ import annotations

import struct
from fractions import Fraction

import pytest

from tests.usb.host import MS, ft232r, stalls
from udriver_hw.chips.cable import Jumpered
from udriver_hw.chips.dte import BREAK, FRAMING, OVERRUN, PARITY
from udriver_hw.chips.ft232r_baud import baudrate

(RESET, MODEM_CTRL, SET_FLOW, SET_BAUD, SET_DATA, GET_STATUS, SET_EVENT, SET_ERROR) = range(8)
SET_LATENCY, GET_LATENCY, SET_BITMODE, READ_PINS = range(9, 13)
READ_EEPROM = 0x90
IDLE = 0x60  # THRE and TEMT


# what ftdi_sio sends for a rate (drivers/usb/serial/ftdi_sio.c, ftdi_232bm_baud_to_divisor), and
# what AN232B-05 says comes of it
@pytest.mark.parametrize(
    ("value", "index", "rate"),
    [
        (0x2710, 0, Fraction(300)),
        (0x4138, 0, Fraction(9600)),  # 312.5
        (0x001A, 0, Fraction(3_000_000, 26)),  # 115200 becomes 115384.6
        (0x4034, 0, Fraction(3_000_000 * 2, 105)),  # 57600 becomes 57142.9
        (0x000D, 0, Fraction(3_000_000, 13)),  # 230400 becomes 230769
        (0xC006, 0, Fraction(24_000_000, 49)),  # 6 and an eighth
        (0x8006, 0, Fraction(24_000_000, 50)),
        (0x0006, 1, Fraction(24_000_000, 51)),
        (0x4006, 0, Fraction(24_000_000, 52)),
        (0x4006, 1, Fraction(24_000_000, 53)),
        (0x8006, 1, Fraction(24_000_000, 54)),
        (0xC006, 1, Fraction(24_000_000, 55)),
        (0x0003, 0, Fraction(1_000_000)),
        (0x0001, 0, Fraction(2_000_000)),
        (0x0000, 0, Fraction(3_000_000)),
    ],
)
def test_divisors(value: int, index: int, rate: Fraction) -> None:
    assert baudrate(value, index) == rate
    host = ft232r()
    host.order(SET_BAUD, value, index)
    assert host.chip.dte.uart.framing.baudrate == rate


def test_status_bytes_follow_the_lines() -> None:
    host = ft232r()
    assert host.ask(GET_STATUS, 2) == bytes([0x01, IDLE])
    for name, bit in {"cts": 0x10, "dsr": 0x20, "ri": 0x40, "dcd": 0x80}.items():
        host.chip.dte.set_line(name, True, host.now)
        assert host.read() == bytes([0x01 | bit, IDLE])  # a packet of its own, and at once
        host.chip.dte.set_line(name, False, host.now)
        assert host.read() == bytes([0x01, IDLE])
        assert host.read() is None


def test_modem_control_moves_one_line_or_both() -> None:
    host = ft232r()
    pins = []
    for value in (0x0101, 0x0202, 0x0100, 0x0303, 0x0200, 0x0003):
        host.order(MODEM_CTRL, value)
        pins.append((host.chip.dte.dtr, host.chip.dte.rts))
    on, off = True, False
    assert pins == [(on, off), (on, on), (off, on), (on, on), (on, off), (on, off)]


@pytest.mark.parametrize(
    ("value", "looks"),
    [
        (8, "8N1"), (7 | 2 << 8, "7E1"), (8 | 1 << 8 | 2 << 11, "8O2"), (7 | 3 << 8, "7M1"),
        (8 | 4 << 8, "8S1"), (8 | 1 << 11, "8N1.5"),
    ],
)  # fmt: skip
def test_line_settings(value: int, looks: str) -> None:
    host = ft232r()
    host.order(SET_DATA, value)
    assert host.chip.state()["format"] == looks


@pytest.mark.parametrize("value", [5, 6, 9, 8 | 5 << 8, 8 | 3 << 11])
def test_settings_that_the_chip_has_not_are_stalled(value: int) -> None:
    host = ft232r()
    assert stalls(host, 0x40, SET_DATA, value)
    assert host.chip.state()["format"] == "8N1"


def test_more_than_62_bytes_come_in_packets_of_64() -> None:
    host = ft232r()
    data = bytes(range(200))
    sent, packets = 0, []
    while sent < len(data) or packets[-1] is not None:
        sent += host.write(data[sent:])
        packets.append(host.read())
        if packets[-1] is None:
            host.at(host.now + 16 * MS)
            packets.append(host.read())
            break
    assert [len(packet) for packet in packets if packet] == [64, 64, 64, 16]
    assert b"".join(packet[2:] for packet in packets if packet) == data


def test_the_host_is_held_back_by_whole_packets_when_128_bytes_wait() -> None:
    host = ft232r(paced=True)
    assert host.write(bytes(300)) == 128
    assert host.write(bytes(64)) == 0
    host.at(63 * 86_806)  # ns a character: 63 have left, so a packet is one byte too long
    assert host.write(bytes(64)) == 0
    host.at(64 * 86_806)
    assert host.write(bytes(300)) == 64


def test_characters_take_as_long_as_the_line_says() -> None:
    host = ft232r(paced=True)
    host.order(SET_BAUD, 0x4138)  # 9600: 1.0417 ms a character
    host.order(SET_LATENCY, 1)
    host.write(b"U")
    assert host.until_packet(end=20 * MS)[2:] == b"U"
    assert host.now == 2 * MS  # there at 1.0417 ms, and the timer's next tick is at 2


def test_temt_says_when_the_last_bit_has_left() -> None:
    host = ft232r(paced=True)
    host.order(SET_BAUD, 0x4138)
    host.write(b"abc")
    seen = []
    for microseconds in (0, 2000, 2084, 3124, 3126):
        host.at(microseconds * 1000)
        seen.append(host.ask(GET_STATUS, 2)[1])
    assert seen == [0x00, 0x00, 0x20, 0x20, 0x60]


@pytest.mark.parametrize("status", [PARITY, FRAMING, BREAK, PARITY | FRAMING])
def test_an_error_has_a_packet_of_its_own(status: int) -> None:
    host = ft232r()
    cable = host.chip.cable
    assert isinstance(cable, Jumpered)
    cable.say(b"ab")
    cable.say(b"\0", status)
    cable.say(b"cd")
    host.at(host.now)
    packets = [host.read(), host.read()]
    host.at(host.now + 16 * MS)
    packets.append(host.read())
    assert packets == [b"\x01\x60ab", bytes([1, IDLE | status, 0]), b"\x01\x60cd"]


def test_each_of_several_errors_is_told() -> None:
    host = ft232r()
    cable = host.chip.cable
    assert isinstance(cable, Jumpered)
    cable.say(b"xyz", PARITY)
    host.at(host.now)
    assert [host.read() for _ in range(4)] == [
        bytes([1, IDLE | PARITY, byte]) for byte in b"xyz"
    ] + [None]


def test_256_bytes_wait_for_the_host_and_the_next_one_is_an_overrun() -> None:
    host = ft232r(paced=True)
    cable = host.chip.cable
    assert isinstance(cable, Jumpered)
    cable.say(bytes(300))
    host.at(host.now)
    assert host.chip.dte.overruns == 44
    cable.say(b"!")
    packets = [host.read() for _ in range(4)]
    assert [len(packet or b"") for packet in packets] == [64] * 4
    host.at(host.now + 16 * MS)
    packets += [host.read(), host.read()]
    assert packets[4] == bytes([1, IDLE]) + bytes(8)
    assert packets[5] == bytes([1, IDLE | OVERRUN]) + b"!"


def test_break_out_reaches_the_far_end_once_and_stops_the_transmitter() -> None:
    host = ft232r()
    host.order(SET_DATA, 8 | 1 << 14)
    host.at(host.now)
    assert host.read() == bytes([1, IDLE | BREAK, 0])  # round the jumper
    host.write(b"late")
    host.at(host.now + 100 * MS)
    assert host.drain() == b""
    host.order(SET_DATA, 8)
    host.at(host.now)
    host.at(host.now + 16 * MS)
    assert host.drain() == b"late"


@pytest.mark.parametrize(("mode", "line"), [(1, "cts"), (2, "dsr")])
def test_a_line_that_is_off_holds_txd_back(mode: int, line: str) -> None:
    host = ft232r()
    host.order(SET_FLOW, 0, mode << 8)
    assert host.write(b"abc") == 3
    host.at(50 * MS)
    assert host.drain() == b""
    host.chip.dte.set_line(line, True, host.now)
    host.at(70 * MS)
    assert host.drain() == b"abc"


@pytest.mark.parametrize(("mode", "pin"), [(1, "rts"), (2, "dtr")])
def test_a_full_fifo_holds_the_far_end_back(mode: int, pin: str) -> None:
    host = ft232r(paced=True)
    cable = host.chip.cable
    assert isinstance(cable, Jumpered)
    host.order(MODEM_CTRL, 0x0303)
    host.order(SET_FLOW, 0, mode << 8)
    seen = []
    for _ in range(4):
        seen.append(getattr(host.chip.dte, pin))
        cable.say(bytes(64))
        host.at(host.now)
    seen.append(getattr(host.chip.dte, pin))
    host.drain()
    assert [*seen, getattr(host.chip.dte, pin)] == [True, True, True, True, False, True]
    assert host.chip.dte.overruns == 0


def test_xoff_stops_txd_and_xon_lets_it_go_and_neither_is_data() -> None:
    host = ft232r()
    cable = host.chip.cable
    assert isinstance(cable, Jumpered)
    cable.joined = False
    host.order(SET_FLOW, 0x1311, 4 << 8)
    cable.say(b"a\x13b")
    host.at(host.now)
    host.write(b"held")
    host.at(20 * MS)
    assert (host.drain(), bytes(cable.heard)) == (b"ab", b"")
    cable.say(b"\x11")
    host.at(host.now)
    host.at(host.now)
    assert bytes(cable.heard) == b"held"


def test_a_full_fifo_sends_xoff_and_an_empty_one_xon() -> None:
    host = ft232r(paced=True)
    cable = host.chip.cable
    assert isinstance(cable, Jumpered)
    cable.joined = False
    host.order(SET_FLOW, 0x1311, 4 << 8)
    cable.say(b"x" * 250)
    host.at(host.now)
    assert bytes(cable.heard) == b"\x13"
    host.drain()
    host.at(host.now + 20 * MS)
    assert bytes(cable.heard) == b"\x13\x11"


def test_purges_empty_what_they_say() -> None:
    host = ft232r(paced=True)
    cable = host.chip.cable
    assert isinstance(cable, Jumpered)
    cable.say(b"in")
    host.write(b"out")
    host.order(RESET, 2)
    assert host.ask(GET_STATUS, 2)[1] == IDLE
    host.at(host.now + 16 * MS)
    assert host.drain() == b"in"
    cable.say(b"in")
    host.at(host.now)
    host.write(b"out")
    host.order(RESET, 1)
    host.at(host.now + 40 * MS)
    assert host.drain() == b"out"


def test_the_eeprom_has_ids_strings_and_its_checksum() -> None:
    host = ft232r()
    words = [host.ask(READ_EEPROM, 2, index) for index in range(64)]
    data = b"".join(words)
    assert struct.unpack_from("<HHH", data, 2) == (0x0403, 0x6001, 0x0600)
    at, length = data[0x12] & 0x7F, data[0x13]
    assert data[at + 2 : at + length].decode("utf-16-le") == "UDTEST01"
    total = 0xAAAA
    for word in words[:63]:
        total ^= int.from_bytes(word, "little")
        total = (total << 1 | total >> 15) & 0xFFFF
    assert total == int.from_bytes(words[63], "little")
    assert stalls(host, 0xC0, READ_EEPROM, 0, 64, 2)


@pytest.mark.parametrize("request_", [8, 13, 0x91, 0x92, 0xFF])
def test_what_no_linux_driver_sends_is_stalled(request_: int) -> None:
    host = ft232r()
    assert stalls(host, 0x40, request_)
    assert stalls(host, 0xC0, request_, length=2)
    assert [setup.bRequest for setup in host.chip.stalled] == [request_, request_]


def test_what_ftdi_sio_sends_is_not() -> None:
    host = ft232r()
    for request, value, index in [
        (RESET, 0, 0), (MODEM_CTRL, 0x0303, 0), (SET_FLOW, 0, 0), (SET_BAUD, 26, 0),
        (SET_DATA, 8, 0), (SET_EVENT, 0, 0), (SET_ERROR, 0, 0), (SET_LATENCY, 16, 0),
        (SET_BITMODE, 0x2000, 0),
    ]:  # fmt: skip
        host.order(request, value, index)
    assert host.ask(GET_LATENCY, 1) == b"\x10"
    assert host.ask(READ_PINS, 1) == b"\0"
    assert not host.chip.stalled
