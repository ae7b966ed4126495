# SPDX-License-Identifier: MIT
"""request_irq(), free_irq() and the end of a line: I3, I5, and I4 by an interrupt out of turn."""

from __future__ import annotations

import sys
from typing import Any

from udriver.checker.evidence import Evidence
from udriver.checker.handlers import Handlers
from udriver.checker.lines import Lines
from udriver.checker.locks import Locks
from udriver.checker.masking import Masking
from udriver.checker.patch import Hook
from udriver.checker.place import Place, here, in_core
from udriver.kernel import context, irq, irqdesc

__all__ = ["Requesting"]


class Requesting:
    """Hooks of whoever puts a handler on a line."""

    def __init__(
        self, evidence: Evidence, lines: Lines, handlers: Handlers, masking: Masking, locks: Locks
    ) -> None:
        self._add = evidence.reports.add
        self._lines = lines
        self._handlers = handlers
        self._masking = masking
        self._locks = locks
        self._freed: dict[tuple[int, int], Place] = {}

    def hooks(self) -> dict[Any, Hook]:
        """Function of the core: what is called instead."""
        return {
            irq.request_threaded_irq: self.request,
            irq.free_irq: self.free,
            irqdesc.irq_free_desc: self.free_desc,
        }

    def request(
        self, original: Hook, number: int, handler: Any, thread_fn: Any, flags: int, name: str, dev_id: Any
    ) -> None:  # fmt: skip
        """I3, I4."""
        if context.in_hardirq():
            original(number, handler, thread_fn, flags, name, dev_id)
            return
        desc = irqdesc._descs.get(number)
        pending = desc is not None and desc.pending and not desc.actions
        self._lines.asking(number)
        if thread_fn is not None:
            thread_fn = self._handlers.threaded(number, thread_fn)
        try:
            original(number, handler, thread_fn, flags, name, dev_id)
            desc = irqdesc.irq_to_desc(number)
            line = self._lines.line(desc, desc.actions[-1])
        finally:
            self._lines.asked(number)
        line.installing = False
        if pending:
            self._handlers.not_quiet(line, "was raised before it had a handler", line.asked)
        self._handlers.fire(desc, line)

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
        with self._masking.waiting_for_handlers(number, "free_irq()", place):
            name: str | None = original(number, dev_id)
        if desc is None or action is None:
            return name
        self._lines.settle(number, for_good=True)
        self._freed[key] = place
        line = self._lines.line(desc, action)
        self._handlers.fire(desc, line)
        self._lines.gone(line)
        self._locks.forget(id(action))
        return name

    def free_desc(self, original: Hook, number: int) -> None:
        """I5: the line goes, and its handler is still there."""
        desc = irqdesc._descs.get(number)
        for action in desc.actions if desc is not None else ():
            self._add(
                "I5", f"irq {number} ends with the handler of {action.name} on it",
                ("irq_free_desc()", here()),
                ("the handler was requested", self._lines.requested(action) or here()),
            )  # fmt: skip
        original(number)
