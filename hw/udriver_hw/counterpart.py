# SPDX-License-Identifier: MIT
"""The far end of a measurement: as little as a far end can do; ``python -m udriver_hw.counterpart``.

No UART model: what it would cost is the same for whoever is measured, and would hide what differs.
It prints the paths of its ptys in one line and serves them until end of file on stdin.

``echo``    writes back what it reads, at once.
``late``    the same, LATE seconds after: whoever waits for it sleeps by then.
``flood``   reads a count, 8 bytes little-endian, and writes so many bytes as fast as they are taken.
``stamps``  reads such a count, and writes so many stamps, one each STAMP_GAP seconds: 8 bytes,
            CLOCK_MONOTONIC in ns just before the write. That clock is the same in all processes.
"""

from __future__ import annotations

import os
import resource
import select
import struct
import sys
import time
import tty
from collections.abc import Callable

__all__ = ["LATE", "STAMP_GAP", "main"]

STAMP_GAP = 0.0123  # s; longer than two switch intervals, and no multiple of one
LATE = 0.005  # s; a round trip under strace, or traced by bytecode, is asleep by then
CHUNK = bytes(range(256)) * 16


def _echo(master: int) -> None:
    data = os.read(master, 65536)
    while data:
        data = data[os.write(master, data) :]


def _late(master: int) -> None:
    data = os.read(master, 65536)
    time.sleep(LATE)
    os.write(master, data)


def _count(master: int) -> int:
    return int(struct.unpack("<Q", os.read(master, 8))[0])


def _flood(master: int) -> None:
    left = _count(master)
    while left:
        left -= os.write(master, CHUNK[:left])


def _stamps(master: int) -> None:
    for _ in range(_count(master)):
        time.sleep(STAMP_GAP)
        os.write(master, struct.pack("<Q", time.monotonic_ns()))


MODES: dict[str, Callable[[int], None]] = {
    "echo": _echo,
    "late": _late,
    "flood": _flood,
    "stamps": _stamps,
}


def _open(count: int) -> tuple[list[int], list[str]]:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    masters, paths = [], []
    for _ in range(count):
        master, slave = os.openpty()  # the slave stays open: else a client's close is a hangup
        tty.setraw(slave)
        masters.append(master)
        paths.append(os.ttyname(slave))
    return masters, paths


def main(mode: str, ports: str) -> None:
    """Serve ``ports`` ptys in ``mode``."""
    masters, paths = _open(int(ports))
    print(*paths, flush=True)
    serve = MODES[mode]
    epoll = select.epoll()
    for fd in (0, *masters):
        epoll.register(fd, select.EPOLLIN)
    while True:
        for fd, _ in epoll.poll():
            if fd == 0:
                return  # nobody writes to it: it is at its end, and so is our client
            serve(fd)


if __name__ == "__main__":
    main(*sys.argv[1:])
