# SPDX-License-Identifier: MIT
"""From counters and levels to edges: a line is played, looked at now and then, and told again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udriver.drivers.edges import LINES, LineEdges, Lines

NAMES = list(LINES)
MOVES = st.lists(st.sampled_from(NAMES), max_size=12)
ZERO = dict.fromkeys(NAMES, 0)


def play(level: int, counts: dict[str, int], moves: list[str]) -> int:
    """Each move is an edge of one line: its new level, counted as the kernel does."""
    for line in moves:
        level ^= LINES[line]
        counts[line] = (counts[line] + 1 + 2**31) % 2**32 - 2**31  # a C int
    return level


@given(st.lists(MOVES, max_size=12), st.integers(-(2**31), 2**31 - 1))
def test_no_edge_is_lost_and_none_invented(looks: list[list[str]], first: int) -> None:
    counts = dict.fromkeys(NAMES, first)
    level = 0
    lines = Lines(level, counts)
    for moves in looks:
        level = play(level, counts, moves)
        assert lines.agree(level, counts)
        edges = lines.take(level, counts)
        assert {edge.line: edge.count for edge in edges} == {
            line: moves.count(line) for line in NAMES if line in moves
        }
        assert all(edge.level == bool(level & LINES[edge.line]) for edge in edges)
    assert lines.take(level, counts) == []


@given(MOVES.filter(bool), st.sampled_from(NAMES))
def test_a_counter_that_lags_does_not_agree_with_its_level(moves: list[str], late: str) -> None:
    counts = ZERO.copy()
    lines = Lines(0, counts)
    level = play(0, counts, moves)
    ahead = level ^ LINES[late]
    assert not lines.agree(ahead, counts)
    assert lines.agree(level, counts)
    assert lines.by_count(ahead, counts) == level


@pytest.mark.parametrize(("before", "after"), [(0, 1), (1, 0)])
def test_where_nothing_is_counted_the_level_tells(before: int, after: int) -> None:
    bit = LINES["dcd"]
    lines = Lines(before * bit, {})
    assert lines.agree(after * bit, {})
    assert lines.take(after * bit, {}) == [LineEdges("dcd", 1, bool(after))]
    assert lines.take(after * bit, {}) == []


def test_an_edge_that_is_not_counted_is_one_all_the_same() -> None:
    """RI of an 8250, one of whose edges is not: the level is right in the end."""
    lines = Lines(0, ZERO)
    assert lines.take(LINES["ri"], ZERO) == [LineEdges("ri", 1, True)]
    assert lines.take(0, ZERO | {"ri": 1}) == [LineEdges("ri", 1, False)]


@given(st.integers(1, 20), st.booleans(), st.booleans(), st.booleans())
def test_edges_of_a_kind_alternate(count: int, level: bool, rising: bool, falling: bool) -> None:
    kinds = [level ^ bool(back % 2) for back in range(count)]  # newest first; True is a rise
    wanted = [kind for kind in kinds if (rising if kind else falling)]
    found, is_rising = LineEdges("cts", count, level).of_kind(rising, falling)
    assert found == len(wanted)
    if wanted:
        assert is_rising == wanted[0]
