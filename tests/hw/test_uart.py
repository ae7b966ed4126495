# SPDX-License-Identifier: MIT
"""The UART in virtual time: which character leaves at which nanosecond."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from udriver_hw.chips.uart import Framing, Uart

SLOW = Framing(1200)
NSEC = 1_000_000_000


def leave(uart: Uart, now: int = 0) -> list[int]:
    """Run the chip until it is empty; when each character left."""
    times = []
    while (at := uart.next_event()) is not None:
        assert at >= now
        now = at
        times += [now] * len(uart.transmit(now))
    return times


def paced(framing: Framing, depth: int = 4096) -> Uart:
    uart = Uart(depth, paced=True)
    uart.set_framing(framing, 0)
    return uart


def rounded_up(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


@pytest.mark.parametrize(
    ("framing", "bits"),
    [
        (Framing(1200), 10),
        (Framing(1200, parity=True), 11),
        (Framing(1200, stopbits=2), 11),
        (Framing(1200, databits=7, parity=True), 10),
        (Framing(1200, databits=5, stopbits=1.5), 7.5),
    ],
)
def test_a_character_is_start_data_parity_and_stop_bits(framing: Framing, bits: float) -> None:
    assert framing.char_ns == Fraction(int(bits * 2) * NSEC, 2400)


def test_2000_bytes_at_1200_baud_leave_at_exactly_16_and_two_thirds_seconds() -> None:
    uart = paced(SLOW)
    uart.write(bytes(2000), 0)
    times = leave(uart)
    assert times == [rounded_up(n * 10 * NSEC, 1200) for n in range(1, 2001)]
    assert times[-1] == 16_666_666_667


def test_a_late_look_does_not_make_the_line_later() -> None:
    uart = paced(SLOW)
    uart.write(bytes(100), 0)
    assert len(uart.transmit(NSEC // 2)) == 60
    assert uart.transmit(NSEC // 2) == b""
    assert leave(uart, NSEC // 2)[-1] == rounded_up(100 * 10 * NSEC, 1200)


def test_nothing_leaves_a_nanosecond_early() -> None:
    uart = paced(SLOW)
    uart.write(b"ab", 0)
    at = uart.next_event()
    assert at is not None
    assert (uart.transmit(at - 1), uart.transmit(at)) == (b"", b"a")


def test_an_idle_line_saves_nothing_up() -> None:
    uart = paced(SLOW)
    uart.write(b"a", 0)
    uart.transmit(NSEC)
    uart.write(b"b", NSEC)
    assert leave(uart, NSEC) == [NSEC + rounded_up(10 * NSEC, 1200)]


def test_a_write_before_the_fifo_is_empty_follows_without_a_gap() -> None:
    uart = paced(SLOW)
    uart.write(b"ab", 0)
    uart.transmit(9_000_000)
    uart.write(b"c", 9_000_000)
    assert leave(uart, 9_000_000)[-1] == rounded_up(3 * 10 * NSEC, 1200)


def test_an_empty_write_does_not_move_the_line() -> None:
    uart = paced(SLOW)
    uart.write(b"", 5)
    assert uart.next_event() is None


def test_the_character_being_sent_finishes_as_it_began() -> None:
    uart = paced(Framing(1000))  # 10 ms a character
    uart.write(b"abc", 0)
    assert uart.transmit(15_000_000) == b"a"
    uart.set_framing(Framing(10_000), 15_000_000)
    assert leave(uart, 15_000_000) == [20_000_000, 21_000_000]


def test_slower_in_the_middle() -> None:
    uart = paced(Framing(10_000))
    uart.write(b"abc", 0)
    assert uart.transmit(1_500_000) == b"a"
    uart.set_framing(Framing(1000), 1_500_000)
    assert leave(uart, 1_500_000) == [2_000_000, 12_000_000]


def test_unpaced_takes_no_time() -> None:
    uart = Uart()
    uart.write(b"abc", 7)
    assert (uart.next_event(), uart.transmit(7), uart.next_event()) == (0, b"abc", None)


def test_a_full_transmit_fifo_holds_its_feeder_back() -> None:
    uart = Uart(4, paced=True)
    assert (uart.write(b"abcdef", 0), uart.write(b"ef", 0)) == (4, 0)
    assert (uart.tx.overruns, uart.transmit(NSEC)) == (0, b"abcd")


def test_a_receive_fifo_that_nobody_empties_overruns() -> None:
    uart = Uart(4)
    assert (uart.receive(b"abc"), uart.receive(b"def")) == (3, 1)
    assert (uart.read(9), uart.rx.overruns, uart.rx.take_overrun()) == (b"abcd", 2, True)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    data=st.binary(max_size=100),
    chunks=st.lists(st.integers(1, 40), min_size=1),
    steps=st.lists(st.integers(3_000_000, 60_000_000), min_size=1),
    depth=st.integers(1, 64),
    is_paced=st.booleans(),
)
def test_bytes_in_are_bytes_out_at_any_chunking(
    data: bytes, chunks: list[int], steps: list[int], depth: int, is_paced: bool
) -> None:
    uart = Uart(depth, paced=is_paced)
    uart.set_framing(SLOW, 0)
    out = bytearray()
    now = turn = 0
    rest = data
    while rest or len(uart.tx):
        rest = rest[uart.write(rest[: chunks[turn % len(chunks)]], now) :]
        now += steps[turn % len(steps)]
        out += uart.transmit(now)
        assert not is_paced or len(out) * 10 * NSEC <= now * 1200  # never faster than the line
        turn += 1
    assert bytes(out) == data


def test_held_it_finishes_the_character_and_waits_with_the_next() -> None:
    uart = Uart(16, paced=True)
    uart.set_framing(Framing(9600), 0)  # 1,041,666.7 ns a character
    uart.write(b"abc", 0)
    uart.hold(True, 1_500_000)
    assert uart.next_event() == 0  # "a" has left and was not asked for
    assert uart.transmit(1_500_000) == b"a"
    assert uart.next_event() == 2_083_334
    assert uart.transmit(9_000_000) == b"b"
    assert uart.next_event() is None
    uart.hold(False, 10_000_000)
    assert uart.next_event() == 11_041_667
    assert uart.transmit(12_000_000) == b"c"


def test_let_go_before_the_character_is_over_nothing_is_late() -> None:
    uart = Uart(16, paced=True)
    uart.set_framing(Framing(9600), 0)
    uart.write(b"abc", 0)
    uart.hold(True, 100)
    uart.hold(False, 200)
    assert uart.transmit(3_125_000) == b"abc"


def test_held_while_empty_it_begins_when_let_go() -> None:
    uart = Uart(16, paced=True)
    uart.set_framing(Framing(9600), 0)
    uart.hold(True, 0)
    uart.write(b"a", 5)
    assert uart.next_event() is None
    assert uart.transmit(10_000_000) == b""
    uart.hold(False, 10_000_000)
    assert uart.next_event() == 11_041_667


def test_held_without_pace_it_keeps_all() -> None:
    uart = Uart(16)
    uart.hold(True, 0)
    assert uart.write(b"ab", 0) == 2
    assert (uart.transmit(1), uart.next_event()) == (b"", None)
    uart.hold(False, 2)
    assert uart.transmit(2) == b"ab"


def test_a_purge_leaves_nothing_to_send() -> None:
    uart = Uart(16, paced=True)
    uart.write(b"abc", 0)
    uart.purge(10)
    assert (uart.transmit(1_000_000), len(uart.tx), uart.next_event()) == (b"", 0, None)
