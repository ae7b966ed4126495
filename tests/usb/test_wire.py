# SPDX-License-Identifier: MIT
"""The server at its socket, with a hand-made vhci at the other end: pacing, ends, misuse."""

from __future__ import annotations

import random
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import Any

import pytest

from tests.usb.fake_vhci import IN, OUT, Reply, configure, replies, submit, unlink
from tests.usb.host import MS
from udriver_hw.chips.cable import FarEnd, NullModem
from udriver_hw.chips.firmware import Script, parse_script
from udriver_hw.chips.ft232r import Ft232r
from udriver_hw.wire_usbip import UsbipWire

DEADLINE = 20.0  # s; only a hang takes that long


class Client:
    """The host's end."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        end.settimeout(DEADLINE)
        self._stream = bytearray()
        self.inward: set[int] = set()

    def send(self, *commands: bytes) -> None:
        for command in commands:
            if command[3] == 1 and command[15] == IN:
                self.inward.add(int.from_bytes(command[4:8], "big"))
        self.end.sendall(b"".join(commands))

    def replies(self, count: int) -> list[Reply]:
        """The next ``count``; EOFError if it hangs up before."""
        found: list[Reply] = []
        while len(found) < count:
            found += replies(self._stream, self.inward)
            if len(found) < count:
                data = self.end.recv(65536)
                if not data:
                    raise EOFError
                self._stream += data
        return found

    def hung_up(self) -> bool:
        """Wait until the server is gone."""
        try:
            while self.end.recv(65536):
                pass
        except ConnectionResetError:
            pass
        return True


@contextmanager
def serving(*chips: Ft232r) -> Iterator[tuple[UsbipWire, threading.Thread, list[Client]]]:
    """A wire in its thread; at the end the thread is gone."""
    wire = UsbipWire(*chips)
    thread = threading.Thread(target=wire.serve)
    thread.start()
    clients = [Client(end) for end in wire.host_ends]
    try:
        yield wire, thread, clients
    finally:
        wire.unplug()
        thread.join(DEADLINE)
        for client in clients:
            client.end.close()
        assert not thread.is_alive()


def test_a_byte_goes_round() -> None:
    with serving(Ft232r()) as (_, _, (client,)):
        client.send(configure(), submit(2, IN, 1, 512), submit(3, OUT, 2, 5, b"hello"))
        assert [reply.seqnum for reply in client.replies(3)] == [1, 3, 2]


def test_a_latency_timer_of_1_ms_is_not_rounded_to_2() -> None:
    chip = Ft232r()
    chip.latency.milliseconds = 1
    with serving(chip) as (_, _, (client,)):
        client.send(configure())
        client.replies(1)
        began = time.monotonic_ns()
        for seqnum in range(2, 402, 2):
            client.send(submit(seqnum, IN, 1, 512), submit(seqnum + 1, OUT, 2, 1, b"x"))
            client.replies(2)
        took = time.monotonic_ns() - began
    assert took > 199 * MS  # never less; and how much more is the machine's affair


def test_two_chips_of_one_wire_talk() -> None:
    one, other = Ft232r("A"), Ft232r("B")
    one.cable = other.cable = NullModem(one.dte, other.dte)
    with serving(one, other) as (_, _, (a, b)):
        for client in (a, b):
            client.send(configure())
            client.replies(1)
        b.send(submit(2, IN, 1, 512))
        a.send(submit(2, OUT, 2, 4, b"over"))
        data = b""
        seqnum = 2
        while b"over" not in data:
            data += b.replies(1)[0].data[2:]
            seqnum += 1
            b.send(submit(seqnum, IN, 1, 512))


def test_the_host_s_end_closed_is_the_end() -> None:
    with serving(Ft232r()) as (wire, thread, (client,)):
        client.send(configure(), submit(2, IN, 1, 512))
        client.replies(1)
        client.end.close()
        thread.join(DEADLINE)
        assert not thread.is_alive()
        with pytest.raises(CancelledError):
            wire.call(lambda now: now).result(DEADLINE)


def test_an_unplug_hangs_up_in_the_middle_of_a_read() -> None:
    with serving(Ft232r()) as (wire, _, (client,)):
        client.send(configure(), submit(2, IN, 1, 512))
        client.replies(1)
        wire.unplug()
        assert client.hung_up()


def test_a_script_can_pull_the_plug_and_its_last_words_arrive() -> None:
    chip = Ft232r()
    script = parse_script('any 2\nsend b"bye"\ndelay 40\nunplug')
    chip.cable = FarEnd(chip.dte, Script(script))
    with serving(chip) as (_, thread, (client,)):
        client.send(configure(), submit(2, IN, 1, 512), submit(3, OUT, 2, 2, b"ab"))
        assert client.replies(3)[2].data[2:] == b"bye"
        assert client.hung_up()
        thread.join(DEADLINE)
        assert not thread.is_alive()


@pytest.mark.parametrize("nonsense", [bytes(48), b"\xff" * 480, submit(2, IN, 1, -5)])
def test_nonsense_is_an_unplug(nonsense: bytes) -> None:
    with serving(Ft232r()) as (_, thread, (client,)):
        client.send(configure())
        client.replies(1)
        client.send(nonsense)
        assert client.hung_up()
        thread.join(DEADLINE)
        assert not thread.is_alive()


def test_half_a_command_and_then_the_end() -> None:
    with serving(Ft232r()) as (_, thread, (client,)):
        client.send(submit(2, OUT, 2, 1000, b"x" * 10)[:55])
        client.end.shutdown(socket.SHUT_WR)
        thread.join(DEADLINE)
        assert not thread.is_alive()


def test_a_host_that_reads_no_replies_is_not_listened_to_for_ever() -> None:
    with serving(Ft232r()) as (wire, _, (client,)):
        client.end.setblocking(False)
        flood = b"".join(submit(seqnum, OUT, 2, 0) for seqnum in range(2, 100_000))
        sent = 0
        poll = select.poll()
        poll.register(client.end, select.POLLOUT)
        while poll.poll(500) and sent < len(flood):
            sent += client.end.send(flood[sent : sent + 4800])
        assert sent < len(flood)
        assert wire.call(lambda now: "awake").result(DEADLINE) == "awake"


def test_what_call_raises_is_the_caller_s() -> None:
    def fails(now: int) -> None:
        raise KeyError("mine")

    with serving(Ft232r()) as (wire, _, _):
        with pytest.raises(KeyError, match="mine"):
            wire.call(fails).result(DEADLINE)
        assert wire.call(lambda now: now > 0).result(DEADLINE)


def test_it_sleeps_while_nothing_happens() -> None:
    with serving(Ft232r()) as (_, thread, (client,)):
        client.send(configure(), submit(2, IN, 1, 512), submit(3, OUT, 2, 62, b"x" * 62))
        client.replies(3)  # with nothing left to come
        before = _cpu(thread)
        time.sleep(0.3)
        assert _cpu(thread) - before < 100_000_000


def _cpu(thread: threading.Thread) -> int:
    assert thread.ident is not None
    return time.clock_gettime_ns(time.pthread_getcpuclockid(thread.ident))


@pytest.mark.parametrize("seed", range(6))
def test_urbs_and_unlinks_at_random_each_get_one_answer(
    seed: int, record_property: Callable[[str, Any], None]
) -> None:
    record_property("seed", seed)
    dice = random.Random(seed)
    with serving(Ft232r(), Ft232r()) as (wire, _, clients):
        for client in clients:
            client.send(configure(1))
            client.replies(1)
            expected = {}
            batch = []
            for seqnum in range(2, 302):
                kind = dice.randrange(4)
                if kind == 0:
                    batch.append(submit(seqnum, IN, 1, dice.choice((64, 512))))
                elif kind == 1:
                    batch.append(submit(seqnum, OUT, 2, 80, bytes(80)))
                else:
                    batch.append(unlink(seqnum, dice.randrange(2, seqnum + 1)))
                expected[seqnum] = kind
            client.send(*batch)
            client.send(*[unlink(1000 + seqnum, seqnum) for seqnum in expected])
            # an unlink's is one; a URB's is its completion, or it went with its unlink
            told = {seqnum for seqnum, kind in expected.items() if kind > 1}
            told |= {1000 + seqnum for seqnum in expected}
            answered: list[Reply] = []
            while not told <= {reply.seqnum for reply in answered}:
                answered += client.replies(1)
            counts = [reply.seqnum for reply in answered]
            assert len(counts) == len(set(counts))
        assert wire.call(lambda now: "alive").result(DEADLINE) == "alive"
