# SPDX-License-Identifier: MIT
"""N_PPS: the kernel itself notes the time of each DCD edge, where the chip's packet is taken apart.

The line discipline is n_tty with a hook for DCD (drivers/pps/clients/pps-ldisc.c), so the tty reads and
writes as before. The times are read from sysfs, which needs no right to /dev/pps*: the wake-up stays
TIOCMIWAIT's, for PPS_FETCH has none that another thread could end, and poll() on /dev/pps* says "ready"
always on kernels before 6.16. They are CLOCK_REALTIME (``ktime_get_real_ts64``), and are converted at
once, before anybody can step that clock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import termios
import time
from pathlib import Path

from udriver.drivers.port import Port
from udriver.errors import Unsupported

__all__ = ["Pps"]

N_TTY = 0  # linux/tty.h, as the next
N_PPS = 18
NO_N_PPS = (errno.EINVAL, errno.EPERM, errno.ENOENT, errno.ENODEV)
FILES = {True: "assert", False: "clear"}  # of a rising and of a falling edge


class Pps:
    """N_PPS on an open port until close(); ``name`` is "pps0" or another. Raises Unsupported.

    Bytes that the tty holds unread at that moment are lost, by the kernel: attach it before you talk.
    """

    def __init__(self, port: Port, sysfs: Path = Path("/sys/class/pps")) -> None:
        self._fd = port.fd
        try:
            _set_discipline(self._fd, N_PPS)
        except OSError as exc:
            if exc.errno not in NO_N_PPS:
                raise
            raise Unsupported(
                f"{port.path}: this kernel has no N_PPS line discipline for it "
                f"({os.strerror(exc.errno)}); `modprobe pps-ldisc` brings one"
            ) from None
        try:
            self._folder = _source_of(port.device, sysfs)
        except BaseException:
            self.close()
            raise
        self.name = self._folder.name
        self._seen = {rising: self._read(rising)[1] for rising in FILES}

    def stamp(self, rising: bool) -> tuple[int, int] | None:
        """When DCD last rose or fell: CLOCK_MONOTONIC ns, and how wrong the conversion may be.

        None if the kernel noted no such edge since the last call.
        """
        try:
            real_ns, sequence = self._read(rising)
        except (OSError, ValueError):
            return None  # the source went with its tty
        if sequence == self._seen[rising]:
            return None
        self._seen[rising] = sequence
        before = time.monotonic_ns()
        real_now = time.time_ns()
        error = time.monotonic_ns() - before
        return before + error - (real_now - real_ns), error

    def _read(self, rising: bool) -> tuple[int, int]:
        """``seconds.nanoseconds#sequence``, see drivers/pps/sysfs.c."""
        moment, _, sequence = (self._folder / FILES[rising]).read_text().partition("#")
        seconds, _, nanoseconds = moment.partition(".")
        return int(seconds) * 1_000_000_000 + int(nanoseconds), int(sequence)

    def close(self) -> None:
        """Back to n_tty. May be repeated."""
        try:
            _set_discipline(self._fd, N_TTY)
        except OSError:
            pass  # gone: the tty that had it is, too


def _set_discipline(fd: int, number: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSETD, struct.pack("i", number))


def _source_of(device: str, sysfs: Path) -> Path:
    for folder in sorted(sysfs.glob("pps*")):
        try:
            if (folder / "path").read_text().strip() == device:
                return folder
        except OSError:
            continue  # went meanwhile
    raise Unsupported(f"{device}: N_PPS made no source in {sysfs}; dmesg says why")
