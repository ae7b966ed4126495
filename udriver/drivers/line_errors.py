# SPDX-License-Identifier: MIT
"""Break, parity and framing errors and overruns, each with its place in the stream of bytes.

The tty marks bytes (parmrk.py), and the marks are taken out where the ISR puts bytes into the kfifo:
MarkedKfifo has them read into a buffer of its own first. So the driver drains the same way, reads see
data only, and without the option there is nothing of this on the way.

The kernel counts an error before it passes the byte on, so counters that are read after the bytes hold
all of theirs, and tell what a mark does not: which kind it is. What is counted and has no mark is an
overrun, or the tty driver does not mark what it counts (cdc_acm: parity and framing); those are in
``counted`` and not in ``seen``.

A byte that came with a parity or framing error is data, as received; a break is none.
"""

from __future__ import annotations

import errno
import termios
import time
from collections import deque
from dataclasses import dataclass
from typing import Literal

from udriver.drivers.parmrk import Mark, Parmrk
from udriver.drivers.port import Port
from udriver.errors import DeviceGone, Unsupported
from udriver.kernel import tracepoint
from udriver.kernel.annotation import completion_set_kind
from udriver.kernel.completion import Completion, complete, completion_done
from udriver.kernel.kfifo import Kfifo

__all__ = ["Kind", "LineError", "LineErrors", "MarkedKfifo"]

Kind = Literal["break", "parity", "framing", "parity or framing", "overrun"]
COUNTERS: dict[Kind, tuple[str, ...]] = {
    "break": ("brk",),
    "parity": ("parity",),
    "framing": ("frame",),
    "overrun": ("overrun", "buf_overrun"),
}
QUEUE = 1024  # events that wait to be taken; the oldest go first
READ_SIZE = 4096


@dataclass(frozen=True, slots=True)
class LineError:
    """One error. ``position`` bytes were received before it, as Stats counts them.

    ``byte`` is what came with the error, and is data too, at ``position``; None for a break and an
    overrun. An overrun has no place in the stream: it was counted when ``position`` bytes had been
    received, and what was lost belongs behind ``since``; of all others the two are the same.
    ``timestamp_ns`` is CLOCK_MONOTONIC when the driver took the bytes.
    """

    kind: Kind
    position: int
    since: int
    byte: int | None
    timestamp_ns: int


class LineErrors:
    """The errors of one open port; ``driver.line_errors``, if they were asked for.

    ``counted`` is what the kernel has counted of each kind since then, as of the last interrupt, ``seen``
    what was told of; ``overflows`` are events that nobody took in time. Raises Unsupported, DeviceGone.
    """

    def __init__(self, port: Port) -> None:
        self._port = port
        _mark_errors(port)
        self._events: deque[LineError] = deque()
        self.happened = Completion(f"line error on {port.name}")
        completion_set_kind(self.happened, "condition")
        self.overflows = 0
        self.counted: dict[Kind, int] = dict.fromkeys(COUNTERS, 0)
        self.seen: dict[Kind, int] = dict.fromkeys((*COUNTERS, "parity or framing"), 0)
        self._counts = port.icount()
        self._open: dict[Kind, int] = dict.fromkeys(COUNTERS, 0)  # counted, and not seen yet
        self._unnamed = 0  # seen, and of two kinds that are open

    def take(self) -> list[LineError]:
        """All events that nobody took yet, oldest first. Any context."""
        taken: list[LineError] = []
        while True:
            try:
                taken.append(self._events.popleft())
            except IndexError:
                return taken

    # hardirq

    def count(self) -> int:
        """Read the counters, after bytes were read; give how many overruns are new."""
        try:
            now = self._port.icount()
        except OSError:
            return 0  # gone: its bytes are still to be read
        before, self._counts = self._counts, now
        if now is None or before is None or now == before:
            return 0
        for kind, names in COUNTERS.items():
            # C ints, which run over
            grown = sum(getattr(now, name) - getattr(before, name) for name in names) & 0xFFFFFFFF
            self.counted[kind] += grown
            self._open[kind] += grown
        overruns, self._open["overrun"] = self._open["overrun"], 0
        return overruns

    def kind_of(self, mark: Mark) -> Kind:
        """What a mark stands for: what is counted and not seen. Without counters a zero is a break."""
        if not mark.byte and (self._open["break"] or self._counts is None):
            self._open["break"] = max(0, self._open["break"] - 1)
            return "break"
        parity, framing = self._open["parity"], self._open["framing"]
        if parity and framing:
            self._unnamed += 1
            if self._unnamed == parity + framing:
                self._open["parity"] = self._open["framing"] = self._unnamed = 0
        elif parity or framing:
            kind: Kind = "parity" if parity else "framing"
            self._open[kind] -= 1
            return kind
        return "parity or framing"

    def tell(self, kind: Kind, position: int, since: int, byte: int | None) -> None:
        """Put an event in the queue; whoever waits for one wakes."""
        event = LineError(kind, position, since, byte, time.monotonic_ns())
        self.seen[kind] += 1
        while len(self._events) >= QUEUE:
            try:
                self._events.popleft()
            except IndexError:
                break  # taken meanwhile
            self.overflows += 1
        self._events.append(event)
        if tracepoint.ring is not None:
            tracepoint.ring("line_error", self._port.name, kind, position)
        if not completion_done(self.happened):
            complete(self.happened)


class MarkedKfifo(Kfifo):
    """A kfifo whose producer hands in a marked stream; only the data goes in.

    With ``drop`` there is always room for the producer, and what does not fit is ``dropped``. ``received``
    is all the data there was, ``marks`` the bytes of the stream that were none.
    """

    __slots__ = ("_buffer", "_drop", "_errors", "_parser", "_size", "dropped", "marks", "received")

    def __init__(self, size: int, errors: LineErrors, *, drop: bool) -> None:
        super().__init__(2 * size)  # what the parser holds may be data of which no room was asked
        self._size = super().size // 2
        self._errors = errors
        self._drop = drop
        self._parser = Parmrk()
        self._buffer = memoryview(bytearray(READ_SIZE))
        self.received = self.marks = self.dropped = 0

    @property
    def size(self) -> int:
        """Bytes it holds when full, as of a Kfifo of this size; a byte more now and then."""
        return self._size

    @property
    def avail(self) -> int:
        """Bytes of the stream it has room for."""
        return max(0, self._size - len(self))

    def dma_in_prepare(self) -> list[memoryview]:
        """A buffer for the next bytes of the stream; empty when full."""
        room = READ_SIZE if self._drop else min(READ_SIZE, self.avail)
        return [self._buffer[:room]] if room else []

    def dma_in_finish(self, count: int) -> None:
        """``count`` bytes of the buffer were filled: take the marks out, put the data in."""
        since = self.received
        overruns = self._errors.count()
        data = bytearray()
        told: list[tuple[Kind, int, int, int | None]] = []
        for part in self._parser.feed(bytes(self._buffer[:count])):
            if isinstance(part, bytes):
                data += part
                continue
            kind, position = self._errors.kind_of(part), since + len(data)
            byte = None if kind == "break" else part.byte
            if byte is not None:
                data.append(byte)
            told.append((kind, position, position, byte))
        self.received += len(data)
        self.marks += count - len(data)
        told += [("overrun", self.received, since, None)] * overruns
        self._put(data)
        for event in told:  # behind the bytes: whoever wakes finds what it is about
            self._errors.tell(*event)

    def _put(self, data: bytearray) -> None:
        free = self.avail if self._drop else super().avail
        start = self.in_ & self._mask
        kept = memoryview(data)[:free]
        tail = min(len(kept), self._mask + 1 - start)
        self._ring[start : start + tail] = kept[:tail]
        self._ring[: len(kept) - tail] = kept[tail:]
        super().dma_in_finish(len(kept))
        self.dropped += len(data) - len(kept)


def _mark_errors(port: Port) -> None:
    """INPCK and PARMRK; the port's close() puts back what it found at open."""
    marking = termios.INPCK | termios.PARMRK
    hiding = termios.IGNBRK | termios.BRKINT | termios.IGNPAR | termios.ISTRIP
    try:
        attributes = termios.tcgetattr(port.fd)
        attributes[0] = attributes[0] & ~hiding | marking
        termios.tcsetattr(port.fd, termios.TCSANOW, attributes)
        iflag = termios.tcgetattr(port.fd)[0]
    except termios.error as exc:
        if exc.args[0] == errno.EIO:
            raise DeviceGone(f"{port.path} went while it was opened; plug it in again") from None
        raise
    if iflag & (marking | hiding) != marking:
        raise Unsupported(f"{port.path} does not mark line errors; open it without line_errors")
