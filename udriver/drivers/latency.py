# SPDX-License-Identifier: MIT
"""How long a chip may hold a short packet back, and how a driver asks it not to.

An FTDI chip sends a packet when 62 bytes are there or its latency timer ends, 16 ms after power-on,
so each short answer is late by up to that. Two ways to shorten it, tried in this order: the flag
ASYNC_LOW_LATENCY (TIOCSSERIAL; for ftdi_sio it is 1 ms, and no privilege is asked), then
``latency_timer`` in sysfs, which belongs to root unless a udev rule wrote it before. Either is
believed only when it is read back. Source: linux/serial.h, drivers/usb/serial/ftdi_sio.c
(set_serial_info, latency_timer_show).
"""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from pathlib import Path

ASYNC_LOW_LATENCY = 1 << 13
FAST_MS = 1
_SERIAL_STRUCT = (
    72  # bytes, struct serial_struct on 64 bit; less on 32 bit, the flags at 16 on both
)
_FLAGS = 16


class Latency:
    """The latency of one open tty: made short here, and put back by restore().

    ``method`` is "ASYNC_LOW_LATENCY", "latency_timer" or None when neither took; ``timer_ms`` what
    sysfs says now and ``found_ms`` what it said first, None where the driver has no timer; ``file`` is the
    timer's; ``reason`` why neither took, or "".
    """

    def __init__(self, device: str, sysfs: Path = Path("/sys")) -> None:
        self._fd = -1
        name = os.path.basename(device)
        self.file = sysfs / "bus/usb-serial/devices" / name / "latency_timer"
        self._flags: int | None = None
        self._timer: int | None = None
        self.found_ms: int | None = None
        self.method: str | None = None
        self.reason = ""

    @property
    def timer_ms(self) -> int | None:
        """The latency timer in ms, None where there is none to be read."""
        try:
            return int(self.file.read_text())
        except (OSError, ValueError):
            return None

    def lower(self, fd: int) -> None:
        """Make it short, ``fd`` being the open tty, by the first method that is still so when read back."""
        self._fd = fd
        self.found_ms = self.timer_ms
        if self._set_flag():
            self.method = "ASYNC_LOW_LATENCY"
        elif self._set_timer():
            self.method = "latency_timer"

    def restore(self) -> None:
        """Put back what was found. Raises OSError on a tty that is gone."""
        if self._timer is not None:
            self.file.write_text(str(self._timer))
            self._timer = None
        if self._flags is not None:
            _set_flags(self._fd, self._flags)
            self._flags = None

    def _set_flag(self) -> bool:
        try:
            found = _flags(self._fd)
            _set_flags(self._fd, found | ASYNC_LOW_LATENCY)
            taken = bool(_flags(self._fd) & ASYNC_LOW_LATENCY)
        except OSError as error:
            self.reason = f"TIOCSSERIAL: {error.strerror}"
            return False
        self._flags = found
        if not taken:
            self.reason = "the driver dropped ASYNC_LOW_LATENCY"
        elif (timer := self.timer_ms) is not None and timer > FAST_MS:
            self.reason = f"ASYNC_LOW_LATENCY left the timer at {timer} ms"
            taken = False
        return taken

    def _set_timer(self) -> bool:
        before = self.timer_ms
        if before is None:
            self.reason += "; there is no latency_timer"
            return False
        if before <= FAST_MS:
            self.reason = ""
            return True  # 0 too: QEMU's chip; nothing is faster
        try:
            self.file.write_text(str(FAST_MS))
        except OSError as error:
            self.reason += f"; {self.file}: {error.strerror}"
            return False
        self._timer = before
        after = self.timer_ms
        if after != FAST_MS:
            self.reason += f"; {self.file} stays at {after} ms"
        return after == FAST_MS


def _flags(fd: int) -> int:
    raw = fcntl.ioctl(fd, termios.TIOCGSERIAL, bytes(_SERIAL_STRUCT))
    return int(struct.unpack_from("i", raw, _FLAGS)[0])


def _set_flags(fd: int, flags: int) -> None:
    raw = bytearray(fcntl.ioctl(fd, termios.TIOCGSERIAL, bytes(_SERIAL_STRUCT)))
    struct.pack_into("i", raw, _FLAGS, flags)
    fcntl.ioctl(fd, termios.TIOCSSERIAL, bytes(raw))
