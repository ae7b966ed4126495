# SPDX-License-Identifier: MIT
"""Faults on our FT232R under the kernel's own ftdi_sio. Runs in the guest; skipped elsewhere."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import select
import struct
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.usb.test_under_its_driver import (
    LINES,
    MIWAIT,
    TIOCMIWAIT,
    Sleeper,
    asleep_in,
    icount,
    in_d_state,
    modem,
    raw,
    read,
    state,
    until_hung_up,
)
from udriver import UsbSerial
from udriver.errors import DeviceGone, Timeout
from udriver_hw import vhci
from udriver_hw.spawned import SpawnedUsb, spawn_usb

SOON = 0.5  # s; what does not come in this time does not come
PATIENCE = 20.0  # s; only a hang takes that long

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


class Faulty:
    """One server for the whole file: a start takes seconds in a guest, a plug takes half of one."""

    def __init__(self, folder: Path) -> None:
        self._script, self._log = folder / "faults.txt", folder / "log.jsonl"
        self._script.write_text("")
        self._seen = 0
        self.ports = taken() + 1  # of vhci, ours among them
        options = ("--faults", str(self._script), "--fault-log", str(self._log))
        self.server: SpawnedUsb = spawn_usb("ft232r", *options)
        self.path = self.server.path

    def plug(self, text: str) -> None:
        """A new chip with these faults, at the same path."""
        self._script.write_text(text)
        self.server.tell("detach")  # so that the last one's faults are over
        self._seen = len(self._log.read_text().splitlines())
        path, _, _at = self.server.tell("plug").rpartition(" ")
        assert path == self.path

    def log(self, count: int = 0) -> list[dict[str, Any]]:
        """What happened since the plug, once it is so many."""
        end = time.monotonic() + PATIENCE
        while True:
            entries = self._log.read_text().splitlines()[self._seen :]
            if len(entries) >= count:
                return [json.loads(entry) for entry in entries]
            assert time.monotonic() < end, entries
            time.sleep(0.01)

    def state(self) -> dict[str, Any]:
        return state(self.server)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    """The server."""
    if "UDRIVER_USB" not in os.environ:
        pytest.skip("rung usbip: runs in the guest that tests/usb/test_rung_usbip.py boots")
    faulty = Faulty(tmp_path_factory.mktemp("faults"))
    with faulty.server:
        yield faulty


def taken() -> int:
    """How many ports of vhci are in use."""
    return sum(not port.free for port in vhci.ports())


@pytest.fixture
def faulty(server: Faulty) -> Iterator[Callable[[str], Faulty]]:
    """``faulty(text)``: the device with these faults; afterwards nobody hangs."""

    def plug(text: str) -> Faulty:
        server.plug(text)
        return server

    yield plug
    end = time.monotonic() + PATIENCE
    # a worker of the kernel takes its time over a disconnect, and frees the port at its end
    while stuck := in_d_state() or taken() > server.ports:
        assert time.monotonic() < end, stuck
        time.sleep(0.05)


Plug = Callable[[str], Faulty]


# the line


def test_drop(faulty: Plug) -> None:
    device = faulty("drop 3 at byte 10")
    with UsbSerial.open(device.path) as driver:
        driver.write(bytes(range(50)))
        assert driver.readexactly(47, PATIENCE) == bytes([*range(10), *range(13, 50)])
        with pytest.raises(Timeout):
            driver.read(1, SOON)
        assert driver.stats().received + len(device.log()) == 50


def test_garble(faulty: Plug) -> None:
    device = faulty("garble 1 in 20 bytes")
    sent = bytes(range(250)) * 4
    with UsbSerial.open(device.path) as driver:
        got = b"".join(
            driver.transact(sent[at : at + 50], 50, PATIENCE) for at in range(0, 1000, 50)
        )
    wrong = [at for at in range(1000) if got[at] != sent[at]]
    assert len(wrong) > 10
    assert wrong == [one["position"] for one in device.log()]


def test_delay(faulty: Plug) -> None:
    device = faulty("delay 300 at byte 5")
    with UsbSerial.open(device.path) as driver:
        began = time.monotonic_ns()
        driver.write(b"0123456789")
        assert driver.readexactly(5, PATIENCE) == b"01234"
        assert driver.readexactly(5, PATIENCE) == b"56789"
        assert time.monotonic_ns() - began > 300_000_000


def test_never_answer(faulty: Plug) -> None:
    device = faulty("never answer at byte 5")
    with UsbSerial.open(device.path) as driver:
        assert driver.transact(b"01234", 5, PATIENCE) == b"01234"
        with pytest.raises(Timeout):
            driver.transact(b"56789", 5, SOON)
        assert driver.stats().received == 5


@pytest.mark.parametrize(
    ("text", "count", "moved", "stream"),
    [
        ("parity 3 at byte 2", "parity", 3, b"ab\xff\0c\xff\0d\xff\0ef"),
        ("framing at byte 2", "frame", 1, b"ab\xff\0cdef"),
        ("break at byte 2", "brk", 1, b"ab\xff\0\0cdef"),
        ("break storm 40 at byte 2", "brk", 40, b"ab" + b"\xff\0\0" * 40 + b"cdef"),
        ("overrun 2 at byte 2", "overrun", 1, b"abef"),
        ("parity every 2 bytes", "parity", 2, b"ab\xff\0cd\xff\0ef"),
    ],
)
def test_line_error(faulty: Plug, text: str, count: str, moved: int, stream: bytes) -> None:
    """Counted once each by TIOCGICOUNT, and marked in its place."""
    device = faulty(text)
    with raw(device.path, iflag=termios.PARMRK | termios.INPCK) as fd:
        before = icount(fd)
        os.write(fd, b"abcdef")
        assert read(fd, len(stream)) == stream
        after = icount(fd)
    kinds = ("frame", "overrun", "parity", "brk", "buf_overrun")
    changed = {name: after[name] - before[name] for name in kinds if after[name] != before[name]}
    assert changed == {count: moved}


def test_overruns_are_lost_and_said(faulty: Plug) -> None:
    device = faulty("overrun 3 every 100 bytes")
    with UsbSerial.open(device.path) as driver:
        before = driver.port.icount()
        driver.write(bytes(range(250)) * 4)
        # ftdi_sio tells each overrun by a NUL, too, which a raw tty without PARMRK lets through
        data = driver.readexactly(1000 - 27 + 9, PATIENCE)
        after = driver.port.icount()
        assert before is not None
        assert after is not None
        assert after.overrun - before.overrun == 9
    expected = bytearray()
    lost = {one["position"] for one in device.log()}
    for at in range(1000):
        if at not in lost:
            expected += b"\0" * (at - 1 in lost) + bytes([at % 250])
    assert data == expected


@pytest.mark.parametrize("line", LINES)
def test_modem_edge(faulty: Plug, line: str) -> None:
    device = faulty(f"line {line} on at byte 5")
    with raw(device.path) as fd:
        os.write(fd, b"01234")
        assert read(fd, 5) == b"01234"
        before = icount(fd)[line]
        assert not modem(fd) & LINES[line]
        waiter = Sleeper(lambda: fcntl.ioctl(fd, TIOCMIWAIT, LINES[line]))
        asleep_in(waiter, *MIWAIT)
        os.write(fd, b"5")
        assert waiter.end() == 0
        assert modem(fd) & LINES[line]
        assert icount(fd)[line] == before + 1
        assert read(fd, 1) == b"5"


def test_modem_edges_in_time_are_counted_each(faulty: Plug) -> None:
    device = faulty("line ri flip every 100 ms")
    with raw(device.path) as fd:
        before, seen = icount(fd)["ri"], len(device.log())
        entries = device.log(seen + 15)
        end = time.monotonic() + PATIENCE
        while icount(fd)["ri"] - before < len(entries) - seen:
            assert time.monotonic() < end
        assert 0 <= icount(fd)["ri"] - before - (len(entries) - seen) <= 5  # it goes on meanwhile


# the plug


def test_unplug_gives_exactly_the_bytes_before_it(faulty: Plug) -> None:
    device = faulty("unplug at byte 7")
    with UsbSerial.open(device.path) as driver:
        for number in range(7):
            assert driver.transact(bytes([number]), 1, PATIENCE) == bytes([number])
        with pytest.raises(DeviceGone):
            driver.transact(b"x", 1, PATIENCE)
        assert driver.stats().received == 7
    (entry,) = device.log(1)
    assert entry["what"] == "unplugged; lost in the chip: 0 to the host, 0 from it"


def test_unplug_in_a_stream_says_how_many_went_with_the_plug(
    faulty: Plug, record_property: Callable[[str, object], None]
) -> None:
    device = faulty("unplug at byte 5000")
    with UsbSerial.open(device.path) as driver:
        with pytest.raises(DeviceGone):
            driver.write(bytes(100_000), PATIENCE)
        received = driver.stats().received
    (entry,) = device.log(1)
    told = re.search(r"(\d+) to the host, (\d+) from it", entry["what"])
    assert told is not None
    in_chip = int(told[1])
    assert entry["position"] == 5000
    assert 0 < in_chip <= 256
    assert received <= 5000 - in_chip  # less by what the kernel threw away when it hung up
    record_property("unplug at byte 5000", f"{received} received, {in_chip} lost in the chip")


def test_unplug_behind_a_delay_lets_a_stream_arrive(faulty: Plug) -> None:
    device = faulty("delay 1000 at byte 5000\nunplug at byte 5000")
    with UsbSerial.open(device.path) as driver:
        writer = Sleeper(lambda: driver.write(bytes(20_000), PATIENCE))
        assert driver.readexactly(5000, PATIENCE) == bytes(5000)
        with pytest.raises(DeviceGone):
            driver.read(1, PATIENCE)
        assert isinstance(writer.end(), DeviceGone), writer.result
        assert driver.stats().received == 5000
    assert device.log(2)[1]["what"].startswith("unplugged; lost in the chip: 0 to the host")


def test_unplug_at_a_urb(faulty: Plug) -> None:
    device = faulty("unplug at urb 9")
    with raw(device.path) as fd:
        for number in range(9):  # a URB each, as none is sent before the last one came back
            os.write(fd, bytes([number]))
            assert read(fd, 1) == bytes([number])
        os.write(fd, b"x")
        until_hung_up(fd)
    (entry,) = device.log(1)
    assert (entry["position"], entry["what"]) == (
        9, "unplugged; lost in the chip: 1 to the host, 0 from it",
    )  # fmt: skip


def test_unplug_at_a_time_wakes_whoever_sleeps(faulty: Plug) -> None:
    device = faulty("unplug at 2500 ms")
    with raw(device.path) as fd:
        reader = Sleeper(lambda: os.read(fd, 1))
        edge = Sleeper(lambda: fcntl.ioctl(fd, TIOCMIWAIT, LINES["ri"]))
        assert reader.end() == b""
        assert isinstance(edge.end(), OSError)
    assert len(device.log(1)) == 1


def test_unplug_at_a_request(faulty: Plug) -> None:
    device = faulty("unplug at setup 40:03")
    with pytest.raises(OSError, match=r".") as error:
        UsbSerial.open(device.path).close()
    assert isinstance(error.value, (DeviceGone, FileNotFoundError))
    assert len(device.log(1)) == 1


# requests


def test_stall_of_set_baud_is_not_told_to_whoever_asked(faulty: Plug) -> None:
    device = faulty("stall every setup 40:03")
    before = device.state()["baudrate"]
    with raw(device.path) as fd:
        mode = termios.tcgetattr(fd)
        mode[4] = mode[5] = termios.B9600
        termios.tcsetattr(fd, termios.TCSANOW, mode)
        assert termios.tcgetattr(fd)[4] == termios.B9600
        told = device.state()
        assert told["baudrate"] == before
        assert told["faults"]["stall every setup 40:03"] == len(device.log()) >= 2
        assert {setup[1] for setup in told["stalled"][-2:]} == {3}
        os.write(fd, b"alive")
        assert read(fd, 5) == b"alive"


def test_stall_once_and_the_next_one_is_done(faulty: Plug) -> None:
    device = faulty("stall at setup 40:03")
    with raw(device.path) as fd:
        mode = termios.tcgetattr(fd)
        mode[4] = mode[5] = termios.B9600
        termios.tcsetattr(fd, termios.TCSANOW, mode)
        assert device.state()["baudrate"] == 9600
        assert len(device.log()) == 1


def test_never_answered_set_baud_is_given_up_after_its_timeout(faulty: Plug) -> None:
    device = faulty("never answer at setup 40:03")
    began = time.monotonic_ns()
    with raw(device.path) as fd:
        assert time.monotonic_ns() - began > 1_000_000_000  # WDR_SHORT_TIMEOUT
        os.write(fd, b"alive")
        assert read(fd, 5) == b"alive"
    assert [one["what"] for one in device.log()] == ["mute"]


def test_never_answered_modem_status_is_an_error(faulty: Plug) -> None:
    device = faulty("never answer at setup c0:05")
    with raw(device.path) as fd:
        with pytest.raises(OSError, match=r".") as error:
            modem(fd)
        assert error.value.errno in (errno.EIO, errno.ETIMEDOUT)
        modem(fd)  # and it was that once
        os.write(fd, b"alive")
        assert read(fd, 5) == b"alive"
    assert [one["what"] for one in device.log()] == ["mute"]


def test_delayed_request(faulty: Plug) -> None:
    device = faulty("delay 400 at setup 40:03")
    began = time.monotonic_ns()
    with raw(device.path) as fd:
        assert time.monotonic_ns() - began > 400_000_000
        assert device.state()["baudrate"] == 115385
        assert fd
    assert [one["what"] for one in device.log()] == ["400 ms"]


# URBs


def test_stalled_write_urb_loses_what_is_in_it(faulty: Plug) -> None:
    device = faulty("stall tx at urb 1")
    with UsbSerial.open(device.path) as driver:
        assert driver.transact(b"first", 5, PATIENCE) == b"first"
        with pytest.raises(Timeout):
            driver.transact(b"second", 6, SOON)
        assert driver.transact(b"third", 5, PATIENCE) == b"third"
        assert driver.stats().received == 10
    assert [one["position"] for one in device.log()] == [1]


def test_stalled_read_urbs_are_not_asked_for_again_until_it_is_reopened(faulty: Plug) -> None:
    device = faulty("stall 2 at urb 1")  # ftdi_sio has two
    with UsbSerial.open(device.path) as driver:
        assert driver.transact(b"first", 5, PATIENCE) == b"first"
        with pytest.raises(Timeout):
            driver.transact(b"second", 6, SOON)
    with UsbSerial.open(device.path) as driver:
        assert driver.transact(b"third", 5, PATIENCE) == b"third"
    assert len(device.log()) == 2


def test_one_stalled_read_urb_costs_nothing_but_a_place(faulty: Plug) -> None:
    device = faulty("stall at urb 1")
    with UsbSerial.open(device.path) as driver:
        for word in (b"first", b"second", b"third"):
            assert driver.transact(word, len(word), PATIENCE) == word
    assert len(device.log()) == 1


def test_late_read_urb(faulty: Plug) -> None:
    device = faulty("delay 400 at urb 1")
    with UsbSerial.open(device.path) as driver:
        assert driver.transact(b"first", 5, PATIENCE) == b"first"
        began = time.monotonic_ns()
        assert driver.transact(b"second", 6, PATIENCE) == b"second"
        assert time.monotonic_ns() - began > 400_000_000
    assert len(device.log()) == 1


def test_never_answered_write_urb_holds_the_writer_back(faulty: Plug) -> None:
    device = faulty("never answer tx at urb 1")
    with raw(device.path) as fd:
        os.write(fd, b"x")
        assert read(fd, 1) == b"x"
        os.set_blocking(fd, False)
        taken = 0
        while select.select([], [fd], [], SOON)[1]:
            taken += os.write(fd, bytes(1024))
            assert taken < 1 << 20
        outq = struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)))[0]
        assert 0 < outq <= taken
        device.server.tell("unplug")  # else the close waits its 30 s for the last byte
        until_hung_up(fd)
    assert [one["what"] for one in device.log()] == ["mute"]
