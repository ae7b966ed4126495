# SPDX-License-Identifier: MIT
"""The CDC-ACM function: descriptors, line coding, notifications, errors, breaks."""

from __future__ import annotations

import struct

import pytest

from tests.usb.host import MS, Host, cdc_acm, jumper, plain_and_whole, stalls
from udriver_hw.chips.cable import NullModem
from udriver_hw.chips.cdc_acm import CdcAcm
from udriver_hw.chips.dte import BREAK, FRAMING, OVERRUN, PARITY

WRITE, READ = 0x21, 0xA1
SET_LINE_CODING, GET_LINE_CODING, SET_CONTROL_LINE_STATE, SEND_BREAK = 0x20, 0x21, 0x22, 0x23
DCD, DSR, BREAK_BIT, RING, FRAMING_BIT, PARITY_BIT, OVERRUN_BIT = (1 << bit for bit in range(7))


def coding(rate: int, stop: int = 0, parity: int = 0, databits: int = 8) -> bytes:
    return struct.pack("<I3B", rate, stop, parity, databits)


def state(host: Host) -> int | None:
    """The UART state of the next notification, whose head is as it has to be."""
    packet = host.told()
    if packet is None:
        return None
    assert packet[:8].hex(" ") == "a1 20 00 00 00 00 02 00"
    assert len(packet) == 10
    return int.from_bytes(packet[8:], "little")


def test_the_descriptors_are_those_that_cdc_acm_looks_for() -> None:
    host = cdc_acm()
    device = host.standard(0x80, 6, 0x0100, length=18)
    assert device[4:7].hex(" ") == "02 00 00"
    whole = host.standard(0x80, 6, 0x0200, length=255)
    assert int.from_bytes(whole[2:4], "little") == len(whole) == 67
    assert whole[4] == 2
    assert whole[9:44].hex(" ") == (
        "09 04 00 00 01 02 02 00 00 "
        "05 24 00 20 01 05 24 01 00 01 04 24 02 06 05 24 06 00 01 "
        "07 05 83 03 10 00 01"
    )
    assert whole[44:].hex(" ") == (
        "09 04 01 00 02 0a 00 00 00 07 05 81 02 40 00 00 07 05 02 02 40 00 00"
    )


@pytest.mark.parametrize(
    ("value", "rate", "looks"),
    [
        (coding(115200), 115200, "8N1"),
        (coding(300, 2, 2, 7), 300, "7E2"),
        (coding(12345, 0, 1), 12345, "8O1"),
        (coding(1, 0, 3, 7), 1, "7M1"),
        (coding(0xFFFFFFFF, 0, 4), 0xFFFFFFFF, "8S1"),
        (coding(9600, 1, 0, 5), 9600, "5N1.5"),
    ],
)
def test_the_line_coding_is_as_it_was_set(value: bytes, rate: int, looks: str) -> None:
    host = cdc_acm()
    host.send(WRITE, SET_LINE_CODING, 0, value)
    now = host.chip.state()
    assert (now["baudrate"], now["format"]) == (rate, looks)
    assert host.standard(READ, GET_LINE_CODING, length=7) == value


@pytest.mark.parametrize(
    "value",
    [
        coding(0), coding(9600, 3), coding(9600, 0, 5), coding(9600, 0, 0, 4),
        coding(9600, 0, 0, 9), coding(9600, 0, 0, 16), coding(9600)[:6], coding(9600) + b"\0", b"",
    ],
)  # fmt: skip
def test_a_line_coding_that_there_is_not_is_stalled(value: bytes) -> None:
    host = cdc_acm()
    assert stalls(host, WRITE, SET_LINE_CODING, data=value)
    assert host.standard(READ, GET_LINE_CODING, length=7) == coding(9600)


def test_control_line_state_is_dtr_and_rts() -> None:
    host = cdc_acm()
    pins = []
    for value in (0, 1, 2, 3, 0):
        host.send(WRITE, SET_CONTROL_LINE_STATE, value)
        pins.append((host.chip.dte.dtr, host.chip.dte.rts))
    assert pins == [(False, False), (True, False), (False, True), (True, True), (False, False)]


def test_all_bytes_come_as_they_are_and_a_full_packet_is_followed_by_a_short_one() -> None:
    plain_and_whole(cdc_acm())


def test_each_edge_of_dcd_dsr_and_ri_is_told_once() -> None:
    host = cdc_acm()
    assert state(host) is None
    seen = []
    for name in ("dcd", "dsr", "ri"):
        for on in (True, False):
            host.chip.dte.set_line(name, on, host.now)
            seen += [state(host), state(host)]
    assert seen == [DCD, None, 0, None, DSR, None, 0, None, RING, None, 0, None]


def test_cts_is_never_told_and_holds_nobody_back() -> None:
    host = cdc_acm()
    for on in (True, False):
        host.chip.dte.set_line("cts", on, host.now)
        assert state(host) is None
    host.write(b"goes")
    assert host.packets() == [b"goes"]


def test_a_host_that_asks_late_is_told_what_is_and_each_ring() -> None:
    host = cdc_acm()
    for name in ("dcd", "dsr", "ri"):
        host.chip.dte.set_line(name, True, host.now)
    host.chip.dte.set_line("dcd", False, host.now)
    host.chip.dte.set_line("ri", False, host.now)
    assert [state(host) for _ in range(3)] == [DSR | RING, DSR, None]


@pytest.mark.parametrize(
    ("errors", "bits"),
    [
        (PARITY, PARITY_BIT),
        (FRAMING, FRAMING_BIT),
        (OVERRUN, OVERRUN_BIT),
        (PARITY | FRAMING, PARITY_BIT | FRAMING_BIT),
    ],
)
def test_an_error_is_told_once_and_its_character_is_data(errors: int, bits: int) -> None:
    host = cdc_acm()
    host.chip.dte.set_line("dsr", True, host.now)
    assert state(host) == DSR
    jumper(host).say(b"ab")
    jumper(host).say(b"?", errors)
    jumper(host).say(b"cd")
    host.at(host.now)
    assert host.packets() == [b"ab", b"?"]  # what is behind waits until that was told
    assert [state(host), state(host)] == [DSR | bits, None]
    assert host.packets() == [b"cd"]


def test_each_of_several_errors_is_told_to_a_host_that_asks() -> None:
    host = cdc_acm()
    jumper(host).say(b"xyz", PARITY)
    host.at(host.now)
    seen = []
    for _ in range(4):
        seen.append((host.packets(), state(host)))
    assert seen == [([b"x"], PARITY_BIT), ([b"y"], PARITY_BIT), ([b"z"], PARITY_BIT), ([], None)]


def test_a_host_that_does_not_ask_has_its_data_a_millisecond_later_and_errors_in_one() -> None:
    host = cdc_acm()
    jumper(host).say(b"x", PARITY)
    jumper(host).say(b"y", FRAMING)
    jumper(host).say(b"z")
    host.at(host.now)
    seen = [(host.packets(), host.now)]
    for _ in range(2):
        assert host.chip.next_event() == host.now + MS
        host.at(host.now + MS)
        seen.append((host.packets(), host.now))
    assert seen == [([b"x"], 0), ([b"y"], MS), ([b"z"], 2 * MS)]
    assert host.chip.next_event() is None
    assert [state(host), state(host)] == [PARITY_BIT | FRAMING_BIT, None]


def test_a_break_is_told_between_what_was_before_and_behind_and_is_no_character() -> None:
    host = cdc_acm()
    jumper(host).say(b"x" * 64)
    jumper(host).say(b"\0", BREAK)
    jumper(host).say(b"behind")
    host.at(host.now)
    seen = []
    for _ in range(2):
        seen += [state(host), host.read()]
    assert seen == [None, b"x" * 64, None, b""]  # the transfer ends first
    assert [state(host), state(host)] == [BREAK_BIT, None]
    assert host.packets() == [b"behind"]


def test_a_break_that_leaves_a_full_fifo_lets_the_wire_go_on() -> None:
    host = cdc_acm()
    jumper(host).say(b"x", PARITY)
    host.at(host.now)
    assert host.packets() == [b"x"]
    jumper(host).say(b"\0", BREAK)  # waits until the error was told
    jumper(host).say(bytes(600))
    host.at(host.now)
    assert host.chip.dte.room == 0
    assert state(host) == PARITY_BIT
    assert host.chip.dte.room == 0  # the break is out, and the wire's next character is in
    assert host.chip.next_event() == MS
    assert state(host) == BREAK_BIT
    assert b"".join(host.packets()) == bytes(600)


def test_each_of_several_breaks_is_told() -> None:
    host = cdc_acm()
    jumper(host).say(b"\0\0\0", BREAK)
    host.at(host.now)
    assert [state(host) for _ in range(4)] == [BREAK_BIT] * 3 + [None]
    assert host.packets() == []


def test_a_break_until_told_reaches_the_far_end_once_and_stops_the_transmitter() -> None:
    host = cdc_acm()
    host.send(WRITE, SEND_BREAK, 0xFFFF)
    assert [state(host), state(host)] == [BREAK_BIT, None]  # round the jumper
    host.write(b"late")
    host.at(host.now + 100_000 * MS)
    assert (host.packets(), host.chip.dte.breaking) == ([], True)
    host.send(WRITE, SEND_BREAK, 0)
    assert host.packets() == [b"late"]


def test_a_break_of_so_many_milliseconds_ends_by_itself() -> None:
    host = cdc_acm()
    host.send(WRITE, SEND_BREAK, 250)
    host.write(b"late")
    assert host.chip.next_event() == 250 * MS
    host.at(250 * MS - 1)
    assert (host.packets(), host.chip.dte.breaking) == ([], True)
    host.at(250 * MS)
    assert state(host) == BREAK_BIT
    assert (host.packets(), host.chip.dte.breaking) == ([b"late"], False)
    assert host.chip.next_event() is None


def test_the_host_is_held_back_by_whole_packets_when_256_bytes_wait() -> None:
    host = cdc_acm(paced=True)
    host.send(WRITE, SET_LINE_CODING, 0, coding(115200))
    assert host.write(bytes(300)) == 256
    host.at(63 * 86_806)  # ns a character
    assert host.write(bytes(64)) == 0
    host.at(64 * 86_806)
    assert host.write(bytes(300)) == 64


def test_512_bytes_wait_for_the_host_and_the_next_one_is_told_as_an_overrun() -> None:
    host = cdc_acm(paced=True)
    jumper(host).say(bytes(600))
    host.at(host.now)
    assert host.chip.dte.overruns == 88
    assert b"".join(host.packets()) == bytes(512)
    assert state(host) is None
    jumper(host).say(b"!?")
    host.at(host.now)
    assert host.packets() == [b"!"]
    assert [state(host), state(host)] == [OVERRUN_BIT, None]
    assert host.packets() == [b"?"]


def test_two_of_them_on_a_null_modem_tell_of_each_other_s_dtr() -> None:
    one, other = cdc_acm(), cdc_acm()
    one.chip.cable = other.chip.cable = NullModem(one.chip.dte, other.chip.dte)
    one.send(WRITE, SET_CONTROL_LINE_STATE, 3)
    assert (state(one), state(other)) == (None, DCD | DSR)
    one.write(b"over there")
    assert (one.packets(), other.packets()) == ([], [b"over there"])
    one.send(WRITE, SET_CONTROL_LINE_STATE, 0)
    assert (state(one), state(other)) == (None, 0)


@pytest.mark.parametrize(
    ("kind", "request_", "value", "index", "data"),
    [
        (WRITE, 0x00, 0, 0, b"AT\r"),  # SEND_ENCAPSULATED_COMMAND
        (WRITE, 0x02, 1, 0, b"\0\0"),  # SET_COMM_FEATURE
        (WRITE, 0x24, 0, 0, b""),
        (WRITE, GET_LINE_CODING, 0, 0, coding(9600)),
        (WRITE, SEND_BREAK, 0, 1, b""),  # to the data interface
        (WRITE, SET_CONTROL_LINE_STATE, 3, 0, b"\0"),
        (WRITE, SET_LINE_CODING, 1, 0, coding(9600)),
        (0x41, SET_CONTROL_LINE_STATE, 3, 0, b""),  # a vendor's request
        (0x20, SET_CONTROL_LINE_STATE, 3, 0, b""),  # to the device
        (READ, 0x01, 0, 0, b""),
        (READ, SET_LINE_CODING, 0, 0, b""),
    ],
)
def test_what_cdc_acm_does_not_send_is_stalled_and_logged(
    kind: int, request_: int, value: int, index: int, data: bytes
) -> None:
    host = cdc_acm()
    assert stalls(host, kind, request_, value, index, data=data)
    assert [setup[:4] for setup in host.chip.stalled] == [(kind, request_, value, index)]
    assert (host.chip.dte.dtr, host.chip.dte.breaking) == (False, False)


def test_what_cdc_acm_sends_from_probe_to_close_is_not() -> None:
    host = cdc_acm()
    host.send(WRITE, SET_LINE_CODING, 0, coding(9600))
    host.send(WRITE, SET_CONTROL_LINE_STATE, 3)
    host.send(WRITE, SET_LINE_CODING, 0, coding(115200, 2, 1, 7))
    host.send(WRITE, SEND_BREAK, 0xFFFF)
    host.send(WRITE, SEND_BREAK, 0)
    host.send(WRITE, SET_CONTROL_LINE_STATE, 0)
    assert not host.chip.stalled


def test_a_host_that_starts_again_finds_it_fresh() -> None:
    host = cdc_acm()
    fresh = Host(CdcAcm("UDTEST01")).chip.state()
    host.send(WRITE, SET_LINE_CODING, 0, coding(300, 2, 2, 7))
    host.send(WRITE, SET_CONTROL_LINE_STATE, 3)
    host.send(WRITE, SEND_BREAK, 500)
    jumper(host).say(b"stale", PARITY)
    host.at(host.now)
    host.read()
    assert host.chip.state() != fresh
    host.standard(0x00, 9, value=1)
    assert host.chip.state() == fresh
    assert (host.packets(), state(host), host.chip.next_event()) == ([], None, None)
