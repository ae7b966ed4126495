# SPDX-License-Identifier: MIT
"""The USB/IP protocol, bytes in and bytes out: URBs, short packets, NAKs, stalls, unlinks."""

from __future__ import annotations

import errno
import struct

import pytest

from tests.usb.fake_vhci import IN, OUT, Reply, configure, replies, setup, submit, unlink
from tests.usb.host import MS
from udriver_hw.chips.ft232r import Ft232r
from udriver_hw.chips.usb import Function, NeverAnswered, Setup
from udriver_hw.usbip import ProtocolError, Session


class Host:
    """Feeds a session and reads what it answers."""

    def __init__(self, function: Function | None = None) -> None:
        self.session = Session(function or Ft232r())
        self.inward: set[int] = set()
        self.now = 0
        self.say(configure())

    def say(self, *commands: bytes) -> list[Reply]:
        for command in commands:
            if len(command) >= 48 and command[3] == 1 and command[15] == IN:
                self.inward.add(int.from_bytes(command[4:8], "big"))
            self.session.feed(command)
        return self.turn()

    def turn(self, now: int | None = None) -> list[Reply]:
        self.now = self.now if now is None else now
        moving = True
        while moving:
            self.session.function.advance(self.now)
            moving = self.session.pump(self.now)
        return replies(self.session.output, self.inward)


def test_a_control_transfer_is_answered() -> None:
    host = Host()
    ask = setup(0x80, 6, 0x0100, 0, 18)
    (reply,) = host.say(submit(7, IN, 0, 18, setup=ask))
    assert (reply.seqnum, reply.status, reply.actual) == (7, 0, 18)
    assert reply.data == host.session.function.device_descriptor()
    (reply,) = host.say(submit(8, IN, 0, 4, setup=ask))  # the URB's buffer is smaller
    assert reply.data == host.session.function.device_descriptor()[:4]


def test_a_reply_is_48_bytes_in_network_order() -> None:
    host = Host()
    host.say()
    host.session.feed(submit(0x01020304, OUT, 2, 3, b"abc"))
    host.session.pump(0)
    assert bytes(host.session.output) == struct.pack(">5I5i8x", 3, 0x01020304, *[0] * 4, 3, 0, 0, 0)


def test_a_stall_is_epipe() -> None:
    host = Host()
    (reply,) = host.say(submit(2, IN, 0, 10, setup=setup(0x80, 6, 0x0600, 0, 10)))
    assert (reply.status, reply.actual) == (-errno.EPIPE, 0)
    (reply,) = host.say(submit(3, IN, 9, 64))  # no such endpoint
    assert reply.status == -errno.EPIPE


def test_a_read_waits_for_a_packet_and_a_short_one_ends_it() -> None:
    host = Host()
    assert host.say(submit(2, IN, 1, 512)) == []
    assert [reply.seqnum for reply in host.say(submit(3, OUT, 2, 5, b"hello"))] == [3]
    assert host.turn(15 * MS) == []
    assert host.turn(16 * MS) == [Reply(3, 2, 0, 7, b"\x01\x60hello")]


def test_full_packets_share_a_urb_until_it_is_full() -> None:
    host = Host()
    assert host.say(submit(2, IN, 1, 128)) == []
    done = host.say(submit(3, OUT, 2, 124, b"x" * 124))
    assert [(reply.seqnum, reply.actual) for reply in done] == [(3, 124), (2, 128)]


def test_a_full_packet_alone_leaves_the_urb_open_until_the_timer_closes_it() -> None:
    host = Host()
    host.say(submit(2, IN, 1, 512))
    assert len(host.say(submit(3, OUT, 2, 62, b"x" * 62))) == 1
    (reply,) = host.turn(16 * MS)
    assert (reply.seqnum, reply.actual, reply.data[64:]) == (2, 66, b"\x01\x60")


def test_more_than_the_urb_has_room_for_is_an_overflow() -> None:
    host = Host()
    host.say(submit(2, IN, 1, 5), submit(3, OUT, 2, 10, b"0123456789"))
    (reply,) = host.turn(16 * MS)
    assert (reply.seqnum, reply.status, reply.data) == (2, -errno.EOVERFLOW, b"\x01\x60012")


def test_what_the_chip_does_not_take_waits_and_keeps_its_order() -> None:
    chip = Ft232r(paced=True)
    host = Host(chip)
    sent = bytes(range(256))
    assert host.say(submit(2, OUT, 2, 256, sent), submit(3, OUT, 2, 3, b"abc")) == []
    heard = b""
    for tick in range(400):
        done = host.turn(tick * MS // 8)
        heard += chip.dte.read(1000, host.now).data
        if any(reply.seqnum == 3 for reply in done):
            break
    host.turn(host.now + 20 * MS)
    assert heard + chip.dte.read(1000, host.now).data == sent + b"abc"


def test_an_unlink_gives_the_urb_back_and_it_is_answered_no_more() -> None:
    host = Host()
    host.say(submit(2, IN, 1, 64), submit(3, IN, 1, 64))
    assert host.say(unlink(4, 2)) == [Reply(4, 4, -errno.ECONNRESET, 0, b"")]
    host.say(submit(5, OUT, 2, 1, b"x"))
    assert [reply.seqnum for reply in host.turn(16 * MS)] == [3]
    assert len(host.session) == 0


def test_an_unlink_that_comes_too_late_is_status_0_behind_the_completion() -> None:
    host = Host()
    done = host.say(submit(2, OUT, 2, 1, b"x"), unlink(3, 2), unlink(4, 77))
    # taken and unlinked in one turn: the URB was still waiting, so it was unlinked
    assert done == [Reply(4, 3, -errno.ECONNRESET, 0, b""), Reply(4, 4, 0, 0, b"")]
    host.say(submit(5, OUT, 2, 1, b"y"))
    assert host.say(unlink(6, 5)) == [Reply(4, 6, 0, 0, b"")]


class Mute(Ft232r):
    """Says nothing to vendor requests."""

    def request(self, setup: Setup, data: bytes, now: int) -> bytes:
        raise NeverAnswered


def test_a_request_that_is_never_answered_waits_for_its_unlink_and_holds_up_no_other() -> None:
    host = Host(Mute())
    assert host.say(submit(2, OUT, 0, 0, setup=setup(0x40, 0))) == []
    assert len(host.say(submit(3, IN, 0, 18, setup=setup(0x80, 6, 0x100, 0, 18)))) == 1
    assert host.say(unlink(4, 2)) == [Reply(4, 4, -errno.ECONNRESET, 0, b"")]


def test_an_isochronous_transfer_is_stalled_and_its_descriptors_are_skipped() -> None:
    host = Host()
    (reply,) = host.say(submit(2, OUT, 2, 8, bytes(8) + bytes(2 * 16), packets=2))
    assert reply == Reply(3, 2, -errno.EPIPE, 0, b"")
    assert len(host.say(submit(3, OUT, 2, 1, b"x", packets=-1))) == 1  # -1 is none at all


def test_a_setup_packet_that_contradicts_its_urb_is_stalled() -> None:
    host = Host()
    (reply,) = host.say(submit(2, OUT, 0, 2, b"ab", setup=setup(0xC0, 5, 0, 0, 2)))
    assert reply.status == -errno.EPIPE


@pytest.mark.parametrize("size", [1, 7, 47, 48, 49])
def test_commands_may_come_in_any_pieces(size: int) -> None:
    host = Host()
    stream = submit(2, OUT, 2, 5, b"hello") + unlink(3, 99) + submit(4, OUT, 2, 2, b"ab")
    done = []
    for at in range(0, len(stream), size):
        done += host.say(stream[at : at + size])
    assert [reply.seqnum for reply in done] == [2, 3, 4]


@pytest.mark.parametrize(
    "nonsense",
    [
        bytes(48),
        b"\xff" * 48,
        submit(2, IN, 16, 64),
        submit(2, 2, 1, 64),
        submit(2, IN, 1, -1),
        submit(2, OUT, 2, 0x7FFFFFFF),
        submit(2, IN, 1, 64, packets=-2),
        submit(2, IN, 1, 64, packets=1 << 30),
        submit(2, IN, 1, 64) * 2,
        struct.pack(">I", 3) + bytes(44),
    ],
    ids=[
        "zeros", "ones", "endpoint 16", "direction 2", "length -1", "length 2 GiB", "packets -2",
        "packets 1 Gi", "seqnum twice", "a reply",
    ],
)  # fmt: skip
def test_what_is_no_usbip_ends_the_session(nonsense: bytes) -> None:
    host = Host()
    with pytest.raises(ProtocolError):
        host.say(nonsense)


def test_urbs_without_end_end_it_too() -> None:
    host = Host()
    flood = b"".join(submit(seqnum, IN, 1, 64) for seqnum in range(2, 10_000))
    with pytest.raises(ProtocolError):
        host.session.feed(flood)
    assert len(host.session) <= 4096
