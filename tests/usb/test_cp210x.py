# SPDX-License-Identifier: MIT
"""The CP2102: requests, rates, modem lines, events among the data, errors, flow control."""

from __future__ import annotations

import struct
from fractions import Fraction

import pytest

from tests.usb.host import MS, Host, cp210x, jumper, plain_and_whole, stalls
from udriver_hw.chips.cp210x import Cp210x
from udriver_hw.chips.cp210x_baud import actual, nominal
from udriver_hw.chips.dte import BREAK, FRAMING, OVERRUN, PARITY

WRITE, READ = 0x41, 0xC1
IFC_ENABLE, SET_LINE_CTL, GET_LINE_CTL, SET_BREAK, SET_MHS, GET_MDMSTS = 0, 3, 4, 5, 7, 8
GET_COMM_STATUS, PURGE, SET_FLOW, GET_FLOW, EMBED_EVENTS, SET_CHARS = 16, 18, 19, 20, 21, 25
GET_BAUDRATE, SET_BAUDRATE, VENDOR = 0x1D, 0x1E, 0xFF
PARTNUM, ESCAPE = 0x370B, 0xEC


def status(host: Host) -> tuple[int, int, int, int]:
    """Errors, hold reasons, characters towards the host and from it."""
    answer = host.standard(READ, GET_COMM_STATUS, length=19)
    assert len(answer) == 19
    errors, holds, received, waiting = struct.unpack("<4I3x", answer)
    return errors, holds, received, waiting


def flow(control: int = 0, replacement: int = 0) -> bytes:
    return struct.pack("<4I", control, replacement, 128, 128)


def test_the_descriptors_are_those_that_cp210x_looks_for() -> None:
    host = cp210x()
    device = host.standard(0x80, 6, 0x0100, length=18)
    assert device.hex(" ") == "12 01 00 02 00 00 00 40 c4 10 60 ea 00 01 01 02 03 01"
    pipes = host.standard(0x80, 6, 0x0200, length=255)[9:]
    assert pipes.hex(" ") == (
        "09 04 00 00 02 ff 00 00 00 07 05 81 02 40 00 00 07 05 02 02 40 00 00"
    )


def test_the_part_number_has_a_second_byte_as_a_genuine_one_has() -> None:
    host = cp210x()
    assert host.standard(0xC0, VENDOR, PARTNUM, length=1) == b"\x02"
    assert len(host.standard(0xC0, VENDOR, PARTNUM, length=2)) == 2


# AN205, table 1: what is asked for, what it becomes, and what the divisor makes of that
@pytest.mark.parametrize(
    ("asked", "rate", "made"),
    [
        (1, 300, Fraction(300)),
        (300, 300, Fraction(300)),
        (301, 600, Fraction(600)),
        (9600, 9600, Fraction(9600)),
        (9612, 9600, Fraction(9600)),
        (9613, 14400, Fraction(24_000_000, 1667)),
        (12345, 14400, Fraction(24_000_000, 1667)),
        (57600, 57600, Fraction(24_000_000, 417)),
        (115200, 115200, Fraction(24_000_000, 208)),
        (250000, 250000, Fraction(250_000)),
        (256000, 256000, Fraction(24_000_000, 94)),
        (500000, 500000, Fraction(500_000)),
        (921600, 921600, Fraction(24_000_000, 26)),
        (1000000, 921600, Fraction(24_000_000, 26)),
        (0xFFFFFFFF, 921600, Fraction(24_000_000, 26)),
    ],
)
def test_rates_are_those_of_the_table(asked: int, rate: int, made: Fraction) -> None:
    assert (nominal(asked), actual(rate)) == (rate, made)
    host = cp210x()
    host.send(WRITE, SET_BAUDRATE, 0, asked.to_bytes(4, "little"))
    assert host.standard(READ, GET_BAUDRATE, length=4) == rate.to_bytes(4, "little")
    assert host.chip.dte.uart.framing.baudrate == made


@pytest.mark.parametrize(
    ("value", "looks"),
    [
        (0x0800, "8N1"), (0x0720, "7E1"), (0x0812, "8O2"), (0x0730, "7M1"), (0x0840, "8S1"),
        (0x0501, "5N1.5"), (0x0602, "6N2"),
    ],
)  # fmt: skip
def test_line_control(value: int, looks: str) -> None:
    host = cp210x()
    host.send(WRITE, SET_LINE_CTL, value)
    assert host.chip.state()["format"] == looks
    assert host.standard(READ, GET_LINE_CTL, length=2) == value.to_bytes(2, "little")


@pytest.mark.parametrize("value", [0x0400, 0x0900, 0x0803, 0x0850, 0xFFFF, 0])
def test_line_control_that_there_is_not_is_stalled(value: int) -> None:
    host = cp210x()
    assert stalls(host, WRITE, SET_LINE_CTL, value)
    assert host.chip.state()["format"] == "8N1"


def test_modem_status_follows_the_lines() -> None:
    host = cp210x()
    assert host.standard(READ, GET_MDMSTS, length=1) == b"\0"
    for name, bit in {"cts": 0x10, "dsr": 0x20, "ri": 0x40, "dcd": 0x80}.items():
        host.chip.dte.set_line(name, True, host.now)
        assert host.standard(READ, GET_MDMSTS, length=1) == bytes([bit])
        host.chip.dte.set_line(name, False, host.now)
    assert host.packets() == []  # without events no edge is told


def test_mhs_moves_one_line_or_both() -> None:
    host = cp210x()
    pins = []
    for value in (0x0101, 0x0202, 0x0100, 0x0303, 0x0200, 0x0003):
        host.send(WRITE, SET_MHS, value)
        pins.append(host.standard(READ, GET_MDMSTS, length=1)[0])
    assert pins == [0b01, 0b11, 0b10, 0b11, 0b01, 0b01]


def test_all_bytes_come_plain_and_the_transfer_ends_with_a_short_packet() -> None:
    plain_and_whole(cp210x())


def test_while_it_is_off_it_neither_takes_nor_hears() -> None:
    host = Host(Cp210x("UDTEST01"))
    assert host.write(b"never") == 0
    jumper(host).say(bytes(1000))
    host.at(host.now)
    assert (host.packets(), host.chip.next_event()) == ([], None)
    host.send(WRITE, IFC_ENABLE, 1)
    assert host.write(b"now") == 3
    assert host.packets() == [b"now"]


def test_closing_leaves_nothing_and_no_events() -> None:
    host = cp210x()
    host.send(WRITE, EMBED_EVENTS, ESCAPE)
    host.send(WRITE, SET_BREAK, 1)
    jumper(host).say(b"stale")
    host.at(host.now)
    host.send(WRITE, PURGE, 0x000F)
    host.send(WRITE, IFC_ENABLE, 0)
    assert (host.chip.state()["embed_events"], host.chip.dte.breaking) == (False, False)
    host.send(WRITE, IFC_ENABLE, 1)
    host.write(b"\xec")
    assert host.packets() == [b"\xec"]


def test_the_host_is_held_back_by_whole_packets_when_640_bytes_wait() -> None:
    host = cp210x(paced=True)
    assert host.write(bytes(1000)) == 640
    assert status(host)[3] == 640
    assert host.write(bytes(64)) == 0
    host.at(63 * 86_667)  # ns a character
    assert host.write(bytes(64)) == 0
    host.at(64 * 86_667)
    assert host.write(bytes(1000)) == 64


def test_characters_take_as_long_as_the_line_says_and_the_count_says_when_they_left() -> None:
    host = cp210x(paced=True)
    host.send(WRITE, SET_BAUDRATE, 0, (9600).to_bytes(4, "little"))
    host.write(b"abc")
    seen = []
    for microseconds in (0, 1041, 1042, 2084, 3124, 3125):
        host.at(microseconds * 1000)
        seen.append(status(host)[3])
    assert seen == [3, 3, 2, 1, 1, 0]
    assert status(host)[2] == 3
    assert host.packets() == [b"abc"]


def test_with_events_the_escape_character_is_escaped() -> None:
    host = cp210x()
    host.send(WRITE, EMBED_EVENTS, ESCAPE)
    host.write(b"a\xecb\xec\xec")
    assert host.packets() == [b"a\xec\x00b\xec\x00\xec\x00"]
    host.send(WRITE, EMBED_EVENTS, 0)
    host.write(b"a\xec\x00b")
    assert host.packets() == [b"a\xec\x00b"]


@pytest.mark.parametrize("errors", [PARITY, FRAMING, BREAK, PARITY | FRAMING])
def test_with_events_an_error_is_told_once_and_in_its_place(errors: int) -> None:
    host = cp210x()
    host.send(WRITE, EMBED_EVENTS, ESCAPE)
    jumper(host).say(b"ab")
    jumper(host).say(b"\0", errors)
    jumper(host).say(b"cd")
    host.at(host.now)
    assert host.packets() == [b"ab\xec\x01" + bytes([errors]) + b"\0cd"]


def test_with_events_each_of_several_errors_is_told() -> None:
    host = cp210x()
    host.send(WRITE, EMBED_EVENTS, ESCAPE)
    jumper(host).say(b"x\xecz", PARITY)  # behind a line status nothing is escaped
    host.at(host.now)
    assert host.packets() == [b"\xec\x01\x04x\xec\x01\x04\xec\xec\x01\x04z"]


def test_without_events_an_error_is_the_character_that_was_sampled() -> None:
    host = cp210x()
    jumper(host).say(b"ab")
    jumper(host).say(b"?", PARITY)
    jumper(host).say(b"\0", BREAK)
    jumper(host).say(b"cd")
    host.at(host.now)
    assert host.packets() == [b"ab?\0cd"]


def test_no_event_is_cut_in_two() -> None:
    host = cp210x()
    host.send(WRITE, EMBED_EVENTS, ESCAPE)
    host.write(b"\xec" * 100)
    packets = host.packets()
    assert [len(packet) for packet in packets] == [62, 62, 62, 14]
    assert b"".join(packets) == b"\xec\x00" * 100
    host.write(b"x" * 62 + b"\xec")
    assert host.packets() == [b"x" * 62, b"\xec\x00"]


def test_with_events_an_edge_is_a_modem_status() -> None:
    host = cp210x()
    host.send(WRITE, EMBED_EVENTS, ESCAPE)
    seen = []
    for name in ("cts", "dsr", "ri", "dcd"):
        for on in (True, False):
            host.chip.dte.set_line(name, on, host.now)
            seen += host.packets()
    assert [packet[:2] for packet in seen] == [b"\xec\x03"] * 8
    # of the ring only the end is a delta: TERI
    assert [packet[2] for packet in seen] == [0x11, 1, 0x22, 2, 0x40, 4, 0x88, 8]


def test_576_bytes_wait_for_the_host_and_the_next_one_is_an_overrun() -> None:
    host = cp210x(paced=True)
    host.send(WRITE, EMBED_EVENTS, ESCAPE)
    jumper(host).say(bytes(600))
    host.at(host.now)
    assert (status(host)[2], host.chip.dte.overruns) == (576, 24)
    jumper(host).say(b"lost too")
    host.at(host.now)
    assert b"".join(host.packets()) == bytes(576)
    jumper(host).say(b"!?")
    host.at(host.now)
    assert host.packets() == [b"\xec\x01" + bytes([OVERRUN]) + b"!?"]


def test_set_break_reaches_the_far_end_once_and_stops_the_transmitter() -> None:
    host = cp210x()
    host.send(WRITE, EMBED_EVENTS, ESCAPE)
    host.send(WRITE, SET_BREAK, 1)
    assert host.packets() == [b"\xec\x01\x10\0"]  # round the jumper
    host.write(b"late")
    host.at(host.now + 100 * MS)
    assert (host.packets(), status(host)[1]) == ([], 0x20)
    host.send(WRITE, SET_BREAK, 0)
    host.at(host.now)
    assert (host.packets(), status(host)[1]) == ([b"late"], 0)


@pytest.mark.parametrize(("control", "line", "reason"), [(0x08, "cts", 0x01), (0x10, "dsr", 0x02)])
def test_cts_or_dsr_off_holds_txd_back_and_is_a_hold_reason(
    control: int, line: str, reason: int
) -> None:
    host = cp210x()
    host.send(WRITE, SET_FLOW, 0, flow(control))
    assert host.write(b"abc") == 3
    host.at(50 * MS)
    assert (host.packets(), status(host)[1]) == ([], reason)
    host.chip.dte.set_line(line, True, host.now)
    host.at(70 * MS)
    assert (host.packets(), status(host)[1]) == ([b"abc"], 0)


@pytest.mark.parametrize(
    ("control", "replacement", "pin", "name"),
    [(0x08, 0x80, "rts", "rts/cts"), (0x12, 0, "dtr", "dtr/dsr"), (0, 0x80, "rts", "rts")],
)
def test_a_full_buffer_holds_the_far_end_back(
    control: int, replacement: int, pin: str, name: str
) -> None:
    host = cp210x(paced=True)
    host.send(WRITE, SET_FLOW, 0, flow(control, replacement))
    assert host.chip.state()["flow"] == name
    seen = []
    for _ in range(4):
        seen.append(getattr(host.chip.dte, pin))
        jumper(host).say(bytes(144))
        host.at(host.now)
    seen.append(getattr(host.chip.dte, pin))
    host.packets()
    assert [*seen, getattr(host.chip.dte, pin)] == [True, True, True, True, False, True]
    assert host.chip.dte.overruns == 0


def test_set_flow_moves_dtr_and_rts_and_is_given_back() -> None:
    host = cp210x()
    pins = []
    for settings in (flow(1, 0x40), flow(0, 0x40), flow(1, 0), flow(0, 0)):
        host.send(WRITE, SET_FLOW, 0, settings)
        assert host.standard(READ, GET_FLOW, length=16) == settings
        pins.append(host.standard(READ, GET_MDMSTS, length=1)[0])
    assert pins == [0b11, 0b10, 0b01, 0b00]


@pytest.mark.parametrize(
    ("control", "replacement"),
    [(3, 0), (0, 0xC0), (0x20, 0), (0x40, 0), (0, 0x04), (0, 0x08), (0, 1 << 31), (1 << 31, 0)],
)
def test_flow_control_that_is_not_modelled_is_stalled(control: int, replacement: int) -> None:
    host = cp210x()
    assert stalls(host, WRITE, SET_FLOW, data=flow(control, replacement))
    assert host.chip.state()["flow"] == "none"


def test_xoff_holds_txd_until_xon_and_a_set_flow_for_dtr_does_not_free_it() -> None:
    host = cp210x()
    jumper(host).joined = False
    host.send(WRITE, SET_CHARS, 0, b"\0\0\0\0QS")  # XON, XOFF
    host.send(WRITE, SET_FLOW, 0, flow(0, 0x01))
    jumper(host).say(b"aSb")
    host.at(host.now)
    host.write(b"held")
    host.send(WRITE, SET_FLOW, 0, flow(1, 0x01))  # DTR alone: it is held still
    assert (host.packets(), bytes(jumper(host).heard)) == ([b"ab"], b"")
    assert status(host)[1] == 0x08
    jumper(host).say(b"Q")
    host.at(host.now)
    host.at(host.now)
    assert (host.packets(), bytes(jumper(host).heard)) == ([], b"held")


def test_a_full_buffer_sends_xoff_and_an_empty_one_xon_and_hears_neither() -> None:
    host = cp210x(paced=True)
    jumper(host).joined = False
    host.send(WRITE, SET_CHARS, 0, b"\0\0\0\0\x11\x13")
    host.send(WRITE, SET_FLOW, 0, flow(0, 0x02))
    jumper(host).say(b"\x13" * 500)
    host.at(host.now)
    assert bytes(jumper(host).heard) == b"\x13"
    assert b"".join(host.packets()) == b"\x13" * 500  # IXON is not set: they are data
    host.at(host.now + 20 * MS)
    assert bytes(jumper(host).heard) == b"\x13\x11"


@pytest.mark.parametrize(("value", "left"), [(1, (2, 0)), (4, (2, 0)), (2, (0, 3)), (8, (0, 3))])
def test_purge_empties_the_queue_that_its_bits_name(value: int, left: tuple[int, int]) -> None:
    host = cp210x(paced=True)
    jumper(host).say(b"in")
    host.at(host.now)
    host.write(b"out")
    host.send(WRITE, PURGE, value)
    assert status(host)[2:] == left


@pytest.mark.parametrize("request_", [1, 2, 6, 9, 0x0A, 0x0B, 0x0D, 0x11, 0x17, 0x1F, 0xFF])
def test_what_cp210x_does_not_send_is_stalled(request_: int) -> None:
    host = cp210x()
    assert stalls(host, WRITE, request_)
    assert stalls(host, READ, request_, length=2)
    assert [setup.bRequest for setup in host.chip.stalled] == [request_, request_]


def test_what_cp210x_sends_from_probe_to_close_is_not() -> None:
    host = cp210x()
    host.standard(0xC0, VENDOR, PARTNUM, length=1)
    host.standard(0xC0, VENDOR, PARTNUM, length=2)
    for request, value, data in [
        (IFC_ENABLE, 1, b""), (SET_BAUDRATE, 0, (9600).to_bytes(4, "little")),
        (SET_LINE_CTL, 0x0800, b""), (SET_CHARS, 0, b"\0\0\0\0\x11\x13"),
        (SET_FLOW, 0, flow(0x09, 0x83)), (EMBED_EVENTS, ESCAPE, b""), (SET_MHS, 0x0303, b""),
        (SET_BREAK, 1, b""), (SET_BREAK, 0, b""), (EMBED_EVENTS, 0, b""), (SET_MHS, 0x0300, b""),
        (PURGE, 0x000F, b""), (IFC_ENABLE, 0, b""),
    ]:  # fmt: skip
        host.send(WRITE, request, value, data)
    assert len(host.standard(READ, GET_FLOW, length=16)) == 16
    assert len(host.standard(READ, GET_MDMSTS, length=1)) == 1
    assert status(host) == (0, 0x01, 0, 0)
    assert not host.chip.stalled


@pytest.mark.parametrize(
    ("kind", "request_", "value", "index", "data"),
    [
        (WRITE, IFC_ENABLE, 1, 1, b""),  # there is no second interface
        (0x40, IFC_ENABLE, 1, 0, b""),  # to the device
        (WRITE, IFC_ENABLE, 2, 0, b""),
        (WRITE, SET_BREAK, 2, 0, b""),
        (WRITE, PURGE, 0x10, 0, b""),
        (WRITE, EMBED_EVENTS, 0x1EC, 0, b""),
        (WRITE, SET_BAUDRATE, 0, 0, b"\x80\x25\x00"),
        (WRITE, SET_BAUDRATE, 9600, 0, b""),
        (WRITE, SET_FLOW, 0, 0, bytes(15)),
        (WRITE, SET_CHARS, 0, 0, bytes(7)),
        (0xC0, VENDOR, 0x370C, 0, b""),
    ],
)
def test_what_is_malformed_is_stalled(
    kind: int, request_: int, value: int, index: int, data: bytes
) -> None:
    host = cp210x()
    assert stalls(host, kind, request_, value, index, data=data)
    assert len(host.chip.stalled) == 1


def test_a_host_that_starts_again_finds_it_as_after_power_on() -> None:
    host = cp210x()
    fresh = Host(Cp210x("UDTEST01")).chip.state()
    host.send(WRITE, SET_LINE_CTL, 0x0712)
    host.send(WRITE, SET_BAUDRATE, 0, (9600).to_bytes(4, "little"))
    host.send(WRITE, SET_FLOW, 0, flow(0x09, 0x81))
    host.send(WRITE, EMBED_EVENTS, ESCAPE)
    assert host.chip.state() != fresh
    host.standard(0x00, 9, value=1)
    assert host.chip.state() == fresh


def test_a_serial_that_the_chip_has_no_room_for_is_refused() -> None:
    with pytest.raises(ValueError, match="63 characters"):
        Cp210x("x" * 64)
