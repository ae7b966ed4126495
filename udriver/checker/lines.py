# SPDX-License-Identifier: MIT
"""I1 to I6: interrupt lines, and which handlers complete which completions."""

from __future__ import annotations

import functools
import itertools
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from udriver.checker.evidence import TOKEN, Evidence, Record, Section
from udriver.checker.locks import Locks
from udriver.checker.patch import Hook
from udriver.checker.place import Place, Spot, here, in_core, user_frame
from udriver.checker.reach import reaches
from udriver.kernel import context, irq, irqdesc
from udriver.kernel.irqdesc import IRQF_NO_AUTOEN, IRQF_SHARED, IrqAction, IrqDesc, IrqReturn

__all__ = ["Line", "Lines"]

UNHANDLED_OF = 1000  # I6: as the core's 99,900 of 100,000, so early that a test sees it
UNHANDLED = 999
FRAMES = 4  # how far up M1 looks for the function that requests and initialises


class Asking(NamedTuple):
    """A request_irq() and the calls that it was made in."""

    place: Place
    tick: int
    calls: tuple[tuple[int, int], ...]  # id of a frame, how far it was


class Line:
    """A handler on a line, from request_irq() to free_irq()."""

    def __init__(self, number: int, action: IrqAction, asking: Asking) -> None:
        self.irq = number
        self.action = action
        self.asking = asking
        self.ran = 0
        self.unhandled = 0
        self.last_handled: tuple[int, Place] | None = None
        self.missing: dict[str, Place] = {}  # names that the handler looked for in vain
        self.installing = True

    @property
    def asked(self) -> Place:
        """Where it was requested."""
        return self.asking.place

    def handler_place(self) -> Place:
        """Where the handler begins."""
        handler = self.action.handler or self.action.thread_fn
        code = getattr(handler, "__code__", None)
        spot = Spot("?", 0, "?")
        if code is not None:
            spot = Spot(code.co_filename, code.co_firstlineno, code.co_qualname)
        return Place("any task", f"handler of {self.action.name}", (spot,))


class Lines:
    """Hooks of the irq core."""

    def __init__(self, evidence: Evidence, locks: Locks, *, shirq: bool) -> None:
        self._evidence = evidence
        self._add = evidence.reports.add
        self._locks = locks
        self._shirq = shirq
        self._lines: dict[int, Line] = {}
        self._asking: dict[int, Asking] = {}
        self._disabled: dict[int, deque[tuple[int, Place]]] = {}
        self._touched: dict[int, Place] = {}  # by irq: where it was enabled or disabled last
        self._freed: dict[tuple[int, int], Place] = {}
        self._serials = itertools.count(1)

    def hooks(self) -> dict[Any, Hook]:
        """Function of the core: what is called instead."""
        return {
            irq.request_threaded_irq: self.request,
            irq.free_irq: self.free,
            irq.disable_irq: self.disable,
            irq.disable_irq_nosync: self.disable_nosync,
            irq.enable_irq: self.enable,
            irq.synchronize_irq: self.synchronize,
            irq.synchronize_hardirq: self.synchronize,
            irqdesc.irq_free_desc: self.free_desc,
            irqdesc._handle_action: self.handle,
            irqdesc.report_exception: self.raised,
            context.hardirq_enter: self.enter_hardirq,
        }

    # what the other rules ask

    def of(self, record: Record) -> list[Line]:
        """The lines whose handler has completed it, or can reach it."""
        x = record.ref()
        return [
            line
            for line in list(self._lines.values())
            if id(line.action) in record.completers or (x is not None and reaches(line.action, x))
        ]

    def completing(self, record: Record) -> list[Line]:
        """The lines whose handler has completed it."""
        return [self._lines[key] for key in list(record.completers) if key in self._lines]

    def armed(self, record: Record) -> Line | None:
        """A line that is on, and whose handler can reach it."""
        for line in self.of(record):
            if not self._disabled.get(line.irq):
                return line
        return None

    def requested(self, action: IrqAction) -> Place | None:
        """Where the handler was requested."""
        line = self._lines.get(id(action))
        return line.asked if line is not None else None

    def disabled_here(self, record: Record) -> Place | None:
        """Where this thread disabled the only lines that complete it."""
        lines = self.completing(record)
        places = [self._disabled[line.irq][-1] for line in lines if self._disabled.get(line.irq)]
        mine = [place for thread, place in places if thread == threading.get_ident()]
        return mine[0] if lines and len(mine) == len(lines) else None

    def requested_before(self) -> Iterator[Line]:
        """The lines that the calls under way requested before they got here (M1)."""
        now = {}
        frame = user_frame()
        for _ in range(FRAMES):
            if frame is None:
                break
            now[id(frame)] = frame.f_lasti
            frame = frame.f_back
        for line in list(self._lines.values()):
            for call, lasti in line.asking.calls:
                if now.get(call, -1) > lasti:
                    yield line
                    break

    def lines(self) -> list[Line]:
        """All that are requested."""
        return list(self._lines.values())

    # request and free

    def request(
        self, original: Hook, number: int, handler: Any, thread_fn: Any, flags: int, name: str, dev_id: Any
    ) -> None:  # fmt: skip
        """I3, I4."""
        if context.in_hardirq():
            original(number, handler, thread_fn, flags, name, dev_id)
            return
        desc = irqdesc._descs.get(number)
        asking = Asking(here(), self._evidence.tick(), _calls())
        pending = desc is not None and desc.pending and not desc.actions
        self._asking[number] = asking
        if thread_fn is not None:
            thread_fn = self._threaded(number, thread_fn)
        try:
            original(number, handler, thread_fn, flags, name, dev_id)
            desc = irqdesc.irq_to_desc(number)
            line = self._line(desc, desc.actions[-1])
        finally:
            self._asking.pop(number, None)
        line.installing = False
        if pending:
            self._not_quiet(line, "was raised before it had a handler", line.asked)
        self._fire(desc, line)

    def _line(self, desc: IrqDesc, action: IrqAction) -> Line:
        line = self._lines.get(id(action))
        if line is None:
            unseen = Asking(Place("?", "process", ()), 0, ())
            asking = self._asking.get(desc.irq, unseen)
            line = self._lines.setdefault(id(action), Line(desc.irq, action, asking))
            line.installing = asking is not unseen
        return line

    def _not_quiet(self, line: Line, what: str, second: Place) -> None:
        self._add(
            "I3", f"irq {line.irq} ({line.action.name}) {what}",
            ("the handler was installed", line.asked),
            ("the interrupt was there already", second),
        )  # fmt: skip

    def _fire(self, desc: IrqDesc, line: Line) -> None:
        """What CONFIG_DEBUG_SHIRQ does: an interrupt that is somebody else's, right now."""
        handler, flags = line.action.handler, line.action.flags
        if handler is None or not (flags & IRQF_SHARED or self._shirq):
            return
        if "I4" in self._evidence.reports.allowed or not desc.busy.acquire(False):
            return  # the latter: it runs at this moment, nothing to add to that
        section = self._section(line, desc.irq, in_thread=False)
        posts = section.posts
        outer = context.CONTEXT.handler
        self._evidence.cpu.sections.append(section)
        try:
            desc.runner = threading.get_ident()
            context.CONTEXT.handler = f"{line.action.name}, fired by the checker"
            handler(line.irq, line.action.dev_id)
        except Exception as exc:  # noqa: BLE001 - a handler that is not ready is what we look for
            self._unready(line, exc)
        finally:
            context.CONTEXT.handler = outer
            self._evidence.cpu.sections.pop()
            desc.runner = None
            desc.busy.release()
        for record in posts:
            if not record.kind and record.latest is not None:
                self._add(
                    "I4", f"{line.action.name} took an interrupt for its own that was not",
                    (f"complete() of {record.name}", record.latest.place),
                    ("the handler was requested", line.asked),
                )  # fmt: skip
        irqdesc.run_pending(desc)

    def _unready(self, line: Line, exc: Exception) -> None:
        place = _place_of(exc)
        missing = getattr(exc, "name", None)
        if isinstance(exc, (AttributeError, NameError)) and missing:
            line.missing[missing] = place
        self._add(
            "I4", f"{line.action.name} raised {type(exc).__name__}: {exc}",
            ("the handler failed", place), ("it was requested", line.asked),
        )  # fmt: skip

    def free(self, original: Hook, number: int, dev_id: Any) -> str | None:
        """I1, I5; I4 once more."""
        if in_core(sys._getframe(2)):
            return original(number, dev_id)  # type: ignore[no-any-return]
        place = here()
        desc = irqdesc._descs.get(number)
        actions = desc.actions if desc is not None else ()
        action = next((action for action in actions if action.dev_id is dev_id), None)
        key = (number, id(dev_id))
        if desc is not None and action is None:
            self._add(
                "I5", f"free_irq() of irq {number}, which is free",
                ("free_irq() again", place),
                ("it was freed", self._freed.get(key) or place),
            )  # fmt: skip
        with self._waiting_for_handlers(number, "free_irq()", place):
            name: str | None = original(number, dev_id)
        if desc is None or action is None:
            return name
        self._settle(number)
        self._freed[key] = place
        line = self._line(desc, action)
        self._fire(desc, line)
        self._lines.pop(id(action), None)
        self._locks.forget(id(action))
        if not desc.actions:
            self._disabled.pop(number, None)
        return name

    def free_desc(self, original: Hook, number: int) -> None:
        """I5: the line goes, and its handler is still there."""
        desc = irqdesc._descs.get(number)
        for action in desc.actions if desc is not None else ():
            self._add(
                "I5", f"irq {number} ends with the handler of {action.name} on it",
                ("irq_free_desc()", here()),
                ("the handler was requested", self.requested(action) or here()),
            )  # fmt: skip
        original(number)

    # masking and waiting

    def disable(self, original: Hook, number: int) -> None:
        """I1; and the depth for I2."""
        place = here()
        with self._waiting_for_handlers(number, "disable_irq()", place):
            original(number)
        self._note_disabled(number, place)

    def disable_nosync(self, original: Hook, number: int) -> None:
        """The depth for I2."""
        original(number)
        if not in_core(sys._getframe(2)):
            self._note_disabled(number, here())

    def _note_disabled(self, number: int, place: Place) -> None:
        self._touched[number] = place
        self._disabled.setdefault(number, deque()).append((threading.get_ident(), place))
        self._settle(number)

    def enable(self, original: Hook, number: int) -> None:
        """I2, I3."""
        if in_core(sys._getframe(2)):
            original(number)
            return
        desc = irqdesc._descs.get(number)
        place = here()
        lines = [line for line in self.lines() if line.irq == number]
        if desc is not None and not desc.disables:
            last = self._touched.get(number) or (lines[0].asked if lines else place)
            self._add(
                "I2", f"enable_irq() of irq {number}, which is on",
                ("one enable too many", place), ("the last change before it", last),
            )  # fmt: skip
        first = number not in self._touched
        for line in lines:
            if first and desc is not None and desc.pending and line.action.flags & IRQF_NO_AUTOEN:
                self._not_quiet(line, "is pending before it is enabled for the first time", place)
        self._touched[number] = place
        disabled = self._disabled.get(number)
        if disabled:
            disabled.pop()
        original(number)

    def synchronize(self, original: Hook, number: int) -> Any:
        """I1."""
        if in_core(sys._getframe(2)):
            return original(number)
        with self._waiting_for_handlers(number, f"{original.__name__}()", here()):
            result = original(number)
        self._settle(number)
        return result

    @contextmanager
    def _waiting_for_handlers(self, number: int, call: str, place: Place) -> Iterator[None]:
        cpu = self._evidence.cpu
        running = [section for section in cpu.sections if section.irq == number]
        if call == "synchronize_hardirq()":
            running = [section for section in running if not section.in_thread]
        for section in running[:1]:
            self._add(
                "I1", f"{call} of irq {number} in its own handler",
                (call, place),
                ("the handler was requested", self.requested(section.action) or place),
            )  # fmt: skip
        for line in self.lines():
            shared = self._locks.shared_with(id(line.action)) if line.irq == number else None
            if shared is not None and not running:
                self._add(
                    "I1", f"{call} of irq {number} under {shared[0]}, which its handler takes",
                    (call, place), ("the handler takes the lock", shared[1]),
                )  # fmt: skip
        outer, cpu.excused = cpu.excused, bool(running)
        try:
            yield
        finally:
            cpu.excused = outer

    def _settle(self, number: int) -> None:
        """This task has stopped a line: its waits that got no token are looked after."""
        lines = {id(line.action) for line in self.lines() if line.irq == number}
        task = threading.current_thread().name
        for record in self._evidence.records():
            last = record.last
            if last is None or last.outcome == TOKEN or last.wait.place.task != task:
                continue
            if not record.completers or lines & set(record.completers):
                record.settled = True
                if record.operation is not None:
                    record.operation.stopped = True

    # handlers

    def handle(self, original: Hook, desc: IrqDesc, action: IrqAction) -> IrqReturn:
        """A run of a handler: I3, I6."""
        line = self._line(desc, action)
        section = self._section(line, desc.irq, in_thread=False)
        sections = self._evidence.cpu.sections
        sections.append(section)
        try:
            result: IrqReturn = original(desc, action)
        finally:
            sections.remove(section)
        if line.installing:
            for record in section.posts:
                if not record.quiet and record.latest is not None:
                    self._not_quiet(
                        line, f"completed {record.name} before request_irq() was over",
                        record.latest.place,
                    )  # fmt: skip
        self._count(line, result)
        return result

    def _section(self, line: Line, number: int, *, in_thread: bool) -> Section:
        return Section(next(self._serials), line.action, number, in_thread, [])

    def _count(self, line: Line, result: IrqReturn) -> None:
        line.ran += 1
        if result:
            line.last_handled = (self._evidence.tick(), line.handler_place())
        else:
            line.unhandled += 1
        if line.ran == UNHANDLED_OF:
            if line.unhandled >= UNHANDLED:
                self._add(
                    "I6", f"{line.action.name}: {line.unhandled} of {line.ran} not handled",
                    ("the handler", line.handler_place()), ("it was requested", line.asked),
                )  # fmt: skip
            line.ran = line.unhandled = 0

    def raised(
        self, original: Hook, desc: IrqDesc, action: IrqAction, exc: BaseException, where: str
    ) -> None:
        """I4: and M1 may follow, when what was missing is made."""
        if isinstance(exc, (AttributeError, NameError)):
            self._unready(self._line(desc, action), exc)
        original(desc, action, exc, where)

    def _threaded(self, number: int, thread_fn: Any) -> Any:
        @functools.wraps(thread_fn)
        def run(irq_number: int, dev_id: Any) -> Any:
            line = self._line_of_thread(number)
            if line is None:
                return thread_fn(irq_number, dev_id)
            sections = self._evidence.cpu.sections
            section = self._section(line, number, in_thread=True)
            sections.append(section)
            try:
                return thread_fn(irq_number, dev_id)
            finally:
                sections.remove(section)

        return run

    def _line_of_thread(self, number: int) -> Line | None:
        mine = threading.current_thread()
        desc = irqdesc._descs.get(number)
        for action in desc.actions if desc is not None else ():
            if action.thread is mine:
                return self._line(irqdesc.irq_to_desc(number), action)
        return None

    def enter_hardirq(self, original: Hook, handler: str) -> Any:
        """Where ``with hardirq():`` began, for M10."""
        self._evidence.cpu.hardirq = here()
        return original(handler)

    def at_end(self) -> None:
        """I2: what is still disabled."""
        for line in self.lines():
            for _, place in tuple(self._disabled.get(line.irq, ()))[:1]:
                self._add(
                    "I2", f"irq {line.irq} is never enabled again",
                    ("disable_irq() without its enable_irq()", place),
                    ("the line was requested", line.asked),
                )  # fmt: skip


def _calls() -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    frame = user_frame()
    while frame is not None and len(found) < FRAMES:
        found.append((id(frame), frame.f_lasti))
        frame = frame.f_back
    return tuple(found)


def _place_of(exc: BaseException) -> Place:
    """Where it was raised."""
    trace = exc.__traceback__
    spots = []
    while trace is not None:
        if not in_core(trace.tb_frame):
            code = trace.tb_frame.f_code
            spots.append(Spot(code.co_filename, trace.tb_lineno, code.co_qualname))
        trace = trace.tb_next
    return Place(threading.current_thread().name, here().context, tuple(reversed(spots)))
