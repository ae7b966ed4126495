# SPDX-License-Identifier: MIT
"""The latency of a port: which of two methods took, read back, and put back at the end."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import termios
from pathlib import Path

import pytest

from udriver.drivers.latency import ASYNC_LOW_LATENCY, Latency


class SerialCore:
    """TIOCGSERIAL and TIOCSSERIAL of a driver: ``keeps`` are the flags it does not drop."""

    def __init__(self, keeps: int | None, flags: int = 0) -> None:
        self.keeps = keeps
        self.flags = flags

    def ioctl(self, fd: int, request: int, argument: bytes) -> bytes:
        if self.keeps is None:
            raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))
        if request == termios.TIOCSSERIAL:
            self.flags = struct.unpack_from("i", argument, 16)[0] & self.keeps
        answer = bytearray(72)
        struct.pack_into("i", answer, 16, self.flags)
        return bytes(answer)


@pytest.fixture
def timer(tmp_path: Path) -> Path:
    """The latency_timer of ttyUSB9, at its 16 ms, below ``tmp_path``."""
    file = tmp_path / "bus/usb-serial/devices/ttyUSB9/latency_timer"
    file.parent.mkdir(parents=True)
    file.write_text("16\n")
    return file


def lowered(core: SerialCore, sysfs: Path, monkeypatch: pytest.MonkeyPatch) -> Latency:
    monkeypatch.setattr(fcntl, "ioctl", core.ioctl)
    latency = Latency("/dev/ttyUSB9", sysfs)
    latency.lower(0)
    return latency


def test_the_flag_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    core = SerialCore(keeps=-1, flags=0x10)
    latency = lowered(core, tmp_path, monkeypatch)
    assert (latency.method, latency.timer_ms, latency.reason) == ("ASYNC_LOW_LATENCY", None, "")
    assert core.flags == 0x10 | ASYNC_LOW_LATENCY
    latency.restore()
    assert core.flags == 0x10


@pytest.mark.parametrize("keeps", [None, 0, -1], ids=["no ioctl", "flag dropped", "flag idle"])
def test_else_the_timer_is_set_and_put_back(
    keeps: int | None, timer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    latency = lowered(SerialCore(keeps), tmp_path, monkeypatch)
    assert (latency.method, latency.timer_ms) == ("latency_timer", 1)
    latency.restore()
    assert timer.read_text() == "16"


def test_a_timer_that_somebody_else_set_is_left_alone(
    timer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timer.write_text("1\n")
    latency = lowered(SerialCore(None), tmp_path, monkeypatch)
    assert latency.method == "latency_timer"
    latency.restore()
    assert timer.read_text() == "1\n"


def test_neither_took_and_it_says_why(
    timer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: Path, text: str) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "write_text", refused)
    latency = lowered(SerialCore(0), tmp_path, monkeypatch)
    assert (latency.method, latency.timer_ms) == (None, 16)
    assert latency.reason == (f"the driver dropped ASYNC_LOW_LATENCY; {timer}: Permission denied")


def test_a_tty_with_neither(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    latency = lowered(SerialCore(None), tmp_path, monkeypatch)
    assert (latency.method, latency.timer_ms) == (None, None)
    assert latency.reason == (
        "TIOCSSERIAL: Inappropriate ioctl for device; there is no latency_timer"
    )
