# SPDX-License-Identifier: MIT
"""Which handlers are on which interrupt lines, and which completions they complete.

What the rules about lines ask of; the hooks are in requesting.py, handlers.py and masking.py.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque

from udriver.checker.evidence import Evidence, Section
from udriver.checker.history import TOKEN, Record
from udriver.checker.place import Place, Spot, here
from udriver.checker.reach import reaches
from udriver.kernel import irqdesc
from udriver.kernel.irqdesc import IrqAction, IrqDesc

__all__ = ["Line", "Lines"]


class Line:
    """A handler on a line, from request_irq() to free_irq()."""

    def __init__(self, number: int, action: IrqAction, asked: Place) -> None:
        self.irq = number
        self.action = action
        self.asked = asked
        self.ran = 0
        self.unhandled = 0
        self.silent: int | None = None  # when it last handled an interrupt and completed nothing
        self.partial = False  # it does so as a rule: an event takes it several interrupts
        self.missing: dict[str, Place] = {}  # names that the handler looked for in vain
        self.installing = True

    def handler_place(self) -> Place:
        """Where the handler begins."""
        handler = self.action.handler or self.action.thread_fn
        code = getattr(handler, "__code__", None)
        spot = Spot("?", 0, "?")
        if code is not None:
            spot = Spot(code.co_filename, code.co_firstlineno, code.co_qualname)
        return Place("any task", f"handler of {self.action.name}", (spot,))


class Lines:
    """All lines that have a handler."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._lines: dict[int, Line] = {}
        self._asking: dict[int, Place] = {}
        self._off: dict[int, deque[tuple[int, Place]]] = {}
        self._serials = itertools.count(1)

    # as they come and go

    def asking(self, number: int) -> None:
        """request_irq() begins."""
        self._asking[number] = here()

    def asked(self, number: int) -> None:
        """request_irq() is over."""
        self._asking.pop(number, None)

    def line(self, desc: IrqDesc, action: IrqAction) -> Line:
        """The line of ``action``; a new one if it is seen for the first time."""
        line = self._lines.get(id(action))
        if line is None:
            unseen = Place("?", "process", ())
            asking = self._asking.get(desc.irq, unseen)
            line = self._lines.setdefault(id(action), Line(desc.irq, action, asking))
            line.installing = asking is not unseen
        return line

    def section(self, line: Line, number: int, *, in_thread: bool) -> Section:
        """A run of its handler, or of its thread, begins."""
        return Section(next(self._serials), line.action, number, in_thread, [])

    def gone(self, line: Line) -> None:
        """free_irq() is over."""
        number = id(line.action)  # the next action may have it
        self._lines.pop(number, None)
        for record in self._evidence.records():
            record.completers.pop(number, None)
            record.late.pop(number, None)
        desc = irqdesc._descs.get(line.irq)
        if desc is None or not desc.actions:
            self._off.pop(line.irq, None)

    def disabled(self, number: int, place: Place) -> None:
        """One disable_irq()."""
        self._off.setdefault(number, deque()).append((threading.get_ident(), place))

    def enabled(self, number: int) -> None:
        """One enable_irq()."""
        try:
            self._off[number].pop()
        except (KeyError, IndexError):
            pass  # unbalanced, or disabled before the checker

    def off_since(self, number: int) -> tuple[int, Place] | None:
        """Which thread disabled the line last, and where; None if it is on."""
        try:
            return self._off[number][-1]
        except (KeyError, IndexError):
            return None

    # what the other rules ask

    def of(self, record: Record) -> list[Line]:
        """The lines whose handler has completed it, or can reach it."""
        x = record.ref()
        return [
            line
            for line in list(self._lines.values())
            if id(line.action) in record.completers or (x is not None and reaches(line.action, x))
        ]

    def reaching(self, record: Record) -> Line | None:
        """A line that is on, and whose handler can reach it as things are."""
        x = record.ref()
        for line in self.lines():
            if x is not None and self.off_since(line.irq) is None and reaches(line.action, x):
                return line
        return None

    def completing(self, record: Record) -> list[Line]:
        """The lines whose handler has completed it."""
        return [self._lines[key] for key in list(record.completers) if key in self._lines]

    def armed(self, record: Record) -> Line | None:
        """A line that is on, and whose handler can reach it."""
        for line in self.of(record):
            if self.off_since(line.irq) is None:
                return line
        return None

    def requested(self, action: IrqAction) -> Place | None:
        """Where the handler was requested."""
        line = self._lines.get(id(action))
        return line.asked if line is not None else None

    def disabled_here(self, record: Record) -> Place | None:
        """Where this thread disabled the only lines that complete it."""
        lines = self.completing(record)
        found = [since for line in lines if (since := self.off_since(line.irq)) is not None]
        mine = [place for thread, place in found if thread == threading.get_ident()]
        return mine[0] if lines and len(mine) == len(lines) else None

    def lines(self) -> list[Line]:
        """All that are requested."""
        return list(self._lines.values())

    def settle(self, number: int, *, for_good: bool = False) -> None:
        """This task has stopped a line: its waits that got no token are looked after."""
        lines = {id(line.action) for line in self.lines() if line.irq == number}
        task = threading.current_thread().name
        for record in self._evidence.records():
            last = record.last
            if last is None or last.outcome == TOKEN or last.wait.place.task != task:
                continue
            if not record.completers or lines & set(record.completers):
                if for_good:
                    record.settled = True  # too late for what was overdue
                else:
                    record.settle()
                if record.operation is not None:
                    record.operation.stopped = True
