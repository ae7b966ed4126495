# SPDX-License-Identifier: MIT
"""One direction of a line with faults on it, with the time as an argument."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from udriver_hw.chips.dte import BREAK, FRAMING, OVERRUN, PARITY, Run
from udriver_hw.fault_lane import Item, Lane, Move, Pull
from udriver_hw.faults import Faults, Injected, parse_faults

MS = 1_000_000  # ns
DIGITS = bytes(range(48, 58))


def lane(text: str, seed: int = 0) -> tuple[Lane, Faults]:
    faults = Faults(parse_faults(text), seed)
    return Lane("rx", faults), faults


def through(text: str, data: bytes = DIGITS, now: int = 0) -> list[Item]:
    """What comes out at once."""
    line, _ = lane(text)
    line.put(Run(data))
    return line.take(now)


def joined(items: Sequence[Item]) -> bytes:
    return b"".join(item.data for item in items if isinstance(item, Run))


def test_without_faults_everything_passes_in_one_piece() -> None:
    assert through("") == [Run(DIGITS)]


def test_drop_loses_so_many_and_says_which() -> None:
    line, faults = lane("drop 3 at byte 2")
    line.put(Run(DIGITS))
    assert joined(line.take(7)) == b"0156789"
    assert (line.came, line.went, line.dropped) == (10, 7, 3)
    assert [(one.at, one.position, one.what) for one in faults.log] == [
        (7, 2, "32"), (7, 3, "33"), (7, 4, "34"),
    ]  # fmt: skip


def test_garble_changes_the_byte_and_says_how() -> None:
    line, faults = lane("garble every 4 bytes")
    line.put(Run(DIGITS))
    came = joined(line.take(0))
    changed = [index for index in range(10) if came[index] != DIGITS[index]]
    assert changed == [4, 8]
    assert line.garbled == 2
    assert [one.what for one in faults.log] == [
        f"{DIGITS[index]:02x} -> {came[index]:02x}" for index in changed
    ]


@pytest.mark.parametrize(("kind", "status"), [("parity", PARITY), ("framing", FRAMING)])
def test_a_line_error_comes_with_its_byte(kind: str, status: int) -> None:
    assert through(f"{kind} 2 at byte 4") == [
        Run(b"0123"), Run(b"4", status), Run(b"5", status), Run(b"6789"),
    ]  # fmt: skip


def test_an_overrun_loses_bytes_and_the_next_one_says_so() -> None:
    assert through("overrun 3 at byte 2") == [Run(b"01"), Run(b"5", OVERRUN), Run(b"6789")]


def test_an_overrun_at_the_end_is_told_by_what_comes_next() -> None:
    line, _ = lane("overrun at byte 9")
    line.put(Run(DIGITS))
    assert joined(line.take(0)) == b"012345678"
    line.put(Run(b"ab", PARITY))
    assert line.take(0) == [Run(b"a", PARITY | OVERRUN), Run(b"b", PARITY)]


def test_breaks_come_between_the_bytes() -> None:
    line, _ = lane("break storm 2 at byte 9")
    line.put(Run(DIGITS))
    assert line.take(0) == [Run(b"012345678"), *[Run(b"\0", BREAK)] * 2, Run(b"9")]
    assert (line.came, line.went, line.inserted) == (10, 10, 2)


def test_an_edge_keeps_its_place() -> None:
    assert through("line cts on at byte 3\nline cts flip at byte 3") == [
        Run(b"012"), Move("cts", "on"), Move("cts", "flip"), Run(b"3"), Run(b"456789"),
    ]  # fmt: skip


def test_a_delay_holds_its_byte_and_what_is_behind_it() -> None:
    line, _ = lane("delay 20 at byte 3")
    line.put(Run(DIGITS))
    assert joined(line.take(5)) == b"012"
    line.put(Run(b"x"))
    assert (line.next_event(), line.waiting, line.held) == (5 + 20 * MS, 8, True)
    assert line.take(4 + 20 * MS) == []
    assert joined(line.take(5 + 20 * MS)) == b"3456789x"
    assert (line.next_event(), line.held) == (None, False)


def test_never_answer_loses_all_that_comes() -> None:
    line, faults = lane("never answer at byte 3")
    line.put(Run(DIGITS))
    assert joined(line.take(0)) == b"012"
    line.put(Run(DIGITS))
    assert line.take(0) == []
    assert (line.dropped, line.waiting, len(faults.log)) == (17, 0, 1)


def test_unplug_comes_behind_as_many_bytes_as_were_said() -> None:
    line, faults = lane("unplug at byte 3")
    line.put(Run(DIGITS))
    items = line.take(0)
    assert items == [Run(b"012"), Pull(faults.faults[0], 3)]
    line.put(Run(b"x"))
    assert line.take(10**12) == []
    assert (line.went, line.waiting, line.next_event()) == (3, 8, None)


def test_faults_of_one_byte_are_done_in_the_order_of_their_lines() -> None:
    line, faults = lane("garble at byte 3\ndelay 1 at byte 3\nparity at byte 3\nunplug at byte 3")
    line.put(Run(DIGITS))
    assert line.take(0) == [Run(b"012")]
    assert [one.fault.split()[0] for one in faults.log] == ["garble", "delay"]
    assert line.take(MS) == [Pull(faults.faults[3], 3)]
    assert [one.fault.split()[0] for one in faults.log] == ["garble", "delay", "parity"]


def test_what_is_lost_is_not_garbled_too() -> None:
    line, faults = lane("drop at byte 3\ngarble at byte 3\nline ri on at byte 3")
    line.put(Run(DIGITS))
    assert joined(line.take(0)) == b"012456789"
    assert [one.fault.split()[0] for one in faults.log] == ["drop", "line"]
    assert (line.garbled, line.dropped) == (0, 1)


def test_time_counts_from_the_first_call() -> None:
    line, _ = lane("break at 2 ms\nline dcd flip every 3 ms")
    assert line.next_event() == 0
    assert line.take(1000 * MS) == []
    assert line.next_event() == 1002 * MS
    assert line.take(1002 * MS) == [Run(b"\0", BREAK)]
    assert line.take(1006 * MS) == [Move("dcd", "flip")] * 2
    assert line.next_event() == 1009 * MS


def test_a_fault_of_bytes_that_is_due_at_a_time_takes_the_next_ones() -> None:
    line, _ = lane("drop 3 at 2 ms")
    line.put(Run(b"ab"))
    assert joined(line.take(0)) == b"ab"
    assert line.take(2 * MS) == []
    line.put(Run(DIGITS[:2]))
    assert line.take(3 * MS) == []
    line.put(Run(DIGITS[2:]))
    assert joined(line.take(4 * MS)) == b"3456789"


def test_the_other_direction_s_faults_are_not_ours() -> None:
    assert joined(through("drop 3 tx at byte 0")) == DIGITS


# properties: for any faults, any data, cut in any way

NUMBERS = st.integers(1, 5)
PLACES = st.one_of(
    st.integers(0, 60).map("at byte {}".format),
    st.integers(6, 20).map("every {} bytes".format),
    st.integers(1, 20).map("1 in {} bytes".format),
    st.integers(0, 5).map("at {} ms".format),
    st.integers(1, 5).map("every {} ms".format),
)
KINDS = st.one_of(
    NUMBERS.map("drop {}".format),
    NUMBERS.map("garble {}".format),
    NUMBERS.map("delay {}".format),
    NUMBERS.map("parity {}".format),
    NUMBERS.map("overrun {}".format),
    NUMBERS.map("break storm {}".format),
    st.just("line ri flip"),
)
ENDS = st.sampled_from(["", "never answer at byte 40", "unplug at byte 40", "unplug at 7 ms"])
SCRIPTS = st.builds(
    lambda lines, end: "\n".join([*(" ".join(line) for line in lines), end]),
    st.lists(st.tuples(KINDS, PLACES), max_size=4),
    ENDS,
)
DATA = st.binary(max_size=80)


def settle(line: Lane, now: int, end: int) -> list[tuple[int, Item]]:
    """From event to event, as a wire does; what came out, and when."""
    out = [(now, item) for item in line.take(now)]
    while (event := line.next_event()) is not None and event <= end:
        assert event > now, "an event that is no news: a wire would spin"
        now = event
        out += [(now, item) for item in line.take(now)]
    return out


def played(
    script: str, seed: int, pieces: Sequence[tuple[int, bytes]]
) -> tuple[list[tuple[int, Item]], list[Injected], Lane]:
    """Let pieces come, each at its time; the rest of the story until 1 s."""
    line, faults = lane(script, seed)
    out: list[tuple[int, Item]] = []
    now = 0
    for at, data in pieces:
        out += settle(line, now, at)
        now = max(now, at)
        line.put(Run(data))
        out += settle(line, now, now)
    out += settle(line, now, 1000 * MS)
    return out, list(faults.log), line


def flat(out: Sequence[tuple[int, Item]]) -> list[object]:
    """Without the cuts between runs of one status."""
    found: list[object] = []
    for at, item in out:
        if isinstance(item, Run):
            found += [(at, byte, item.status) for byte in item.data]
        else:
            found.append((at, item))
    return found


PIECES = st.lists(st.tuples(st.integers(0, 20).map(lambda ms: ms * MS), DATA), max_size=4)


@example(script="delay 1 every 1 ms\n", seed=0, pieces=[(MS, b"\0")])
@given(script=SCRIPTS, seed=st.integers(0, 99), pieces=PIECES.map(sorted))
def test_each_character_goes_out_is_dropped_or_waits(
    script: str, seed: int, pieces: list[tuple[int, bytes]]
) -> None:
    out, log, line = played(script, seed, pieces)
    runs = [item for _, item in out if isinstance(item, Run)]
    assert line.came == sum(len(data) for _, data in pieces)
    assert line.came == line.went + line.dropped + line.waiting
    assert sum(len(run.data) for run in runs) == line.went + line.inserted
    assert line.garbled == sum(one.fault.startswith("garble") for one in log)
    assert line.inserted == sum(bool(run.status & BREAK) for run in runs)
    drops = sum(one.fault.startswith(("drop", "overrun")) for one in log)
    assert line.dropped >= drops
    if "never answer" not in script:
        assert line.dropped == drops
    # of a delay in each ms the next comes before the first is over: what waits then waits on
    if "unplug" not in script and not re.search(r"delay .* every .* ms", script):
        assert not line.waiting
    assert [one.at for one in log] == sorted(one.at for one in log)


@given(script=SCRIPTS, seed=st.integers(0, 99), data=DATA, cut=st.integers(0, 80))
def test_the_same_seed_does_the_same_however_the_bytes_are_cut(
    script: str, seed: int, data: bytes, cut: int
) -> None:
    whole, log, line = played(script, seed, [(0, data)])
    again, log_again, _ = played(script, seed, [(0, data)])
    assert (again, log_again) == (whole, log)
    pieces, log_of_pieces, other = played(script, seed, [(0, data[:cut]), (0, data[cut:])])
    assert flat(pieces) == flat(whole)
    assert log_of_pieces == log
    assert (other.came, other.went, other.dropped) == (line.came, line.went, line.dropped)


@given(seed=st.integers(0, 99), data=st.binary(min_size=30, max_size=80))
def test_only_the_garbled_ones_differ(seed: int, data: bytes) -> None:
    out, log, _ = played("garble 1 in 7 bytes", seed, [(0, data)])
    came = joined([item for _, item in out])
    assert [at for at in range(len(data)) if came[at] != data[at]] == [one.position for one in log]


def test_another_seed_is_another_story() -> None:
    stories = {str(played("garble 1 in 5 bytes", seed, [(0, bytes(80))])[1]) for seed in range(20)}
    assert len(stories) == 20
