# SPDX-License-Identifier: MIT
"""Counts the bytecode boundaries of the code under test, and interrupts at a chosen one.

Three ways to interrupt:

``call``   the handler is called there, as a function: no signal is needed for reentrancy.
``raise``  a real signal, whose Python handler runs at that very boundary (signal.raise_signal).
``pend``   a real signal that has arrived there; CPython runs its handler when it looks next, which may
           be after a call that blocks: the stall, where nobody wakes the thread that sleeps.

With the first two the handler is traced too, so that a second one can interrupt it at each of its
boundaries in turn.
"""

from __future__ import annotations

import ctypes
import signal
import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

__all__ = ["INNER", "MODES", "OUTER", "Boundaries"]

MODES = ("call", "raise", "pend")
OUTER, INNER = signal.SIGUSR1, signal.SIGUSR2
# PyDLL and not CDLL: it keeps the GIL, and nothing in it looks for signals
_RAISE: Callable[[int], int] = getattr(ctypes.PyDLL(None), "raise")


class Boundaries:
    """``files`` are parts of paths: code in them is under test; ``act`` is the code that calls it.

    ``at`` and ``inner_at`` count from 1; 0 never comes. ``where`` says what was interrupted. ``seen`` are
    the functions under test that were interrupted at least once since the object was made; with ``at``
    0 those that could have been.
    """

    def __init__(self, files: tuple[str, ...], act: CodeType) -> None:
        self._files = files
        self._act = act
        self._ours: dict[CodeType, bool] = {}
        self._main = threading.get_ident()
        self.seen: set[tuple[str, str]] = set()
        self.active = False
        self.arm("call", 0, 0, [])

    def arm(self, mode: str, at: int, inner_at: int, fire: list[Callable[[], object]]) -> None:
        """Get ready for the next run: call ``fire[0]`` at ``at``, ``fire[1]`` at ``inner_at``."""
        self._mode = mode
        self._at = at
        self._inner_at = inner_at
        self._fire = fire
        self.count = self.inner_count = 0
        self.in_handler = False
        self.where = self.inner_where = ""

    # what both ways of tracing share

    def under_test(self, code: CodeType) -> bool:
        """Whether boundaries of ``code`` count. __del__ does not: the collector chooses its time."""
        ours = self._ours.get(code)
        if ours is None:
            named = any(part in code.co_filename for part in self._files)
            ours = code is self._act or (named and code.co_name != "__del__")
            self._ours[code] = ours
        return ours

    def _due(self, code: CodeType, offset: int) -> int:
        """0: go on. 1 or 2: interrupt, the code under test or its handler."""
        if self.in_handler:
            self.inner_count += 1
            if self.inner_count != self._inner_at:
                return 0
            self.inner_where = f"{code.co_qualname} +{offset}"
            return 2
        self.count += 1
        if self.count != self._at:
            if self._at == 0:
                self.seen.add((code.co_filename, code.co_qualname))
            return 0
        self.where = f"{code.co_qualname} +{offset}"
        self.seen.add((code.co_filename, code.co_qualname))
        return 1

    def _interrupt(self, due: int) -> None:
        if self._mode == "call":
            sys.call_tracing(self._traced, (self._fire[due - 1],))
        else:
            sys.call_tracing(self._traced, (signal.raise_signal, OUTER if due == 1 else INNER))

    def _traced(self, function: Callable[..., object], *args: int) -> None:
        if sys.version_info < (3, 12):
            sys.settrace(self._call)  # call_tracing() of 3.11 forgets to turn it on again
        function(*args)

    # sys.settrace: 3.11

    def _call(self, frame: FrameType, event: str, arg: Any) -> Any:
        if not self.under_test(frame.f_code):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._step

    def _step(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "opcode" and self.active and (due := self._due(frame.f_code, frame.f_lasti)):
            if self._mode != "pend":
                self._interrupt(due)
                if due == 1:
                    sys.settrace(None)  # what follows is not counted, so it need not be slow
            else:
                sys.settrace(None)  # CPython would look when it next enters this function
                [*map(_RAISE, (OUTER,))]  # no call from bytecode: it looks behind those
        return self._step

    # sys.monitoring: settrace() of 3.13 shows opcodes only from the second call of a function on

    def _instruction(self, code: CodeType, offset: int) -> object:
        if not self.under_test(code):
            return sys.monitoring.DISABLE
        if self.active and threading.get_ident() == self._main and (due := self._due(code, offset)):
            if self._mode != "pend":
                self._interrupt(due)
                if due == 1:
                    self._hear(None)
            else:
                self._hear(None)
                [*map(_RAISE, (OUTER,))]
        return None

    def _hear(self, callback: Callable[[CodeType, int], object] | None) -> None:
        monitoring = sys.monitoring
        event = monitoring.events.INSTRUCTION
        monitoring.register_callback(monitoring.DEBUGGER_ID, event, callback)

    def run(self, act: Callable[[], object]) -> None:
        """Run ``act`` with its boundaries counted."""
        if sys.version_info >= (3, 12):
            self._monitor()
            self.active = True
            try:
                act()
            finally:
                self.active = False
        else:
            self.active = True
            sys.settrace(self._call)
            try:
                act()
            finally:
                sys.settrace(None)
                self.active = False

    def _monitor(self) -> None:
        monitoring = sys.monitoring
        self._hear(self._instruction)
        if monitoring.get_tool(monitoring.DEBUGGER_ID) is None:
            monitoring.use_tool_id(monitoring.DEBUGGER_ID, "tests.bytecode")
            # once: each change makes all code be instrumented anew
            monitoring.set_events(monitoring.DEBUGGER_ID, monitoring.events.INSTRUCTION)
