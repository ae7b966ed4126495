# SPDX-License-Identifier: MIT
"""The kfifo against a model that is too simple to be wrong: a deque."""

from __future__ import annotations

import os
import threading
from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from udriver.kernel.kfifo import Kfifo


@pytest.mark.parametrize(("asked", "size"), [(2, 2), (3, 4), (4, 4), (5, 8), (4096, 4096)])
def test_the_size_is_rounded_up_to_a_power_of_two(asked: int, size: int) -> None:
    fifo = Kfifo(asked)
    assert (fifo.size, fifo.avail, len(fifo)) == (size, size, 0)


@pytest.mark.parametrize("size", [1, 0, -1])
def test_a_size_below_2_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        Kfifo(size)


def test_full_needs_no_spare_byte() -> None:
    fifo = Kfifo(4)
    assert (fifo.in_bytes(b"abcdef"), len(fifo), fifo.avail) == (4, 4, 0)
    assert (fifo.in_bytes(b"g"), fifo.dma_in_prepare()) == (0, [])
    assert fifo.out_bytes(99) == b"abcd"


def test_bytes_wrap_around_the_end() -> None:
    fifo = Kfifo(8)
    fifo.in_bytes(b"012345")
    fifo.out_bytes(5)
    assert fifo.in_bytes(b"abcdefg") == 7
    assert (fifo.peek(8), fifo.out_bytes(8)) == (b"5abcdefg", b"5abcdefg")


def test_dma_in_gives_one_segment_or_two_where_the_room_wraps() -> None:
    fifo = Kfifo(8)
    assert [len(segment) for segment in fifo.dma_in_prepare()] == [8]
    fifo.in_bytes(b"012345")
    fifo.out_bytes(4)
    head, tail = fifo.dma_in_prepare()
    assert (len(head), len(tail)) == (2, 4)
    head[:] = b"67"
    tail[:3] = b"89a"
    fifo.dma_in_finish(5)
    assert fifo.out_bytes(8) == b"456789a"


def test_dma_in_finish_may_take_less_than_was_prepared() -> None:
    fifo = Kfifo(8)
    (room,) = fifo.dma_in_prepare()
    room[:8] = b"abcdefgh"
    fifo.dma_in_finish(3)
    assert (len(fifo), fifo.out_bytes(8)) == (3, b"abc")


def test_find_counts_up_to_and_with_the_byte() -> None:
    fifo = Kfifo(8)
    fifo.in_bytes(b"......")
    fifo.out_bytes(6)
    fifo.in_bytes(b"ab\ncd\n")
    assert [fifo.find(10, limit) for limit in (0, 2, 3, 8)] == [0, 0, 3, 3]
    assert fifo.find(ord("x"), 8) == 0


def test_high_water_is_the_most_it_ever_held() -> None:
    fifo = Kfifo(8)
    seen = []
    for data, taken in [(b"abc", 2), (b"defgh", 6), (b"i", 1)]:
        fifo.in_bytes(data)
        fifo.out_bytes(taken)
        seen.append(fifo.high_water)
    assert seen == [3, 6, 6]


def test_one_producer_and_one_consumer_need_no_lock() -> None:
    fifo = Kfifo(16)
    sent = bytes(range(256)) * 4
    received = bytearray()

    def produce() -> None:
        done = 0
        while done < len(sent):
            done += fifo.in_bytes(sent[done : done + 7])
            os.sched_yield()

    thread = threading.Thread(target=produce)
    thread.start()
    while len(received) < len(sent):
        received += fifo.out_bytes(5)
        os.sched_yield()
    thread.join()
    assert received == sent


class KfifoAgainstDeque(RuleBasedStateMachine):
    """Every operation on both; whatever can be asked gives the same answer."""

    @initialize(size=st.integers(2, 20), start=st.integers(0, 40))
    def make(self, size: int, start: int) -> None:
        self.fifo = Kfifo(size)
        self.fifo.in_ = self.fifo.out = start  # anywhere in the ring
        self.model: deque[int] = deque()
        self.high_water = 0

    def _put(self, data: bytes) -> None:
        self.model.extend(data)
        self.high_water = max(self.high_water, len(self.model))

    @rule(data=st.binary(max_size=24), kind=st.sampled_from([bytes, bytearray, memoryview]))
    def in_bytes(self, data: bytes, kind: type) -> None:
        room = self.fifo.size - len(self.model)
        assert self.fifo.in_bytes(kind(data)) == min(len(data), room)
        self._put(data[:room])

    @precondition(lambda self: self.fifo.avail)
    @rule(data=st.binary(max_size=32))
    def dma_in(self, data: bytes) -> None:
        segments = self.fifo.dma_in_prepare()
        assert sum(map(len, segments)) == self.fifo.size - len(self.model)
        done = 0
        for segment in segments:
            count = min(len(segment), len(data) - done)
            segment[:count] = data[done : done + count]
            done += count
        self.fifo.dma_in_finish(done)
        self._put(data[:done])

    @rule(count=st.integers(0, 40))
    def out_bytes(self, count: int) -> None:
        expected = [self.model.popleft() for _ in range(min(count, len(self.model)))]
        assert self.fifo.out_bytes(count) == bytes(expected)

    @rule(count=st.integers(0, 40))
    def peek(self, count: int) -> None:
        assert self.fifo.peek(count) == bytes(list(self.model)[:count])

    @rule(byte=st.integers(0, 255), limit=st.integers(0, 40))
    def find(self, byte: int, limit: int) -> None:
        head = list(self.model)[:limit]
        assert self.fifo.find(byte, limit) == (head.index(byte) + 1 if byte in head else 0)

    @invariant()
    def lengths(self) -> None:
        if hasattr(self, "fifo"):
            assert len(self.fifo) == len(self.model)
            assert self.fifo.avail == self.fifo.size - len(self.model)
            assert self.fifo.high_water == self.high_water


TestKfifoAgainstDeque = KfifoAgainstDeque.TestCase
TestKfifoAgainstDeque.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, database=None
)
TestKfifoAgainstDeque = pytest.mark.slow(TestKfifoAgainstDeque)
