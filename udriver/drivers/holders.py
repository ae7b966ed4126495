# SPDX-License-Identifier: MIT
"""Process context. Who has a tty open: pid and command, from /proc."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Holder", "holders"]

PTS_MAJOR = 136  # Documentation/admin-guide/devices.txt: 136-143 are Unix98 pty slaves


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has the device open."""

    pid: int
    command: str

    def __str__(self) -> str:
        return f"pid {self.pid} ({self.command})"


def holders(device: str) -> list[Holder]:
    """Other processes that have ``device`` open; those of other users only as far as /proc shows.

    Whoever has the master of a pty is its far end, not a holder, though it may keep the slave open.
    """
    try:
        rdev = os.stat(device).st_rdev
    except OSError:
        return []
    return [
        Holder(pid, _command(pid))
        for pid in _pids()
        if pid != os.getpid() and _has_open(pid, device, rdev) and not _has_master(pid, rdev)
    ]


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _fds(pid: int) -> Iterator[tuple[str, str]]:
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return  # ended meanwhile, or not ours to see
    for fd in names:
        try:
            yield fd, os.readlink(f"/proc/{pid}/fd/{fd}")
        except OSError:
            continue  # closed meanwhile; the others still count


def _has_open(pid: int, device: str, rdev: int) -> bool:
    for fd, target in _fds(pid):
        if target == device:
            return True
        if target.startswith("/dev/") and target != "/dev/null":
            try:
                found = os.stat(f"/proc/{pid}/fd/{fd}")
            except OSError:
                continue
            if stat.S_ISCHR(found.st_mode) and found.st_rdev == rdev:
                return True
    return False


def _has_master(pid: int, rdev: int) -> bool:
    if not PTS_MAJOR <= os.major(rdev) < PTS_MAJOR + 8:
        return False
    index = (os.major(rdev) - PTS_MAJOR) * 256 + os.minor(rdev)
    for fd, target in _fds(pid):
        if target.endswith("ptmx"):
            try:
                info = Path(f"/proc/{pid}/fdinfo/{fd}").read_text()
            except OSError:
                continue
            if re.search(rf"^tty-index:\s*{index}$", info, re.MULTILINE):
                return True
    return False


def _command(pid: int) -> str:
    try:
        line = (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        )
    except OSError:
        return "ended"
    return line.strip()[:80] or "kernel"
