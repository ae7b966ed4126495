# SPDX-License-Identifier: MIT
"""A host that sends anything at all: the chip stalls or the session ends; nothing else, and no hang.

Seeded: each run of the suite tries the same, and says what it tried when it fails.
"""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.usb.fake_vhci import IN, OUT, configure, replies, setup, submit, unlink
from tests.usb.host import MS
from udriver_hw.chips.usb import Function, NeverAnswered, Setup, Stall
from udriver_hw.plug import CHIPS
from udriver_hw.usbip import ProtocolError, Session

NEAR = (  # of each field of a request, what exists or nearly does
    (0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x40, 0xC0, 0x21, 0xA1, 0x41, 0xC1),
    range(0x24),
    (0, 1, 0x100, 0x200, 0x300, 0x303, 0x3FF),
    (0, 1, 2, 0x81, 0x409),
    (0, 1, 2, 7, 8, 18, 255, 0xFFFF),
)


def request_of(raw: bytes) -> Setup:
    """Five bytes say of each field whether it is near something that exists; eight say what is not.

    One draw and not ten, for Hypothesis takes longer to draw than the chip to answer.
    """
    anything = struct.unpack("<BBHHH", raw[5:])
    return Setup(*(
        near[how // 4 % len(near)] if how % 4 else any_
        for near, how, any_ in zip(NEAR, raw, anything, strict=False)
    ))  # fmt: skip


requests = st.binary(min_size=13, max_size=13).map(request_of)


@pytest.mark.parametrize("name", CHIPS)
@settings(max_examples=500, derandomize=True, deadline=None)
@given(asked=st.lists(st.tuples(requests, st.binary(max_size=20)), max_size=20))
def test_any_request_is_answered_within_its_length_or_stalled(
    name: str, asked: list[tuple[Setup, bytes]]
) -> None:
    chip = CHIPS[name]("UDFUZZ")
    for number, (request, data) in enumerate(asked):
        whole = len(data) != request.wLength and number % 2
        payload = data.ljust(min(request.wLength, 64), b"\0") if whole else data
        try:
            answer = chip.control(request, payload, number)
        except (Stall, NeverAnswered):
            continue
        assert len(answer) <= request.wLength
    event = chip.next_event()
    assert event is None or isinstance(event, int)
    assert len(chip.device_descriptor()) == 18  # alive


@pytest.mark.parametrize("name", CHIPS)
@settings(max_examples=100, derandomize=True, deadline=None)
@given(chunks=st.lists(st.binary(max_size=200), max_size=20))
def test_any_bytes_end_the_session_or_wait_for_more(name: str, chunks: list[bytes]) -> None:
    session = Session(CHIPS[name]())
    try:
        for chunk in chunks:
            session.feed(chunk)
            session.pump(0)
    except ProtocolError:
        pass


commands = st.one_of(
    st.tuples(st.just("in"), st.sampled_from([0, 1, 63, 64, 512, 4096])),
    st.tuples(st.just("out"), st.sampled_from([0, 1, 64, 65, 256, 1000])),
    st.tuples(st.just("control"), requests),
    st.tuples(st.just("unlink"), st.integers(-1, 8)),  # the how many-th URB that is pending
    st.tuples(st.just("wait"), st.integers(0, 40)),
    st.tuples(st.just("line"), st.booleans()),
    st.tuples(st.just("told"), st.sampled_from([0, 1, 8, 10, 16, 64])),  # interrupt endpoint
    st.tuples(st.just("error"), st.sampled_from([0x02, 0x04, 0x08, 0x10, 0x1E])),
    # cp210x: its UART is on, and events are embedded
    st.tuples(st.just("control"), st.just(Setup(0x41, 0, 1, 0, 0))),
    st.tuples(st.just("control"), st.just(Setup(0x41, 0x15, 0xEC, 0, 0))),
    # cdc_acm: a break for so many milliseconds
    st.tuples(st.just("control"), st.just(Setup(0x21, 0x23, 5, 0, 0))),
)


@pytest.mark.parametrize("name", CHIPS)
@settings(max_examples=300, derandomize=True, deadline=None)
@given(asked=st.lists(commands, min_size=1, max_size=60))
def test_each_urb_is_answered_once_or_unlinked_once(
    name: str, asked: list[tuple[str, object]]
) -> None:
    host = Wild(CHIPS[name]("UDFUZZ"))
    for verb, argument in asked:
        host.do(verb, argument)
    host.unlink_everything()
    assert not host.pending
    assert len(host.session) == 0


class Wild:
    """Submits and unlinks as it is told, and holds the server to the protocol."""

    def __init__(self, chip: Function) -> None:
        self.session = Session(chip)
        self.chip = chip
        self.now = 0
        self.seqnum = 1
        self.pending: dict[int, int] = {}  # seqnum: length
        self.inward: set[int] = set()
        self.unlinks: dict[int, int] = {}
        self.feed(configure(self.seqnum))
        self.pending[1] = 0
        self.turn()

    def feed(self, command: bytes) -> None:
        self.session.feed(command)

    def do(self, verb: str, argument: object) -> None:
        self.seqnum += 1
        if verb == "wait":
            assert isinstance(argument, int)
            self.now += argument * MS
        elif verb == "line":
            self.chip.dte.set_line("cts", bool(argument), self.now)  # type: ignore[attr-defined]
        elif verb == "error":
            assert isinstance(argument, int)
            self.chip.cable.say(b"e", argument)  # type: ignore[attr-defined]
        elif verb == "unlink":
            assert isinstance(argument, int)
            victims = [*self.pending, 0xDEAD]
            self.unlink(victims[argument % len(victims)])
        else:
            self.submit(verb, argument)
        self.turn()

    def submit(self, verb: str, argument: object) -> None:
        number = self.seqnum
        if verb == "control":
            assert isinstance(argument, Setup)
            inward = argument.bmRequestType >> 7
            length = min(argument.wLength, 5000)
            data = b"" if inward else bytes(length)
            self.feed(submit(number, inward, 0, length, data, setup=setup(*argument)))
        else:
            assert isinstance(argument, int)
            inward, length = verb != "out", argument
            data = b"" if inward else bytes(length)
            endpoint = {"in": 1, "out": 2, "told": 3}[verb]
            self.feed(submit(number, IN if inward else OUT, endpoint, length, data))
        self.pending[number] = length
        if inward:
            self.inward.add(number)

    def unlink(self, victim: int) -> None:
        self.seqnum += 1
        self.unlinks[self.seqnum] = victim
        self.feed(unlink(self.seqnum, victim))

    def turn(self) -> None:
        moving = True
        while moving:
            self.chip.advance(self.now)
            moving = self.session.pump(self.now)
        for reply in replies(self.session.output, self.inward):
            if reply.command == 4:
                victim = self.unlinks.pop(reply.seqnum)
                was_pending = self.pending.pop(victim, None) is not None
                assert reply.status == (-104 if was_pending else 0)
            else:
                assert reply.actual <= self.pending.pop(reply.seqnum)
                assert reply.status in (0, -32, -75)
        assert not self.session.output
        event = self.chip.next_event()
        assert event is None or event > self.now, "the wire would spin"

    def unlink_everything(self) -> None:
        for victim in list(self.pending):
            self.unlink(victim)
        self.turn()


@pytest.mark.parametrize("name", CHIPS)
@pytest.mark.parametrize("seed", range(4))
def test_mutated_traffic_ends_in_a_reply_or_a_protocol_error(seed: int, name: str) -> None:
    dice = random.Random(seed)
    for _ in range(40):
        session = Session(CHIPS[name]())
        stream = bytearray(configure())
        for seqnum in range(2, 12):
            stream += submit(
                seqnum, seqnum % 2, 1 + (not seqnum % 2), 64, b"x" * 64 * (not seqnum % 2)
            )
            stream += unlink(seqnum + 1000, dice.randrange(14))
        for _ in range(dice.randrange(1, 6)):
            stream[dice.randrange(len(stream))] ^= 1 << dice.randrange(8)
        try:
            while stream:
                cut = dice.randrange(1, 200)
                session.feed(bytes(stream[:cut]))
                del stream[:cut]
                session.function.advance(0)
                session.pump(0)
        except ProtocolError:
            pass
        assert len(session) <= 11
