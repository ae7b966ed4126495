# SPDX-License-Identifier: MIT
"""Runs of interrupt handlers: I3, I4, I6."""

from __future__ import annotations

import functools
import threading
from typing import Any

from udriver.checker.evidence import Evidence, Section
from udriver.checker.lines import Line, Lines
from udriver.checker.patch import Hook
from udriver.checker.place import Place, Spot, here, in_core
from udriver.kernel import context, irqdesc
from udriver.kernel.irqdesc import IRQF_SHARED, IrqAction, IrqDesc, IrqReturn

__all__ = ["Handlers"]

UNHANDLED_OF = 1000  # I6: as the core's 99,900 of 100,000, so early that a test sees it
UNHANDLED = 999


class Handlers:
    """Hooks of the irq core where it runs them."""

    def __init__(self, evidence: Evidence, lines: Lines, *, shirq: bool) -> None:
        self._evidence = evidence
        self._add = evidence.reports.add
        self._lines = lines
        self._shirq = shirq

    def hooks(self) -> dict[Any, Hook]:
        """Function of the core: what is called instead."""
        return {
            irqdesc._handle_action: self.handle,
            irqdesc.report_exception: self.raised,
            context.hardirq_enter: self.enter_hardirq,
        }

    def handle(self, original: Hook, desc: IrqDesc, action: IrqAction) -> IrqReturn:
        """A run of a handler: I3, I6."""
        line = self._lines.line(desc, action)
        section = self._lines.section(line, desc.irq, in_thread=False)
        sections = self._evidence.cpu.sections
        sections.append(section)
        try:
            result: IrqReturn = original(desc, action)
        finally:
            sections.remove(section)
        if line.installing:
            for record in section.posts:
                if not record.quiet and record.latest is not None:
                    self.not_quiet(
                        line, f"completed {record.name} before request_irq() was over",
                        record.latest.place,
                    )  # fmt: skip
        self._count(line, result, section)
        return result

    def _count(self, line: Line, result: IrqReturn, section: Section) -> None:
        line.ran += 1
        if not result:
            line.unhandled += 1
        elif not section.posts:
            line.silent = self._evidence.tick()
        elif line.silent is not None:
            line.silent, line.partial = None, True
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
            self._unready(self._lines.line(desc, action), exc)
        original(desc, action, exc, where)

    # not the core's runs

    def threaded(self, number: int, thread_fn: Any) -> Any:
        @functools.wraps(thread_fn)
        def run(irq_number: int, dev_id: Any) -> Any:
            line = self._line_of_thread(number)
            if line is None:
                return thread_fn(irq_number, dev_id)
            sections = self._evidence.cpu.sections
            section = self._lines.section(line, number, in_thread=True)
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
                return self._lines.line(irqdesc.irq_to_desc(number), action)
        return None

    def not_quiet(self, line: Line, what: str, second: Place) -> None:
        self._add(
            "I3", f"irq {line.irq} ({line.action.name}) {what}",
            ("the handler was installed", line.asked),
            ("the interrupt was there already", second),
        )  # fmt: skip

    def fire(self, desc: IrqDesc, line: Line) -> None:
        """What CONFIG_DEBUG_SHIRQ does: an interrupt that is somebody else's, right now."""
        handler, flags = line.action.handler, line.action.flags
        if handler is None or not (flags & IRQF_SHARED or self._shirq):
            return
        if "I4" in self._evidence.reports.allowed or not desc.busy.acquire(False):
            return  # the latter: it runs at this moment, nothing to add to that
        section = self._lines.section(line, desc.irq, in_thread=False)
        posts = section.posts
        outer = context.CONTEXT.handler
        result = IrqReturn.NONE
        self._evidence.cpu.sections.append(section)
        try:
            desc.runner = threading.get_ident()
            context.CONTEXT.handler = f"{line.action.name}, fired by the checker"
            result = handler(line.irq, line.action.dev_id)
        except Exception as exc:  # noqa: BLE001 - a handler that is not ready is what we look for
            self._unready(line, exc)
        finally:
            context.CONTEXT.handler = outer
            self._evidence.cpu.sections.pop()
            desc.runner = None
            desc.busy.release()
        if result and flags & IRQF_SHARED and not posts:
            self._add(
                "I4", f"{line.action.name} took an interrupt for its own that was not",
                ("the handler did not return IRQ_NONE", line.handler_place()),
                ("it was requested", line.asked),
            )  # fmt: skip
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

    def enter_hardirq(self, original: Hook, handler: str) -> Any:
        """Where ``with hardirq():`` began, for M10."""
        self._evidence.cpu.hardirq = here()
        return original(handler)


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
