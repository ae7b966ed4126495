# SPDX-License-Identifier: MIT
"""Composition. What ``udriver run`` sends: frames one at a time, or a file as a stream.

Every byte that comes back is compared with the one that went out. What differs is an error,
what never came is lost; the two are counted apart.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

from hdrh.histogram import HdrHistogram

from udriver.drivers.usbserial import UsbSerial
from udriver.errors import DeviceGone, Timeout

__all__ = ["Tally", "send_file", "send_frames"]

CHUNK = 4096  # bytes a write; the N_TTY buffer
NOT_XON_XOFF = bytes.maketrans(b"\x11\x13", b"\x12\x14")
Progress = Callable[["Tally"], None]


def _latency() -> HdrHistogram:
    return HdrHistogram(1, 3_600_000_000_000, 3)  # ns, 1 ns to an hour, 3 digits


@dataclass(slots=True)
class Tally:
    """What happened so far. ``errors`` counts wrong frames, or wrong bytes of a file."""

    frames: int = 0
    bytes: int = 0
    errors: int = 0
    lost: int = 0
    elapsed: float = 0.0
    latency_ns: HdrHistogram = field(default_factory=_latency)
    sha256: str | None = None


def send_frames(
    driver: UsbSerial,
    tally: Tally,
    size: int,
    more: Callable[[Tally], bool],
    timeout: float,
    progress: Progress,
) -> None:
    """Send a frame, wait for all of it, compare, record how long that took; and again.

    Raises Timeout or DeviceGone after counting what did not come.
    """
    payload = random.Random(0).randbytes  # the same bytes in each run, other ones in each frame
    started = time.monotonic()
    while more(tally):
        frame = payload(size)
        if driver.port.line.xonxoff:
            frame = frame.translate(NOT_XON_XOFF)  # the tty takes these two for itself
        before = time.monotonic_ns()
        try:
            answer = driver.transact(frame, size, timeout)
        except (Timeout, DeviceGone) as exc:
            came = exc.partial + _rest(driver)
            tally.frames += 1
            tally.bytes += len(came)
            tally.lost += max(0, size - len(came))
            tally.errors += not frame.startswith(came)
            tally.elapsed = time.monotonic() - started
            raise
        tally.latency_ns.record_value(time.monotonic_ns() - before)
        tally.frames += 1
        tally.bytes += size
        tally.errors += answer != frame
        tally.elapsed = time.monotonic() - started
        progress(tally)
    tally.errors += bool(_rest(driver))  # more came than was sent


def _rest(driver: UsbSerial) -> bytes:
    """What lies in the driver; nothing is waited for."""
    try:
        return driver.read(timeout=0) if driver.in_waiting or driver.gone else b""
    except (Timeout, DeviceGone):
        return b""


def send_file(
    driver: UsbSerial, tally: Tally, source: BinaryIO, timeout: float, progress: Progress
) -> None:
    """Send all of ``source`` with at most half a kfifo under way, and take its SHA-256 back.

    ``tally.sha256`` is of what came back. A frame is a chunk of CHUNK bytes, its latency the time
    from its write to its last byte. Raises Timeout or DeviceGone after counting what is missing.
    """
    window = driver.fifo.size // 2
    size = min(CHUNK, window)
    sent = hashlib.sha256()
    back = hashlib.sha256()
    under_way = bytearray()
    marks: deque[tuple[int, int]] = deque()  # (offset of a chunk's end, when it was written)
    started = time.monotonic()
    ended = False
    try:
        while not ended or under_way:
            while not ended and len(under_way) + size <= window:
                chunk = source.read(size)
                ended = not chunk
                if chunk:
                    sent.update(chunk)
                    under_way += chunk
                    marks.append((tally.bytes + len(under_way), time.monotonic_ns()))
                    driver.write(chunk, timeout)
            if under_way:
                _compare(driver.read(65536, timeout), under_way, back, tally)
                _note_latency(marks, tally)
                tally.elapsed = time.monotonic() - started
                progress(tally)
    finally:
        tally.elapsed = time.monotonic() - started
        tally.lost += len(under_way)
        tally.sha256 = back.hexdigest()
    tally.errors += len(_rest(driver))
    tally.errors += sent.digest() != back.digest() and not tally.errors


def _compare(data: bytes, under_way: bytearray, back: hashlib._Hash, tally: Tally) -> None:
    back.update(data)
    expected = bytes(under_way[: len(data)])
    del under_way[: len(data)]
    tally.bytes += len(data)
    if data != expected:
        same = sum(a == b for a, b in zip(data, expected, strict=False))
        tally.errors += len(data) - same


def _note_latency(marks: deque[tuple[int, int]], tally: Tally) -> None:
    now = time.monotonic_ns()
    while marks and marks[0][0] <= tally.bytes:
        tally.frames += 1
        tally.latency_ns.record_value(now - marks.popleft()[1])
