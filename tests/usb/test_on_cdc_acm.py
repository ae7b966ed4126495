# SPDX-License-Identifier: MIT
"""Of cdc_acm alone: what the class, or its driver, has not. Runs in the guest; skipped elsewhere."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios
import time
from collections.abc import Callable

import pytest

from tests.usb.test_under_its_driver import (
    DEADLINE,
    LINES,
    MIWAIT,
    TIOCMIWAIT,
    Sleeper,
    asleep_in,
    chip,
    icount,
    modem,
    raw,
    read,
    state,
)
from udriver_hw.spawned import SpawnedUsb

__all__ = ["chip"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.usefixtures("usb_server"),
]


def test_cts_is_always_on_and_moves_for_nobody(chip: SpawnedUsb) -> None:
    with raw(chip.path) as fd:
        before = icount(fd)
        for level in ("on", "off"):
            chip.tell(f"line cts {level}")
            assert modem(fd) & LINES["cts"]
        chip.tell("line dsr on")  # a notification, behind which one of CTS would have come, too
        until(lambda: modem(fd) & LINES["dsr"])
        assert {name: count - before[name] for name, count in icount(fd).items() if count != before[name]} == {"dsr": 1}  # fmt: skip


def test_the_beginning_of_a_ring_wakes_and_is_counted_and_its_end_is_only_a_level(
    chip: SpawnedUsb,
) -> None:
    with raw(chip.path) as fd:
        before = icount(fd)["ri"]
        for number in range(1, 3):
            waiter = Sleeper(lambda: fcntl.ioctl(fd, TIOCMIWAIT, LINES["ri"]))
            asleep_in(waiter, *MIWAIT)
            chip.tell("line ri on")
            assert waiter.end() == 0
            assert modem(fd) & LINES["ri"]
            waiter = Sleeper(lambda: fcntl.ioctl(fd, TIOCMIWAIT, LINES["ri"] | LINES["dcd"]))
            asleep_in(waiter, *MIWAIT)
            chip.tell("line ri off")
            until(lambda: not modem(fd) & LINES["ri"])
            assert waiter.result == "asleep"
            chip.tell(f"line dcd {'on' if number & 1 else 'off'}")
            assert waiter.end() == 0
            assert icount(fd)["ri"] == before + number


def test_a_break_of_so_many_milliseconds_is_begun_and_ended_by_the_driver(
    chip: SpawnedUsb,
) -> None:
    """tcsendbreak(): cdc_acm has no TTY_DRIVER_HARDWARE_BREAK, so the kernel does the waiting."""
    with raw(chip.path, iflag=termios.PARMRK) as fd:
        before = icount(fd)["brk"]
        began = time.monotonic()
        termios.tcsendbreak(fd, 0)
        assert time.monotonic() - began >= 0.25
        assert state(chip)["break"] is False
        assert read(fd, 3) == b"\xff\0\0"
        assert icount(fd)["brk"] == before + 1


def test_drained_is_what_the_chip_has_taken(chip: SpawnedUsb) -> None:
    with raw(chip.path) as fd:
        chip.tell("hold on")  # TXD stands still
        os.write(fd, b"not yet sent")
        assert Sleeper(lambda: termios.tcdrain(fd)).end() is None
        assert not select.select([fd], [], [], 0.1)[0]
        chip.tell("hold off")
        assert read(fd, 12) == b"not yet sent"


def test_dcd_that_falls_hangs_up_a_tty_without_clocal(chip: SpawnedUsb) -> None:
    with raw(chip.path) as fd:
        chip.tell("line dcd on")
        until(lambda: modem(fd) & LINES["dcd"])
        mode = termios.tcgetattr(fd)
        mode[2] &= ~termios.CLOCAL
        termios.tcsetattr(fd, termios.TCSANOW, mode)
        chip.tell("line dcd off")
        assert os.read(fd, 1) == b""
        with pytest.raises(OSError, match="Input/output"):
            fcntl.ioctl(fd, termios.TIOCMGET, struct.pack("i", 0))
    with raw(chip.path) as fd:
        os.write(fd, b"again")
        assert read(fd, 5) == b"again"


def until(condition: Callable[[], object]) -> None:
    """A notification is on its way."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)
