# SPDX-License-Identifier: MIT
"""What joins the chips: a null modem, and what two ends hear that are set differently."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.usb.host import MS, Host
from udriver_hw.chips.cable import FarEnd, NullModem, sample
from udriver_hw.chips.dte import BREAK, FRAMING, PARITY, Dte, Run
from udriver_hw.chips.firmware import Echo, Script, Unplugged, parse_script
from udriver_hw.chips.ft232r import Ft232r
from udriver_hw.chips.uart import Framing

SET_DATA, MODEM_CTRL, SET_BAUD, SET_FLOW = 4, 1, 3, 2


def null_modem(*, paced: bool = False) -> tuple[Host, Host]:
    one, other = Ft232r("A", paced=paced), Ft232r("B", paced=paced)
    one.cable = other.cable = NullModem(one.dte, other.dte)
    return Host(one), Host(other)


def test_bytes_go_both_ways() -> None:
    a, b = null_modem()
    a.write(b"ping")
    b.write(b"pong")
    for host in (a, b):
        host.at(16 * MS)
    assert (a.drain(), b.drain()) == (b"pong", b"ping")


def test_dtr_is_dsr_and_dcd_and_rts_is_cts_at_the_other_end() -> None:
    a, b = null_modem()
    a.order(MODEM_CTRL, 0x0101)
    b.at(b.now)
    assert b.chip.dte.inputs == {"cts": False, "dsr": True, "ri": False, "dcd": True}
    a.order(MODEM_CTRL, 0x0302)
    b.at(b.now)
    assert b.chip.dte.inputs == {"cts": True, "dsr": False, "ri": False, "dcd": False}


def test_a_break_arrives_as_one() -> None:
    a, b = null_modem()
    a.order(SET_DATA, 8 | 1 << 14)
    b.at(b.now)
    assert b.read() == bytes([1, 0x60 | BREAK, 0])


def test_rts_cts_loses_nothing_when_the_reader_sleeps() -> None:
    a, b = null_modem(paced=True)
    for host in (a, b):
        host.order(MODEM_CTRL, 0x0303)
        host.order(SET_FLOW, 0, 1 << 8)
    data = bytes(range(256)) * 8
    sent, heard = 0, b""
    for step in range(4000):
        sent += a.write(data[sent:])
        for host in (a, b):
            host.at(step * MS // 10)
        if step > 1000:
            heard += b.drain()
        assert len(b.chip.dte) <= 256
    assert heard == data
    assert b.chip.dte.overruns == 0


def test_without_flow_control_the_reader_that_sleeps_loses_some() -> None:
    a, b = null_modem(paced=True)
    data = bytes(range(256)) * 4
    sent = 0
    for step in range(2000):
        sent += a.write(data[sent:])
        for host in (a, b):
            host.at(step * MS // 10)
    assert sent == len(data)
    assert b.chip.dte.overruns == len(data) - 256


framings = st.builds(
    Framing,
    st.sampled_from([1200, 9600, Fraction(3_000_000, 26)]),
    st.just(8),
    st.just(False),
    st.sampled_from([1, 2]),
)


@settings(max_examples=60, derandomize=True)
@given(st.integers(0, 255), framings, st.sampled_from("NEOMS"))
def test_ends_that_agree_hear_what_was_sent(byte: int, framing: Framing, parity: str) -> None:
    assert sample(byte, framing, parity, framing, parity) == (byte, 0)


@settings(max_examples=60, derandomize=True)
@given(st.integers(0, 255), st.sampled_from([98, 99, 101, 102]))
def test_two_per_cent_do_no_harm(byte: int, percent: int) -> None:
    framing = Framing(115200)
    near = Framing(Fraction(115200 * percent, 100))
    assert sample(byte, framing, "N", near, "N") == (byte, 0)


def test_half_the_rate_is_garbage_or_a_framing_error() -> None:
    heard = [sample(byte, Framing(9600), "N", Framing(4800), "N") for byte in range(256)]
    assert all(got != byte or status & FRAMING for byte, (got, status) in enumerate(heard[:128]))
    twice = [sample(byte, Framing(9600), "N", Framing(19200), "N") for byte in range(256)]
    assert sum(got != byte or status & FRAMING for byte, (got, status) in enumerate(twice)) > 200


def test_even_heard_as_odd_is_a_parity_error_each_time() -> None:
    line = Framing(9600, 8, True)
    assert all(sample(byte, line, "E", line, "O") == (byte, PARITY) for byte in range(256))


def test_chips_that_disagree_hear_errors() -> None:
    a, b = null_modem()
    a.order(SET_DATA, 8 | 2 << 8)  # even
    b.order(SET_DATA, 8 | 1 << 8)  # odd
    a.write(b"xy")
    b.at(b.now)
    assert [b.read(), b.read()] == [bytes([1, 0x60 | PARITY, byte]) for byte in b"xy"]


def test_the_echo_of_the_pty_fake_hangs_on_a_chip_too() -> None:
    chip = Ft232r()
    chip.cable = FarEnd(chip.dte, Echo(chip.dte.uart))
    host = Host(chip)
    sent, heard, data = 0, b"", bytes(range(256)) * 2
    while len(heard) < len(data):
        sent += host.write(data[sent:])
        heard += host.drain()
        host.at(host.now + 16 * MS)
    assert heard == data


def test_so_does_a_script_and_it_can_pull_the_plug() -> None:
    chip = Ft232r()
    steps = parse_script('expect b"AT\\r"\nsend b"OK\\n"\ndelay 50\nunplug')
    chip.cable = FarEnd(chip.dte, Script(steps))
    host = Host(chip)
    host.write(b"AT\r")
    assert host.until_packet(20 * MS)[2:] == b"OK\n"
    with pytest.raises(Unplugged):
        host.at(60 * MS)


def test_unpaced_what_does_not_fit_waits_on_the_wire() -> None:
    dte = Dte(fed=128, kept=16)
    one_ended = FarEnd(dte, Script([]))
    one_ended.say(bytes(range(40)))
    heard = b""
    for _ in range(3):
        one_ended.step(0)
        assert len(dte) <= 16
        heard += dte.read(100, 0).data
    assert heard == bytes(range(40))
    assert dte.overruns == 0
    assert dte.read(1, 0) == Run(b"")
