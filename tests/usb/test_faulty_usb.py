# SPDX-License-Identifier: MIT
"""Faults around the FT232R's model: of its line, its requests and its URBs; no kernel, no clock."""

from __future__ import annotations

import errno
import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.usb.fake_vhci import IN, OUT, Reply, configure, replies, setup, submit, unlink
from tests.usb.host import MS, Host
from udriver_hw.chips.cable import Jumpered, NullModem
from udriver_hw.chips.dte import BREAK, FRAMING, OVERRUN, PARITY, Run
from udriver_hw.chips.firmware import Unplugged
from udriver_hw.chips.ft232r import Ft232r
from udriver_hw.chips.usb import NeverAnswered, Stall
from udriver_hw.faults import Faults, parse_faults
from udriver_hw.faulty_usb import FaultyUsb, faulty
from udriver_hw.usbip import Session

SET_BAUD, GET_LATENCY = 3, 10
CTS, RI = 0x10, 0x40


def chip_with(text: str, seed: int = 0, **options: bool) -> FaultyUsb:
    """An FT232R with a jumper and these faults."""
    return faulty(Ft232r, Faults(parse_faults(text), seed))("UDFAULTY", **options)


def with_(text: str) -> Host:
    return Host(chip_with(text))


def packets(host: Host) -> list[tuple[int, bytes]]:
    """(line status, data) of all that comes within 100 ms."""
    found = []
    end = host.now + 100 * MS
    while host.now < end:
        packet = host.read()
        if packet is not None:
            found.append((packet[1] & 0x1E, packet[2:]))
        else:
            host.at(min(end, host.chip.next_event() or end))
    return found


def data(host: Host) -> bytes:
    return b"".join(data for _, data in packets(host))


def told(host: Host) -> list[str]:
    assert isinstance(host.chip, FaultyUsb)
    return [one.what for one in host.chip.faults.log]


class Bus:
    """A session, and the host's end of it."""

    def __init__(self, chip: FaultyUsb) -> None:
        self.chip = chip
        self.session = Session(chip)
        self._inward: set[int] = set()

    def pump(self, *commands: bytes, now: int = 0) -> list[Reply]:
        """Send these, let happen what does by ``now``, and give what was answered."""
        for command in commands:
            if command[3] == 1 and command[15] == IN:
                self._inward.add(int.from_bytes(command[4:8], "big"))
        self.session.feed(b"".join(commands))
        self.chip.advance(now)
        while self.session.pump(now):
            self.chip.advance(now)
        return replies(self.session.output, self._inward)


def bus(text: str) -> Bus:
    """With the chip configured."""
    made = Bus(chip_with(text))
    made.pump(configure())
    return made


def read_urb(seqnum: int) -> bytes:
    return submit(seqnum, IN, 1, 512)


def write_urb(seqnum: int, data: bytes = b"x") -> bytes:
    return submit(seqnum, OUT, 2, len(data), data)


def latency_request(seqnum: int) -> bytes:
    return submit(seqnum, IN, 0, 1, setup=setup(0xC0, GET_LATENCY, length=1))


def told_of(answers: list[Reply]) -> list[tuple[int, int]]:
    return [(one.seqnum, one.status) for one in answers]


# the line


@pytest.mark.parametrize(
    ("text", "error", "byte"),
    [
        ("parity at byte 2", PARITY, b"c"),
        ("framing at byte 2", FRAMING, b"c"),
        ("break at byte 2", BREAK, b"\0"),
        ("overrun at byte 2", OVERRUN, b"d"),
    ],
)
def test_a_line_error_reaches_the_host_once_and_alone(text: str, error: int, byte: bytes) -> None:
    host = with_(text)
    host.write(b"abcdef")
    assert [(status, data) for status, data in packets(host) if status] == [(error, byte)]
    assert len(told(host)) == 1


def test_a_storm_of_breaks_is_longer_than_the_fifo_and_loses_nothing() -> None:
    host = with_("break storm 600 at byte 3")
    host.write(b"abcdef")
    found = packets(host)
    assert sum(status == BREAK for status, _ in found) == 600
    assert b"".join(data for status, data in found if not status) == b"abcdef"
    assert host.chip.dte.overruns == 0


def test_a_line_moves_at_its_byte_and_stays_whatever_the_cable_says() -> None:
    host = with_("line cts on at byte 3")
    other = Ft232r("OTHER")
    host.chip.cable = other.cable = NullModem(host.chip.end, other.dte)
    other.dte.write(b"abc", 0)
    host.at(100 * MS)
    assert not host.ask(5, 2)[0] & CTS
    other.dte.write(b"d", host.now)
    host.at(200 * MS)
    assert host.ask(5, 2)[0] & CTS
    assert not other.dte.rts


def test_a_line_flips_at_its_times() -> None:
    host = with_("line ri flip every 10 ms")
    edges = []
    for ms in range(1, 36):
        host.at(ms * MS)
        edges.append(bool(host.ask(5, 2)[0] & RI))
    assert [ms for ms in range(1, 35) if edges[ms] != edges[ms - 1]] == [9, 19, 29]


def test_each_byte_of_a_stream_is_there_late_or_not_and_in_order() -> None:
    host = with_("delay 50 at byte 3\ndelay 40 tx at byte 3")
    assert host.write(b"abcdef") == 6
    host.at(39 * MS)
    assert host.drain() == b"abc"
    host.at(89 * MS)
    assert host.drain() == b""
    host.at(200 * MS)
    assert host.drain() == b"def"


def test_a_delay_on_the_way_out_holds_the_host_back() -> None:
    host = with_("delay 50 tx at byte 3")
    sent = 0
    while taken := host.write(bytes(64)):
        sent += taken
        assert sent < 1000
    host.at(51 * MS)
    assert host.write(bytes(64)) == 64


def test_an_unplug_at_a_byte_says_what_is_lost_in_the_chip() -> None:
    host = with_("unplug at byte 20")
    with pytest.raises(Unplugged):
        host.write(b"x" * 30)
    assert told(host) == ["unplugged; lost in the chip: 20 to the host, 0 from it"]


def test_an_unplug_on_the_way_out_lets_the_far_end_have_what_came_before() -> None:
    host = with_("unplug tx at byte 4")
    host.chip.cable = cable = Jumpered(host.chip.end)
    cable.joined = False
    with pytest.raises(Unplugged):
        host.write(b"abcdef")
    assert cable.heard == b"abcd"


def test_a_fault_that_is_due_needs_no_traffic() -> None:
    host = with_("unplug at 30 ms")
    host.at(29 * MS)
    with pytest.raises(Unplugged):
        host.at(30 * MS)


# requests


def test_a_stall_of_a_named_request_is_once_and_is_logged() -> None:
    host = with_("stall at setup 40:03")
    before = host.chip.dte.uart.framing
    with pytest.raises(Stall):
        host.order(SET_BAUD, 26)
    host.chip.on_urb_ended(0, completed=True)
    assert host.chip.dte.uart.framing == before
    assert host.chip.stalled[-1].bRequest == SET_BAUD
    host.order(SET_BAUD, 26)
    assert host.chip.dte.uart.framing != before


def test_requests_of_class_and_vendor_are_counted_and_standard_ones_are_not() -> None:
    device = submit(3, IN, 0, 18, setup=setup(0x80, 6, 0x100, 0, 18))
    asked = [latency_request(2), device, latency_request(4), latency_request(5)]
    assert told_of(bus("stall at request 1").pump(*asked)) == [
        (2, 0), (3, 0), (4, -errno.EPIPE), (5, 0),
    ]  # fmt: skip


def test_a_standard_request_can_be_named() -> None:
    device = submit(3, IN, 0, 18, setup=setup(0x80, 6, 0x100, 0, 18))
    assert told_of(bus("stall at setup 80:06").pump(device)) == [(3, -errno.EPIPE)]


def test_a_request_that_is_never_answered_waits_to_be_unlinked_and_holds_up_no_other() -> None:
    with_it = bus("never answer at setup c0:0a")
    assert told_of(with_it.pump(latency_request(2), latency_request(3))) == [(3, 0)]
    (gone,) = with_it.pump(unlink(4, 2))
    assert (gone.command, gone.seqnum, gone.status) == (4, 4, -errno.ECONNRESET)


def test_a_request_may_be_late() -> None:
    with_it = bus("delay 50 at setup c0:0a")
    assert with_it.pump(latency_request(2), latency_request(3), now=MS) == []
    assert with_it.chip.next_event() == 51 * MS
    assert with_it.pump(now=50 * MS) == []
    assert told_of(with_it.pump(now=51 * MS)) == [(2, 0), (3, 0)]
    assert with_it.chip.next_event() is None


def test_a_request_that_was_late_and_is_given_up_delays_no_other() -> None:
    with_it = bus("delay 50 at request 0")
    with_it.pump(latency_request(2), now=MS)
    assert [one.seqnum for one in with_it.pump(unlink(9, 2), latency_request(3), now=2 * MS)] == [
        9, 3,
    ]  # fmt: skip


# URBs


def test_a_stalled_urb_loses_nothing_and_the_next_one_has_it() -> None:
    with_it = bus("stall at urb 1")
    with_it.pump(*[read_urb(seqnum) for seqnum in (10, 11, 12)], write_urb(2, b"one"))
    (first,) = with_it.pump(now=16 * MS)
    assert (first.seqnum, first.data[2:]) == (10, b"one")
    with_it.pump(write_urb(3, b"two"), now=17 * MS)
    stalled, last = with_it.pump(now=40 * MS)
    assert told_of([stalled, last]) == [(11, -errno.EPIPE), (12, 0)]
    assert last.data[2:] == b"two"


def test_what_a_stall_kept_goes_when_the_host_purges_the_chip() -> None:
    with_it = bus("stall at urb 0")
    with_it.pump(read_urb(10), write_urb(2, b"old"))
    assert told_of(with_it.pump(now=16 * MS)) == [(10, -errno.EPIPE)]
    with_it.pump(submit(3, OUT, 0, 0, setup=setup(0x40, 0, 1)), now=17 * MS)
    with_it.pump(read_urb(11), write_urb(4, b"new"), now=18 * MS)
    assert with_it.pump(now=60 * MS)[0].data[2:] == b"new"


def test_a_stalled_write_takes_nothing() -> None:
    with_it = bus("stall tx at urb 1")
    written = [write_urb(n, bytes([n])) for n in (2, 3, 4)]
    assert told_of(with_it.pump(read_urb(10), *written)) == [(2, 0), (3, -errno.EPIPE), (4, 0)]
    assert with_it.pump(now=16 * MS)[0].data[2:] == bytes([2, 4])


def test_a_urb_that_is_never_answered_holds_up_those_behind_it() -> None:
    with_it = bus("never answer tx at urb 1")
    assert told_of(with_it.pump(write_urb(2), write_urb(3), write_urb(4))) == [(2, 0)]
    assert told_of(with_it.pump(unlink(5, 3), unlink(6, 4), write_urb(7), now=MS)) == [
        (5, -errno.ECONNRESET), (6, -errno.ECONNRESET),
    ]  # fmt: skip
    assert told_of(with_it.pump(latency_request(8))) == [(8, 0)]  # its requests it answers


def test_an_unplug_at_a_urb_comes_behind_as_many_as_were_said() -> None:
    with_it = bus("unplug tx at urb 3")
    with_it.pump(*[write_urb(n) for n in (2, 3, 4)])
    with pytest.raises(Unplugged):
        with_it.pump(write_urb(5))
    assert [one.position for one in with_it.chip.faults.log] == [3]


def test_an_unplug_at_a_read_says_what_was_lost_with_it() -> None:
    with_it = bus("unplug at urb 0")
    with_it.pump(read_urb(10), write_urb(2, b"seven b"))
    with pytest.raises(Unplugged):
        with_it.pump(now=16 * MS)
    assert with_it.chip.faults.log[0].what.endswith("7 to the host, 0 from it")


def test_a_late_urb_is_late_and_whole() -> None:
    with_it = bus("delay 30 at urb 0")
    with_it.pump(read_urb(10), write_urb(2, b"hello"))
    assert with_it.pump(now=16 * MS) == []
    assert with_it.chip.next_event() == 46 * MS
    (answer,) = with_it.pump(now=46 * MS)
    assert answer.data[2:] == b"hello"


def test_a_urb_that_is_unlinked_is_not_counted() -> None:
    with_it = bus("stall at urb 1")
    with_it.pump(read_urb(10), read_urb(11))
    with_it.pump(unlink(20, 10), unlink(21, 11))
    with_it.pump(read_urb(12), write_urb(2))
    assert told_of(with_it.pump(now=20 * MS)) == [(12, 0)]
    with_it.pump(read_urb(13), write_urb(3), now=20 * MS)
    assert told_of(with_it.pump(now=40 * MS)) == [(13, -errno.EPIPE)]


def test_the_state_has_the_counts_and_the_log() -> None:
    host = with_("drop at byte 1\nparity at byte 1000")
    host.write(b"abc")
    state = host.chip.state()
    assert state["faults"] == {"drop at byte 1": 1, "parity at byte 1000": 0}
    assert [one.position for one in state["injected"]] == [1]


def test_without_faults_it_is_the_chip() -> None:
    bare, host = Host(Ft232r("UDFAULTY")), with_("")
    assert bare.chip.configuration_descriptor() == host.chip.configuration_descriptor()
    for one in (bare, host):
        one.write(bytes(range(100)))
    assert packets(bare) == packets(host)
    assert isinstance(host.chip.cable, Jumpered)


# properties

LINE = (
    "drop 2 every 9 bytes", "garble 1 in 9 bytes", "delay 3 every 11 bytes", "parity 1 in 20 bytes",
    "overrun 2 every 17 bytes", "break storm 3 every 13 bytes", "line ri flip every 3 bytes",
    "drop tx 1 in 9 bytes", "delay 4 tx every 30 bytes", "line dsr flip every 7 ms",
)  # fmt: skip
OF_URBS = (
    "stall 1 in 4 urbs", "delay 5 every 3 urbs", "delay 2 tx 1 in 3 urbs", "stall tx every 5 urbs",
)  # fmt: skip


def story(text: str, seed: int) -> tuple[list[tuple[int, Reply]], list[object], FaultyUsb]:
    """The same host, doing the same; what it was answered and when, and the log."""
    host = Bus(chip_with(text, seed))
    host.pump(configure())
    dice = random.Random(seed)
    answers: list[tuple[int, Reply]] = []
    seqnum = 10
    for ms in range(0, 90, 3):
        commands = []
        if len(host.session) < 6:
            data = dice.randbytes(dice.randrange(1, 40))
            commands = [read_urb(seqnum), write_urb(seqnum + 1, data)]
            seqnum += 2
        answers += [(ms, one) for one in host.pump(*commands, now=ms * MS)]
    return answers, list(host.chip.faults.log), host.chip


@settings(max_examples=20, deadline=None)
@given(
    lines=st.lists(st.sampled_from(LINE + OF_URBS), max_size=5, unique=True),
    seed=st.integers(0, 9),
)
def test_the_same_seed_is_the_same_story_and_no_character_is_unaccounted_for(
    lines: list[str], seed: int
) -> None:
    text = "\n".join(lines)
    answers, log, chip = story(text, seed)
    assert story(text, seed)[:2] == (answers, log)
    rx, tx = chip.line.rx, chip.line.tx
    for lane in (rx, tx):
        assert lane.came == lane.went + lane.dropped + lane.waiting
    assert rx.came <= tx.went
    to_host = sum(len(one.data) - 2 * -(-len(one.data) // 64) for _, one in answers)
    stashed = sum(length for _, length in chip._stashed.values())
    behind = sum(len(item.data) for item in chip.line._on_the_way if isinstance(item, Run))
    assert to_host + len(chip.dte) + stashed + behind == rx.went + rx.inserted
    stalls = sum("stall" in str(entry) for entry in log)
    assert stalls == sum(one.status == -errno.EPIPE for _, one in answers)


@given(st.binary(min_size=8, max_size=8), st.sampled_from(["stall every setup 40:03", ""]))
def test_any_request_still_ends(raw: bytes, text: str) -> None:
    host = with_(text)
    kind, request, value, index, length = struct.unpack("<BBHHH", raw)
    try:
        answer = host.standard(kind, request, value, index, length)
        assert len(answer) <= length
    except (Stall, NeverAnswered):
        pass
