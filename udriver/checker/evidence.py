# SPDX-License-Identifier: MIT
"""What the rules judge by: a record of each completion, and what each thread is doing.

A completion's record hangs on a weak reference; nothing here keeps one alive. All is changed by
single operations on dicts and deques, since any hook may interrupt any other, on the same thread.
"""

from __future__ import annotations

import itertools
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from udriver.checker.history import Post, Record
from udriver.checker.place import Activation, Place, activation, here, in_core, user_frame
from udriver.checker.report import Reports
from udriver.kernel import annotation
from udriver.kernel.completion import Completion

if TYPE_CHECKING:
    from types import FrameType

    from udriver.kernel.irqdesc import IrqAction

__all__ = ["Evidence", "Section", "Taken"]


class Section(NamedTuple):
    """A run of an interrupt handler or of its thread."""

    serial: int
    action: IrqAction
    irq: int
    in_thread: bool
    posts: list[Record]


class Taken(NamedTuple):
    """A lock that was taken: by which call, in which run of a handler."""

    lock: Any
    place: Place
    call: Activation | None
    section: int


class _Cpu(threading.local):
    """A thread's own. No __init__: a handler may come in the middle of it, and find half of it."""

    started: Callable[[], Record | None] | None = None  # whose operation, a weak reference
    hardirq: Place | None = None
    excused = False  # a rule has spoken of this call already

    @property
    def sections(self) -> list[Section]:
        """Runs of handlers, outermost first."""
        return self.__dict__.setdefault("_sections", [])  # type: ignore[no-any-return]

    @property
    def held(self) -> list[Taken]:
        """Locks, outermost first."""
        return self.__dict__.setdefault("_held", [])  # type: ignore[no-any-return]

    @property
    def taken(self) -> deque[Taken]:
        """The latest locks that were taken."""
        return self.__dict__.setdefault("_taken", deque(maxlen=32))  # type: ignore[no-any-return]


class Evidence:
    """Everything that one ``checking()`` block knows."""

    def __init__(self, reports: Reports) -> None:
        self.reports = reports
        self.cpu = _Cpu()
        self.tick: Callable[[], int] = itertools.count(1).__next__
        self._records: dict[int, Record] = {}
        self.on_death: Callable[[Record], None] = bool  # type: ignore[assignment]

    def find(self, x: Completion) -> Record | None:
        """The record of ``x``, if there is one."""
        return self._records.get(id(x))

    def of(self, x: Completion) -> Record:
        """The record of ``x``; a new one, that judges little, if it is older than the checker."""
        record = self._records.get(id(x))
        if record is None:
            record = self._keep(x, None)
            record.virgin = False
            record.unsure = True  # it may hold tokens that nobody saw being posted
        return record

    def born(self, x: Completion, name: str) -> Record:
        """Begin the record of a new completion."""
        record = self._keep(x, here(), name)
        record.core = _made_by_core()
        return record

    def _keep(self, x: Completion, born: Place | None, name: str | None = None) -> Record:
        known = name or str(getattr(x, "name", "?"))
        record = Record(x, known, born, self.tick())
        record.kind = annotation.kinds.get(x, "")
        number = id(x)

        def died(ref: object) -> None:
            self._records.pop(number, None)
            self.on_death(record)

        record.ref = weakref.ref(x, died)
        self._records[number] = record
        return record

    def records(self) -> list[Record]:
        """All that are alive."""
        return list(self._records.values())

    def section(self) -> Section | None:
        """The handler that this thread is running, if it is."""
        return self.cpu.sections[-1] if self.cpu.sections else None

    def post(self) -> Post:
        """A token that is being posted here and now."""
        section = self.section()
        serial = section.serial if section is not None else 0
        call = activation(user_frame())
        needed = tuple(self._needed(serial, call))
        return Post(here(), self.tick(), serial, call, threading.get_ident(), needed)

    def _needed(self, serial: int, call: Activation | None) -> Iterator[tuple[Any, Place]]:
        """Locks held, and locks taken in this run of the handler, or in this call.

        What an interrupt found held is the interrupted's: the handler does not wait for it.
        """
        for taken in (*self.cpu.held, *self.cpu.taken):
            if taken.section != serial:
                continue
            mine = taken in self.cpu.held or serial
            if mine or (call is not None and taken.call is not None and not taken.call.over()):
                yield taken.lock, taken.place


def _made_by_core() -> bool:
    """Whether the irq core makes it for itself: none of its waits is a driver's."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and in_core(frame):
        file = frame.f_code.co_filename
        if file.endswith(("/irq.py", "/irqdesc.py")):
            return True
        frame = frame.f_back
    return False
