# SPDX-License-Identifier: MIT
r"""The PARMRK parser: whatever a tty writes comes out as it went in, wherever it is cut."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from udriver.drivers.parmrk import Mark, Parmrk

Item = int | Mark

# \xff and \0 are what it is about, so half of all bytes are one of these
BYTES = st.sampled_from([0xFF, 0x00]) | st.integers(0, 255)
ITEMS = st.lists(BYTES | BYTES.map(Mark), max_size=60)


def as_tty(items: list[Item]) -> bytes:
    r"""What n_tty puts into its buffer (n_tty_receive_char, n_tty_receive_parity_error)."""
    raw = bytearray()
    for item in items:
        if isinstance(item, Mark):
            raw += bytes([0xFF, 0x00, item.byte])
        else:
            raw += b"\xff\xff" if item == 0xFF else bytes([item])
    return bytes(raw)


def flat(parts: list[bytes | Mark]) -> list[Item]:
    return [item for part in parts for item in (part if isinstance(part, bytes) else [part])]


@st.composite
def cut(draw: st.DrawFn, items: st.SearchStrategy[list[Item]]) -> tuple[list[Item], list[bytes]]:
    chosen = draw(items)
    raw = as_tty(chosen)
    cuts = sorted(draw(st.sets(st.integers(0, len(raw)))))
    edges = [0, *cuts, len(raw)]
    return chosen, [raw[a:b] for a, b in pairwise(edges)]


@given(cut(ITEMS))
def test_data_and_marks_come_out_in_order_wherever_it_is_cut(
    case: tuple[list[Item], list[bytes]],
) -> None:
    items, pieces = case
    parser = Parmrk()
    got = [item for piece in pieces for item in flat(parser.feed(piece))]
    assert got == items
    assert parser.held == b""


@given(ITEMS)
def test_a_mark_is_told_with_its_last_byte_and_data_at_once(items: list[Item]) -> None:
    parser = Parmrk()
    for item in items:
        raw = as_tty([item])
        early = [parser.feed(raw[at : at + 1]) for at in range(len(raw) - 1)]
        assert not any(early)
        assert len(parser.held) == len(raw) - 1
        assert flat(parser.feed(raw[-1:])) == [item]


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_what_no_tty_writes_is_not_lost(pieces: list[bytes]) -> None:
    """Bytes from before the tty was set: as many come out as a parser that is new could be told."""
    parser, whole = Parmrk(), Parmrk()
    raw = b"".join(pieces)
    parts = [item for piece in pieces for item in flat(parser.feed(piece))]
    assert parts == flat(whole.feed(raw))
    assert parser.held == whole.held
    assert len(parser.held) <= 2
    told = sum(3 if isinstance(item, Mark) else 1 for item in parts)
    pairs = sum(item == 0xFF for item in parts)
    assert told <= len(raw) - len(parser.held) <= told + pairs


@given(st.integers(1, 254))
def test_an_ff_that_begins_nothing_is_data(byte: int) -> None:
    assert Parmrk().feed(bytes([0xFF, byte])) == [bytes([0xFF, byte])]
    parser = Parmrk()
    assert parser.feed(b"\xff") == []
    assert parser.feed(bytes([byte])) == [bytes([0xFF, byte])]


def test_without_an_ff_the_very_bytes_come_back() -> None:
    data = bytes(range(255)) * 16
    assert Parmrk().feed(data) == [data]
