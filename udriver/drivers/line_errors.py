# SPDX-License-Identifier: MIT
"""Break, parity and framing errors and overruns, each with its place in the stream of bytes.

The tty marks bytes (parmrk.py), and the marks are taken out where the ISR puts bytes into the kfifo
(marked_kfifo.py). Without the option there is nothing of this on the way.

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
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import call, length_hint
from typing import Literal

from udriver.drivers.parmrk import Mark
from udriver.drivers.port import Icount, Port
from udriver.errors import DeviceGone, Unsupported
from udriver.kernel import tracepoint
from udriver.kernel.annotation import completion_set_kind
from udriver.kernel.completion import Completion, complete, completion_done

__all__ = ["Kind", "LineError", "LineErrors", "News"]

Kind = Literal["break", "parity", "framing", "parity or framing", "overrun"]
COUNTERS: dict[Kind, tuple[str, ...]] = {
    "break": ("brk",),
    "parity": ("parity",),
    "framing": ("frame",),
    "overrun": ("overrun", "buf_overrun"),
}
QUEUE = 1024  # events that wait to be taken; the oldest go first


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


@dataclass
class Tally:
    """What the kernel has counted, and what of it was seen as a mark."""

    icount: Icount | None
    counted: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(COUNTERS, 0))
    seen: dict[Kind, int] = field(
        default_factory=lambda: dict.fromkeys((*COUNTERS, "parity or framing"), 0)
    )
    open: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(COUNTERS, 0))
    """Counted, and not seen yet."""
    unnamed: int = 0
    """Seen, and of two kinds that are open."""

    def copy(self) -> Tally:
        """One that can be changed."""
        dicts = self.counted.copy(), self.seen.copy(), self.open.copy()
        return Tally(self.icount, *dicts, self.unnamed)

    def count(self, now: Icount | None) -> int:
        """Take the counters as they are after bytes were read; give how many overruns are new."""
        before, self.icount = self.icount, now
        if now is None or before is None or now == before:
            return 0
        for kind, names in COUNTERS.items():
            # C ints, which run over
            grown = sum(getattr(now, name) - getattr(before, name) for name in names) & 0xFFFFFFFF
            self.counted[kind] += grown
            self.open[kind] += grown
        overruns, self.open["overrun"] = self.open["overrun"], 0
        return overruns

    def kind_of(self, mark: Mark) -> Kind:
        """What a mark stands for: what is counted and not seen. Without counters a zero is a break."""
        if not mark.byte and (self.open["break"] or self.icount is None):
            self.open["break"] = max(0, self.open["break"] - 1)
            return "break"
        parity, framing = self.open["parity"], self.open["framing"]
        if parity and framing:
            self.unnamed += 1
            if self.unnamed == parity + framing:
                self.open["parity"] = self.open["framing"] = self.unnamed = 0
        elif parity or framing:
            kind: Kind = "parity" if parity else "framing"
            self.open[kind] -= 1
            return kind
        return "parity or framing"


@dataclass
class News:
    """What a read tells of errors: worked out first, and told then. Telling it twice tells it once."""

    tally: Tally
    events: Iterator[LineError]
    """A C one: whoever takes all of it does so in one call, and then it is used up."""
    overflows: int
    """Including those of the read for which the queue would have been too short even when empty."""
    dropped: list[LineError] = field(default_factory=list)


class LineErrors:
    """The errors of one open port; ``driver.line_errors``, if they were asked for.

    ``counted`` is what the kernel has counted of each kind since then, as of the last interrupt, ``seen``
    what was told of; ``overflows`` are events that nobody took in time.
    """

    def __init__(self, port: Port) -> None:
        self._port = port
        self._events: deque[LineError] = deque()
        self.happened = Completion(f"line error on {port.name}")
        completion_set_kind(self.happened, "condition")
        self.overflows = 0
        self._tally = Tally(None)
        self._found: int | None = None

    def mark(self) -> None:
        """INPCK and PARMRK, and the counters as they are now. Raises Unsupported, DeviceGone."""
        marking = termios.INPCK | termios.PARMRK
        hiding = termios.IGNBRK | termios.BRKINT | termios.IGNPAR | termios.ISTRIP
        port = self._port
        try:
            self._found = termios.tcgetattr(port.fd)[0]
            _set_iflag(port, self._found & ~hiding | marking)
            iflag = termios.tcgetattr(port.fd)[0]
            self._tally = Tally(port.icount())
        except (termios.error, OSError) as exc:
            if exc.args[0] == errno.EIO:
                raise DeviceGone(
                    f"{port.path} went while it was opened; plug it in again"
                ) from None
            raise
        if iflag & (marking | hiding) != marking:
            raise Unsupported(f"{port.path} does not mark line errors; open it without line_errors")

    def unmark(self) -> None:
        """No driver comes of it: the tty as mark() found it. Of one that was open close() sees to it."""
        if self._found is not None:
            try:
                _set_iflag(self._port, self._found)
            except termios.error:
                pass  # gone, and its settings with it

    @property
    def counted(self) -> dict[Kind, int]:
        """By the kernel."""
        return self._tally.counted

    @property
    def seen(self) -> dict[Kind, int]:
        """And told of."""
        return self._tally.seen

    def take(self) -> list[LineError]:
        """All events that nobody took yet, oldest first. Any context."""
        taken: list[LineError] = []
        while True:
            try:
                taken.append(self._events.popleft())
            except IndexError:
                return taken

    # hardirq

    def work_out(self, parts: list[bytes | Mark], since: int) -> tuple[bytes, News]:
        """The data in ``parts``, of which ``since`` bytes came before, and what they tell. Changes nothing."""
        tally = self._tally.copy()
        try:
            icount = self._port.icount()
        except OSError:
            icount = tally.icount  # gone: its bytes are still to be read
        overruns = tally.count(icount)
        now = time.monotonic_ns()
        data = bytearray()
        events: list[LineError] = []
        for part in parts:
            if isinstance(part, bytes):
                data += part
                continue
            kind, position = tally.kind_of(part), since + len(data)
            byte = None if kind == "break" else part.byte
            if byte is not None:
                data.append(byte)
            tally.seen[kind] += 1
            events.append(LineError(kind, position, position, byte, now))
        total = len(events) + overruns
        tally.seen["overrun"] += overruns
        # all alike; a tty that has lost a million bytes makes no million of them
        overrun = LineError("overrun", since + len(data), since, None, now)
        events += [overrun] * min(overruns, QUEUE)
        events = events[-QUEUE:]
        return bytes(data), News(tally, iter(events), self.overflows + total - len(events))

    def tell(self, news: News) -> None:
        """Put the events in the queue, and wake who waits for one."""
        self._tally = news.tally
        queue, coming = self._events, length_hint(news.events)  # 0 if that was done already
        while len(queue) + coming > QUEUE:
            try:
                # take and remember in one C call: a signal handler may raise between any two
                news.dropped.extend(map(call, (queue.popleft,)))
            except IndexError:
                break  # taken meanwhile
        queue.extend(news.events)
        if coming and tracepoint.ring is not None:
            for event in tuple(queue)[-coming:]:
                tracepoint.ring("line_error", self._port.name, event.kind, event.position)
        self.overflows = news.overflows + len(news.dropped)
        if queue and not completion_done(self.happened):
            complete(self.happened)


def _set_iflag(port: Port, iflag: int) -> None:
    attributes = termios.tcgetattr(port.fd)
    attributes[0] = iflag
    termios.tcsetattr(port.fd, termios.TCSANOW, attributes)
