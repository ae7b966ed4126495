# SPDX-License-Identifier: MIT
"""Of cp210x alone: what it does not ask its chip for. Runs in the guest; skipped elsewhere."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import termios

import pytest

from tests.usb.test_under_its_driver import (
    LINES,
    TCGETS2,
    TIOCMIWAIT,
    chip,
    icount,
    modem,
    raw,
    read,
    set_rate,
    state,
)
from udriver_hw.spawned import SpawnedUsb

__all__ = ["chip"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.usefixtures("usb_server"),
]


def test_there_is_no_tiocmiwait_and_no_edge_is_counted_but_levels_are_told(
    chip: SpawnedUsb,
) -> None:
    with raw(chip.path) as fd:
        before = icount(fd)
        for line, bit in LINES.items():
            for level in ("on", "off"):
                chip.tell(f"line {line} {level}")
                assert bool(modem(fd) & bit) == (level == "on")
        assert icount(fd) == before
        with pytest.raises(OSError, match="Inappropriate ioctl") as caught:
            fcntl.ioctl(fd, TIOCMIWAIT, LINES["cts"])
        assert caught.value.errno == errno.ENOTTY


@pytest.mark.parametrize("kind", ["parity", "framing", "overrun", "break"])
def test_without_inpck_no_error_is_told_and_none_counted(chip: SpawnedUsb, kind: str) -> None:
    """It asks for events only with INPCK; without, an error is the character that was sampled."""
    byte = b"\0" if kind == "break" else b"x"
    with raw(chip.path, iflag=termios.PARMRK) as fd:
        assert state(chip)["embed_events"] is False
        before = icount(fd)
        chip.tell('send b"ab"')
        chip.tell(f"error {kind} {byte!r}")
        chip.tell('send b"cd"')
        assert read(fd, 5) == b"ab" + byte + b"cd"
        assert icount(fd) == before


def test_the_escape_character_is_data_while_events_are_embedded(chip: SpawnedUsb) -> None:
    with raw(chip.path, iflag=termios.INPCK) as fd:
        assert state(chip)["embed_events"] is True
        data = bytes(range(256)) * 4 + b"\xec" * 100  # CP210X_ESCCHAR
        os.write(fd, data)
        assert read(fd, len(data)) == data


def test_the_uart_is_off_while_nobody_has_it_open(chip: SpawnedUsb) -> None:
    with raw(chip.path):
        assert state(chip)["enabled"] is True
    assert state(chip)["enabled"] is False
    chip.tell('send b"nobody hears"')
    with raw(chip.path) as fd:
        os.write(fd, b"x")
        assert read(fd, 1) == b"x"


@pytest.mark.parametrize(
    ("asked", "says", "does"),
    [(12345, 14400, 14397), (1_000_000, 1_000_000, 923077), (2_000_000, 1_000_000, 923077)],
)
def test_the_tty_says_what_rate_was_asked_of_the_chip(
    chip: SpawnedUsb, asked: int, says: int, does: int
) -> None:
    """A rate below a million is one of AN205's table; the driver does not know what becomes of others."""
    with raw(chip.path) as fd:
        set_rate(fd, asked)
        told = struct.unpack("<I", fcntl.ioctl(fd, TCGETS2, bytes(44))[40:44])[0]
        assert (told, state(chip)["baudrate"]) == (says, does)
