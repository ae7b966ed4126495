# SPDX-License-Identifier: MIT
"""Switching lines off and on, and waiting for their handlers: I1, I2, I3."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from udriver.checker.evidence import Evidence
from udriver.checker.handlers import Handlers
from udriver.checker.lines import Lines
from udriver.checker.locks import Locks
from udriver.checker.patch import Hook
from udriver.checker.place import Place, here, in_core
from udriver.kernel import irq, irqdesc
from udriver.kernel.irqdesc import IRQF_NO_AUTOEN

__all__ = ["Masking"]


class Masking:
    """Hooks of whoever keeps a handler from running."""

    def __init__(self, evidence: Evidence, lines: Lines, handlers: Handlers, locks: Locks) -> None:
        self._evidence = evidence
        self._add = evidence.reports.add
        self._lines = lines
        self._handlers = handlers
        self._locks = locks
        self._touched: dict[int, Place] = {}  # by irq: where it was enabled or disabled last

    def hooks(self) -> dict[Any, Hook]:
        """Function of the core: what is called instead."""
        return {
            irq.disable_irq: self.disable,
            irq.disable_irq_nosync: self.disable_nosync,
            irq.enable_irq: self.enable,
            irq.synchronize_irq: self.synchronize,
            irq.synchronize_hardirq: self.synchronize,
        }

    def disable(self, original: Hook, number: int) -> None:
        """I1; and the depth for I2."""
        place = here()
        with self.waiting_for_handlers(number, "disable_irq()", place):
            original(number)
        self._note_disabled(number, place)

    def disable_nosync(self, original: Hook, number: int) -> None:
        """The depth for I2."""
        original(number)
        if not in_core(sys._getframe(2)):
            self._note_disabled(number, here())

    def _note_disabled(self, number: int, place: Place) -> None:
        self._touched[number] = place
        self._lines.disabled(number, place)
        self._lines.settle(number)

    def enable(self, original: Hook, number: int) -> None:
        """I2, I3."""
        if in_core(sys._getframe(2)):
            original(number)
            return
        desc = irqdesc._descs.get(number)
        place = here()
        lines = [line for line in self._lines.lines() if line.irq == number]
        if desc is not None and not desc.disables:
            last = self._touched.get(number) or (lines[0].asked if lines else place)
            self._add(
                "I2", f"enable_irq() of irq {number}, which is on",
                ("one enable too many", place), ("the last change before it", last),
            )  # fmt: skip
        first = number not in self._touched
        for line in lines:
            if first and desc is not None and desc.pending and line.action.flags & IRQF_NO_AUTOEN:
                self._handlers.not_quiet(
                    line, "is pending before it is enabled for the first time", place
                )
        self._touched[number] = place
        self._lines.enabled(number)
        original(number)

    def synchronize(self, original: Hook, number: int) -> Any:
        """I1."""
        if in_core(sys._getframe(2)):
            return original(number)
        with self.waiting_for_handlers(number, f"{original.__name__}()", here()):
            result = original(number)
        self._lines.settle(number)
        return result

    @contextmanager
    def waiting_for_handlers(self, number: int, call: str, place: Place) -> Iterator[None]:
        cpu = self._evidence.cpu
        running = [section for section in cpu.sections if section.irq == number]
        if call == "synchronize_hardirq()":
            running = [section for section in running if not section.in_thread]
        for section in running[:1]:
            self._add(
                "I1", f"{call} of irq {number} in its own handler",
                (call, place),
                ("the handler was requested", self._lines.requested(section.action) or place),
            )  # fmt: skip
        for line in self._lines.lines():
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

    def at_end(self) -> None:
        """I2: what is still disabled."""
        for line in self._lines.lines():
            since = self._lines.off_since(line.irq)
            if since is not None:
                self._add(
                    "I2", f"irq {line.irq} is never enabled again",
                    ("disable_irq() without its enable_irq()", since[1]),
                    ("the line was requested", line.asked),
                )  # fmt: skip
