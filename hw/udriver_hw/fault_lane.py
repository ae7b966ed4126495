# SPDX-License-Identifier: MIT
"""The faults of one direction of a line: runs of characters go in, what is left of them comes out.

1. Each fault has a cursor on the position where it is due next. What lies before the nearest of
   them passes in one piece; at a cursor one character is taken at a time.
2. A delay stops the lane in front of its character; the faults behind it go on from there.
3. What a lane gives is a sequence, so that an edge or an unplug keeps its place between bytes.
4. Each character that came in goes out, is dropped, or still waits: ``came == went + dropped + waiting``.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from udriver_hw.chips.dte import BREAK, FRAMING, OVERRUN, PARITY, Run
from udriver_hw.faults import NSEC_PER_MSEC, RUNS, STREAM, Fault, Faults

__all__ = ["Cursor", "Item", "Lane", "Move", "Pull"]

ERRORS = {"parity": PARITY, "framing": FRAMING}
AT_ONCE = {"line", "break", "never answer", "unplug"}  # due at a time, they wait for no byte


@dataclass(frozen=True, slots=True)
class Move:
    """A modem line moves: "on", "off" or "flip"."""

    line: str
    level: str


@dataclass(frozen=True, slots=True)
class Pull:
    """The plug is pulled."""

    fault: Fault
    position: int


Item = Run | Move | Pull


class Cursor:
    """Where a fault is due next: ``at`` is a position, ``when`` a time; None for never."""

    def __init__(self, fault: Fault, faults: Faults) -> None:
        self.fault = fault
        self.dice = faults.dice(fault)
        self._positions = fault.positions(self.dice)
        self._timed = fault.unit == "ms"
        self._left = 0  # bytes to take, of one that was due at a time
        self.at: int | None = None
        self.when: int | None = None
        if self._timed:
            self.when = next(self._positions)
        else:
            self.at = next(self._positions)

    def hit(self) -> None:
        """It happened at ``at``, or there was nothing to happen to."""
        if not self._timed:
            self.at = next(self._positions, None)
            return
        assert self.at is not None
        self._left -= 1
        self.at = self.at + 1 if self._left else None

    def due(self, position: int) -> None:
        """Its time has come, and ``position`` is the next byte's."""
        self.when = next(self._positions, None)
        self._left += self.fault.number if self.fault.kind in RUNS else 1
        self.at = position if self.at is None else self.at


class Lane:
    """One direction, "rx" or "tx". put() what comes; take() what goes on, at times that never go back."""

    def __init__(self, way: str, faults: Faults) -> None:
        self.came = self.went = self.dropped = self.garbled = self.inserted = 0  # characters
        self._faults = faults
        self._cursors = [
            Cursor(fault, faults)
            for fault in faults.faults
            if fault.way == way and fault.unit in STREAM
        ]
        self._waiting: deque[Run] = deque()
        self.waiting = 0
        self._held_until: int | None = None
        self._status = 0  # of the next character that passes
        self._mute = False
        self._pulled = False

    @property
    def position(self) -> int:
        """Of the next character."""
        return self.came - self.waiting

    def put(self, run: Run) -> None:
        """Characters come in."""
        if run.data:
            self._waiting.append(run)
            self.waiting += len(run.data)
            self.came += len(run.data)

    def holds(self, now: int) -> bool:
        """Whether a delay is on."""
        if self._held_until is not None and now >= self._held_until:
            self._held_until = None
        return self._held_until is not None

    @property
    def held(self) -> bool:
        """Whether one was on when anybody last told the time."""
        return self._held_until is not None

    def take(self, now: int) -> list[Item]:
        """What goes on by ``now``, in order; nothing comes behind a Pull."""
        out: list[Item] = []
        self._look_at_the_clock(now, out)
        self.holds(now)
        while self._waiting and not self._pulled and not self.holds(now):
            data, _ = self._waiting[0]
            nearest = min((c.at for c in self._cursors if c.at is not None), default=None)
            if self._mute:
                self._next(len(data))
                self.dropped += len(data)
            elif nearest is None or nearest > self.position:
                self._pass(self._next(nearest and nearest - self.position), out)
            else:
                self._meet(now, out)
        return out

    def next_event(self) -> int | None:
        """When to take() next, in ns; 0 if nobody has said yet what time it is."""
        began = self._faults.began
        times = [cursor.when for cursor in self._cursors if cursor.when is not None]
        if self._pulled or (began is None and not times):
            return None
        if began is None:
            return 0
        events = [began + when for when in times]
        if self._held_until is not None:
            events.append(self._held_until)
        return min(events, default=None)

    # inside

    def _look_at_the_clock(self, now: int, out: list[Item]) -> None:
        began = self._faults.begin(now)
        for cursor in self._cursors:
            while cursor.when is not None and began + cursor.when <= now and not self._pulled:
                cursor.due(self.position)
                if cursor.fault.kind in AT_ONCE:
                    cursor.hit()
                    self._act(cursor.fault, now, out)

    def _next(self, most: int | None) -> Run:
        """Take up to ``most`` characters of one status out of those that wait."""
        data, status = self._waiting.popleft()
        if most is not None and len(data) > most:
            self._waiting.appendleft(Run(data[most:], status))
            data = data[:most]
        self.waiting -= len(data)
        return Run(data, status)

    def _pass(self, run: Run, out: list[Item]) -> None:
        self.went += len(run.data)
        if self._status:
            out.append(Run(run.data[:1], run.status | self._status))
            self._status = 0
            run = Run(run.data[1:], run.status)
        if run.data:
            out.append(run)

    def _meet(self, now: int, out: list[Item]) -> None:
        """Take one character through the faults that are due at it."""
        position = self.position
        run = self._next(1)
        lost = False
        for cursor in self._cursors:
            if cursor.at is None or cursor.at > position:
                continue
            fault = cursor.fault
            cursor.hit()
            if fault.kind in AT_ONCE:
                self._act(fault, now, out, position)
                lost = lost or self._mute
            elif fault.kind == "delay":
                self._held_until = now + fault.number * NSEC_PER_MSEC
                self._faults.note(now, fault, position, f"{fault.number} ms")
            elif not lost:
                run = self._change(cursor, run, now, position)
                lost = not run.data
            if not lost and (self._pulled or self._held_until is not None):
                self._waiting.appendleft(run)  # the faults behind this one come later, or never
                self.waiting += 1
                return
            if self._pulled:
                break
        if lost:
            self.dropped += 1
        else:
            self._pass(run, out)

    def _change(self, cursor: Cursor, run: Run, now: int, position: int) -> Run:
        """The character as the fault leaves it; empty if it is lost."""
        fault, byte = cursor.fault, run.data[0]
        what = f"{byte:02x}"
        if fault.kind == "garble":
            garbled = byte ^ cursor.dice.randrange(1, 256)
            what += f" -> {garbled:02x}"
            self.garbled += 1
            run = Run(bytes([garbled]), run.status)
        elif fault.kind in ERRORS:
            run = Run(run.data, run.status | ERRORS[fault.kind])
        else:
            self._status |= OVERRUN if fault.kind == "overrun" else 0
            run = Run(b"")
        self._faults.note(now, fault, position, what)
        return run

    def _act(self, fault: Fault, now: int, out: list[Item], position: int | None = None) -> None:
        """What happens between characters."""
        position = self.position if position is None else position
        if fault.kind == "unplug":
            self._pulled = True
            out.append(Pull(fault, position))  # whoever pulls it knows what is lost with it
            return
        if fault.kind == "never answer":
            self._mute, what = True, "mute"
        elif fault.kind == "line":
            out.append(Move(*fault.line))
            what = " ".join(fault.line)
        else:
            out += [Run(b"\0", BREAK)] * fault.number
            self.inserted += fault.number
            what = f"{fault.number} x 00"
        self._faults.note(now, fault, position, what)
