# SPDX-License-Identifier: MIT
"""The macros that declare a completion: M20, and whose stack it is on (M8)."""

from __future__ import annotations

import inspect
import sys
from typing import Any

from udriver.checker import bytecode
from udriver.checker.evidence import Evidence
from udriver.checker.patch import Hook
from udriver.checker.place import Place, Spot, activation, here, in_core
from udriver.kernel import completion
from udriver.kernel.completion import Completion

__all__ = ["Declaring"]


class Declaring:
    """Hooks of the initialisers."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._add = evidence.reports.add

    def hooks(self) -> dict[Any, Hook]:
        """Function of the core: what is called instead."""
        return {
            completion.COMPLETION_INITIALIZER: self.declare,
            completion.COMPLETION_INITIALIZER_ONSTACK: self.declare_onstack,
            completion.COMPLETION_INITIALIZER_ONSTACK_MAP: self.declare_onstack,
        }

    def declare(self, original: Hook, work: str) -> Completion:
        """M20: it is stored in a local variable, and not handed on."""
        x: Completion = original(work)
        frame = sys._getframe(2)
        code = frame.f_code
        if in_core(frame) or not code.co_flags & inspect.CO_OPTIMIZED:
            return x
        how, name = bytecode.stored_in(frame)
        if how.startswith("STORE_FAST") and not bytecode.escapes(code, name, completion.__all__):
            spot = Spot(code.co_filename, code.co_firstlineno, code.co_qualname)
            self._add(
                "M20", f"{name} is an automatic variable of {code.co_qualname}()",
                ("DECLARE_COMPLETION() or COMPLETION_INITIALIZER()", here()),
                ("the function whose frame it lives in", Place("any task", "process", (spot,))),
            )  # fmt: skip
        return x

    def declare_onstack(self, original: Hook, *args: Any) -> Completion:
        """It lives as long as the function that declared it."""
        x: Completion = original(*args)
        frame = sys._getframe(2)
        record = self._evidence.find(x)
        if record is not None and frame.f_code.co_flags & inspect.CO_OPTIMIZED:
            record.owner = activation(frame)
        return x
