# SPDX-License-Identifier: MIT
"""Modem lines for a pty: what the ioctls would say, on a schedule that a real chip could not be held to.

The wait is a real one, in read(2) through ctypes, so that the way out of it is the real one, too.
Real edges, by a chip model under the real ftdi_sio, are in tests/vm/test_modem.py.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from typing import Self

import pytest

from udriver.drivers import capture
from udriver.drivers.edges import LINES
from udriver.drivers.port import Icount, Port

LIBC = ctypes.CDLL(None, use_errno=True)
NOTHING = dict.fromkeys(Icount.__dataclass_fields__, 0)


class FakeLines:
    """Levels and counters; ``set(cts=True)`` is an edge if it was not so before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.level = 0
        self.counts = NOTHING.copy()
        self.gone = False
        self.fails: list[int] = []  # the errno of each TIOCMGET to come; the last one stays
        self.counted = self.waits = self.moves = True
        self.entries = 0
        self.sleeps = 0  # the entries behind which set() wakes
        self.before_entry: list[Callable[[], None]] = []
        self.looks = 0
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        monkeypatch.setattr(Port, "modem_lines", lambda port: self._modem_lines())
        monkeypatch.setattr(Port, "icount", lambda port: self._icount())
        monkeypatch.setattr(capture, "miwait", self._miwait)
        monkeypatch.setattr(capture, "is_inside", self._is_inside)

    def set(self, **levels: bool) -> None:
        """Move lines; the driver counts each edge and wakes who waits."""
        for line, level in levels.items():
            if bool(self.level & LINES[line]) != level:
                self.level ^= LINES[line]
                self.counts["rng" if line == "ri" else line] += self.moves
        os.eventfd_write(self._wake, 1)

    def unplug(self) -> None:
        """Every ioctl is EIO from here on."""
        self.gone = True
        os.eventfd_write(self._wake, 1)

    def _check(self) -> None:
        if self.gone:
            raise OSError(errno.EIO, "Input/output error")

    def _modem_lines(self) -> int:
        self.looks += 1
        self._check()
        if self.fails:
            number = self.fails[0] if len(self.fails) == 1 else self.fails.pop(0)
            if number:
                raise OSError(number, os.strerror(number))
        return self.level

    def _icount(self) -> Icount | None:
        self._check()
        return Icount(**self.counts) if self.counted else None

    def _miwait(self, fd: int) -> int:
        if not self.waits:
            return errno.ENOTTY
        while self.before_entry:
            self.before_entry.pop()()
        self.entries += 1
        os.set_blocking(self._wake, False)
        try:
            os.eventfd_read(self._wake)  # what was before it was entered is no change
        except BlockingIOError:
            pass
        os.set_blocking(self._wake, True)
        self.sleeps += 1
        if not self.gone and LIBC.read(self._wake, ctypes.create_string_buffer(8), 8) < 0:
            return ctypes.get_errno()
        return errno.EIO if self.gone else 0

    def _is_inside(self, tid: int, fd: int) -> bool | None:
        try:
            with open(f"/proc/self/task/{tid}/syscall") as file:
                return file.read().split()[1:2] == [hex(self._wake)]
        except OSError:
            return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.close(self._wake)
