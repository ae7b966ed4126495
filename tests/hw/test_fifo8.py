# SPDX-License-Identifier: MIT
"""The chip's FIFO against a model that is too simple to be wrong: a deque."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from udriver_hw.chips.fifo8 import Fifo8


@pytest.mark.parametrize("depth", [0, -1])
def test_a_fifo_without_a_place_is_refused(depth: int) -> None:
    with pytest.raises(ValueError, match="at least 1 byte deep"):
        Fifo8(depth)


def test_what_does_not_fit_is_lost_and_counted() -> None:
    fifo = Fifo8(4)
    assert (fifo.push(b"abcdef"), fifo.overruns, fifo.pop(9)) == (4, 2, b"abcd")


def test_the_overrun_bit_stays_until_it_is_read() -> None:
    fifo = Fifo8(1)
    fifo.push(b"ab")
    fifo.pop(1)
    fifo.push(b"c")
    assert (fifo.take_overrun(), fifo.take_overrun(), fifo.overruns) == (True, False, 1)


def test_full_is_not_yet_an_overrun() -> None:
    fifo = Fifo8(2)
    fifo.push(b"ab")
    assert (fifo.room, fifo.overrun) == (0, False)


class Model(RuleBasedStateMachine):
    @initialize(depth=st.integers(1, 20))
    def build(self, depth: int) -> None:
        self.fifo = Fifo8(depth)
        self.model: deque[int] = deque()
        self.lost = self.most = 0
        self.bit = False

    @rule(data=st.binary(max_size=24))
    def push(self, data: bytes) -> None:
        taken = 0
        for byte in data:
            if len(self.model) < self.fifo.depth:
                self.model.append(byte)
                taken += 1
            else:
                self.lost += 1
                self.bit = True
        self.most = max(self.most, len(self.model))
        assert self.fifo.push(data) == taken

    @rule(count=st.integers(0, 24))
    def pop(self, count: int) -> None:
        wanted = bytes(self.model.popleft() for _ in range(min(count, len(self.model))))
        assert self.fifo.pop(count) == wanted

    @rule(count=st.integers(0, 24))
    def peek(self, count: int) -> None:
        assert self.fifo.peek(count) == bytes(self.model)[:count]

    @rule()
    def read_the_bit(self) -> None:
        assert self.fifo.take_overrun() == self.bit
        self.bit = False

    @invariant()
    def the_same(self) -> None:
        fifo = self.fifo
        assert (len(fifo), fifo.room) == (len(self.model), fifo.depth - len(self.model))
        assert (fifo.overruns, fifo.overrun, fifo.high_water) == (self.lost, self.bit, self.most)


TestModel = pytest.mark.slow(Model.TestCase)
TestModel.settings = settings(max_examples=60, deadline=None, derandomize=True)
