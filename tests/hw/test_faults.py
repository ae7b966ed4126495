# SPDX-License-Identifier: MIT
"""The words for faults: what they mean, where they happen, and what is no sentence."""

from __future__ import annotations

import random
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udriver_hw.faults import ON_PTY, UNITS, Faults, parse_fault, parse_faults


def first(text: str, count: int = 6, seed: int = 0) -> list[int]:
    """Where it happens at first."""
    (fault,) = faults = parse_faults(text)
    return list(islice(fault.positions(Faults(faults, seed).dice(fault)), count))


@pytest.mark.parametrize(
    ("text", "positions"),
    [
        ("drop at byte 100", [100]),
        ("drop 3 at byte 100", [100, 101, 102]),
        ("garble every 50 bytes", [50, 100, 150, 200, 250, 300]),
        ("parity 2 every 10 bytes", [10, 11, 20, 21, 30, 31]),
        ("overrun 5 at byte 0", [0, 1, 2, 3, 4]),
        ("delay 20 at byte 7", [7]),
        ("break storm 50 at byte 7", [7]),
        ("unplug at urb 12", [12]),
        ("stall 2 at request 4", [4, 5]),
        ("stall 2 at setup 40:03", [0, 1]),
        ("stall every setup 40:03", [0, 1, 2, 3, 4, 5]),
        ("line ri flip every 2 ms", [2_000_000 * n for n in range(1, 7)]),
        ("drop 3 at 50 ms", [50_000_000]),
        ("garble 1 in 1 bytes", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_where_it_happens(text: str, positions: list[int]) -> None:
    assert first(text) == positions


@given(step=st.integers(2, 50), seed=st.integers())
def test_chance_is_as_large_as_it_is_said_to_be(step: int, seed: int) -> None:
    last = first(f"garble 1 in {step} bytes", 4000, seed)[-1]
    # 4000 gaps of a geometric distribution: eight of its deviations are never passed
    assert abs(last / 4000 - step) < 8 * step / 4000**0.5


def test_two_equal_faults_have_each_their_own_luck() -> None:
    one, other = parse_faults("garble 1 in 100 bytes\ngarble 1 in 100 bytes")
    faults = Faults([one, other])
    dice = [faults.dice(fault) for fault in (one, other)]
    assert dice[0].random() != dice[1].random()
    assert faults.dice(one).random() == Faults([one, other]).dice(one).random()


def test_way_kind_and_place() -> None:
    text = (
        "# none\n\n  drop  3 tx   at byte 100  # three\ndelay 5 at request 1\nline cts on at 9 ms\n"
    )
    drop, delay, line = parse_faults(text, "some.txt")
    assert (drop.kind, drop.number, drop.way, drop.text) == (
        "drop", 3, "tx", "drop 3 tx at byte 100",
    )  # fmt: skip
    assert (drop.place, delay.place) == ("some.txt, line 3", "some.txt, line 4")
    assert (delay.unit, line.line) == ("request", ("cts", "on"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("drop", "says not what happens and when"),
        ("drop at byte -1", "says not"),
        ("drop at byte", "says not"),
        ("drop at byte 1 or so", "says not"),
        ("explode at byte 1", "'explode' is none of drop"),
        ("drop drop at byte 1", "is none of"),
        ("drop 0 at byte 1", "nothing, or too much"),
        ("drop at urb 1", "drop is counted in byte, ms, not in urb"),
        ("stall at byte 1", "stall is counted in request, setup, urb, not in byte"),
        ("stall at setup 4:3", "says not"),
        ("line cts at byte 1", "is none of"),
        ("line cts up at byte 1", "on, off or flip, not up"),
        ("line dtr on at byte 1", "is none of"),
        ("line cts on tx at byte 1", "tx makes no difference"),
        ("stall rx at request 1", "rx makes no difference"),
        ("delay at byte 1", "delay wants a number: milliseconds"),
        ("break storm at byte 1", "wants a number: breaks"),
        ("break 3 at byte 1", "break stands alone, without 3"),
        ("break storm 1000000 at byte 1", "too much"),
        ("unplug 3 at byte 1", "unplug stands alone, without 3"),
        ("never answer 2 at byte 1", "never answer stands alone"),
        ("garble every 0 bytes", "0 is no distance"),
        ("garble 1 in 0 bytes", "0 is no distance"),
        ("garble 1 in 5 ms", "chance is by bytes"),
        ("drop 5 every 5 bytes", "leaves nothing between them"),
        (f"drop at byte {10**13}", "no distance"),
    ],
)
def test_what_is_no_fault_is_one_sentence_with_its_place(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as error:
        parse_faults(f"drop at byte 1\n\n{text}", "faults.txt")
    assert str(error.value).startswith("faults.txt, line 3: ")
    assert "\n" not in str(error.value)


WORDS = [
    "drop",
    "garble",
    "parity",
    "framing",
    "overrun",
    "delay",
    "never",
    "answer",
    "stall",
    "unplug",
    "break",
    "storm",
    "line",
    "cts",
    "ri",
    "on",
    "flip",
    "rx",
    "tx",
    "at",
    "every",
    "1",
    "in",
    "0",
    "3",
    "1000",
    "byte",
    "bytes",
    "urb",
    "urbs",
    "request",
    "requests",
    "setup",
    "40:03",
    "ms",
    "#",
    "²",
]


@given(st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join))
def test_any_text_is_a_fault_or_a_value_error(text: str) -> None:
    try:
        fault = parse_fault(text)
    except ValueError:
        return
    assert parse_fault(fault.text).text == fault.text


def test_what_a_pty_cannot_do_is_said() -> None:
    lacking = {
        "parity at byte 1": "parity error",
        "overrun at byte 1": "overrun error",
        "break storm 9 at byte 1": "break",
        "line dcd on at byte 1": "modem line dcd",
        "stall at urb 1": "stall",
        "delay 5 at urb 1": "URBs and requests",
        "unplug at request 1": "URBs and requests",
    }
    for text, what in lacking.items():
        fault = parse_fault(text)
        assert (fault.on_pty, fault.what_a_pty_lacks) == (False, what)
    assert set(UNITS) >= ON_PTY
    assert all(parse_fault(f"{kind} at byte 1").on_pty for kind in ON_PTY - {"delay"})


def test_the_log_is_bounded_and_the_counts_are_not() -> None:
    told = []
    (fault,) = found = parse_faults("drop at byte 1")
    faults = Faults(found, told=told.append)
    for position in range(10_005):
        faults.note(position, fault, position, "x")
    assert (len(faults.log), faults.counts[fault.text], len(told)) == (10_000, 10_005, 10_005)
    assert faults.log[-1] == (10_004, "drop at byte 1", "rx", "byte", 10_004, "x")


def test_the_global_source_of_chance_is_left_alone() -> None:
    random.seed(1)
    before = random.getstate()
    first("garble 1 in 7 bytes", 100)
    assert random.getstate() == before
