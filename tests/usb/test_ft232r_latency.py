# SPDX-License-Identifier: MIT
"""The latency timer: what leaves when. Time is an argument, so every instant here is exact."""

from __future__ import annotations

import pytest

from tests.usb.host import MS, ft232r

SET_EVENT, SET_LATENCY = 6, 9


@pytest.mark.parametrize("milliseconds", [16, 8, 2, 1, 255])
def test_a_byte_s_round_trip_is_as_long_as_the_timer(milliseconds: int) -> None:
    host = ft232r()
    host.order(SET_LATENCY, milliseconds)
    took = []
    for _ in range(5):
        began = host.now
        host.write(b"x")
        assert host.until_packet(began + 300 * MS)[2:] == b"x"
        took.append(host.now - began)
    assert took == [milliseconds * MS] * 5


def test_the_timer_starts_with_the_last_packet_and_not_with_the_byte() -> None:
    host = ft232r()
    host.at(5 * MS)
    host.write(b"x")
    host.until_packet(100 * MS)
    assert host.now == 16 * MS
    host.at(33 * MS)  # one and a bit later: a packet without data would have left at 32
    host.write(b"y")
    host.until_packet(100 * MS)
    assert host.now == 48 * MS


def test_62_bytes_do_not_wait() -> None:
    host = ft232r()
    host.at(3 * MS)
    host.write(b"x" * 61)
    assert host.read() is None
    host.write(b"y")
    assert host.read() == b"\x01\x60" + b"x" * 61 + b"y"
    assert host.now == 3 * MS


def test_a_full_packet_is_followed_by_one_that_ends_the_transfer() -> None:
    host = ft232r()
    host.write(b"x" * 62)
    assert len(host.read() or b"") == 64
    assert host.read() is None
    assert host.until_packet(100 * MS) == b"\x01\x60"
    assert host.now == 16 * MS
    assert host.chip.next_event() is None  # and then nothing more


def test_the_event_character_does_not_wait() -> None:
    host = ft232r()
    host.order(SET_EVENT, 0x100 | ord("\n"))
    host.write(b"line")
    assert host.read() is None
    host.write(b"\n")
    assert host.read() == b"\x01\x60line\n"
    host.order(SET_EVENT, ord("\n"))  # not enabled
    host.write(b"\n")
    assert host.read() is None


@pytest.mark.parametrize("line", ["cts", "dsr", "ri", "dcd"])
def test_a_line_that_moves_takes_what_waits_with_it(line: str) -> None:
    host = ft232r()
    host.write(b"with")
    assert host.read() is None
    host.chip.dte.set_line(line, True, host.now)
    assert (host.read() or b"")[2:] == b"with"


def test_two_moves_before_the_host_asks_are_one_packet() -> None:
    host = ft232r()
    host.chip.dte.set_line("ri", True, host.now)
    host.chip.dte.set_line("ri", False, host.now)
    assert host.read() == b"\x01\x60"
    assert host.read() is None


def test_a_chatty_one_sends_its_status_at_each_tick() -> None:
    host = ft232r(chatty=True)
    packets = []
    for _ in range(3):
        packets.append((host.until_packet(100 * MS), host.now))
    assert packets == [(b"\x01\x60", tick * 16 * MS) for tick in (1, 2, 3)]


def test_a_host_that_asks_late_gets_it_at_once() -> None:
    host = ft232r()
    host.write(b"x")
    host.at(40 * MS)
    assert host.chip.next_event() is None  # it waits for the host alone
    assert (host.read() or b"")[2:] == b"x"
