# SPDX-License-Identifier: MIT
"""The completion checker: what lockdep is for locks, for completions and their interrupts.

    with udriver.checking() as report:
        ...                              # reports go to stderr as they are made
    assert not report, report

30 rules (``RULES``), each a mistake that drivers really make. Nothing of it is there while no
block runs: patch.py puts the hooks into the core's functions and takes them out.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from udriver.checker.declaring import Declaring
from udriver.checker.evidence import Evidence
from udriver.checker.handlers import Handlers
from udriver.checker.lifetime import Lifetime
from udriver.checker.lines import Lines
from udriver.checker.locks import Locks
from udriver.checker.looking import Looking
from udriver.checker.masking import Masking
from udriver.checker.operations import Operations
from udriver.checker.patch import Patches
from udriver.checker.posting import Posting
from udriver.checker.report import Report, Reports
from udriver.checker.requesting import Requesting
from udriver.checker.rules import RULES, Rule
from udriver.checker.waiting import Waiting
from udriver.errors import UDriverError
from udriver.kernel import annotation

__all__ = ["RULES", "CheckFailed", "Report", "Reports", "Rule", "checking"]


class CheckFailed(UDriverError):
    """``checking(strict=True)`` found something; ``reports`` says what."""

    def __init__(self, reports: Reports) -> None:
        rules = ", ".join(dict.fromkeys(reports.rules))
        super().__init__(f"the completion checker found {rules}; mend it, or allow it by its id")
        self.reports = reports


class _Checker:
    """One block's rules, put together."""

    def __init__(self, reports: Reports, *, shirq: bool) -> None:
        evidence = Evidence(reports)
        self._locks = Locks(evidence)
        lines = Lines(evidence)
        handlers = Handlers(evidence, lines, shirq=shirq)
        self._masking = Masking(evidence, lines, handlers, self._locks)
        self._lifetime = Lifetime(evidence, lines)
        self._operations = Operations(evidence, self._locks)
        parts = (
            Posting(evidence, self._lifetime, self._locks),
            Waiting(evidence, self._lifetime, lines, self._locks),
            Looking(evidence, self._lifetime),
            self._lifetime,
            Declaring(evidence),
            Requesting(evidence, lines, handlers, self._masking, self._locks),
            handlers,
            self._masking,
        )
        self._patches = Patches({key: hook for part in parts for key, hook in part.hooks().items()})

    def on(self) -> None:
        self._locks.on()
        self._patches.on()
        annotation.checker = self._operations

    def off(self) -> None:
        annotation.checker = None
        self._patches.off()
        self._locks.restore()

    def end(self) -> None:
        """After off(): what is still open."""
        self._lifetime.at_end()
        self._masking.at_end()
        self._operations.off()


_active: list[_Checker] = []
_switch = threading.RLock()  # switching only: process context


@contextmanager
def checking(
    *, strict: bool = False, allow: Collection[str] = (), stderr: bool = True, shirq: bool = False
) -> Iterator[Reports]:
    """Check completions and interrupts of the whole process while the block runs.

    Gives the reports, which are true if there is one. Each mistake is reported once for its two
    places: at once, to file descriptor 2, unless ``stderr`` is false. ``strict`` raises CheckFailed at
    the end of a block that did not fail by itself. ``allow`` names rules that may be broken.
    ``shirq`` fires each handler once at request_irq() and at free_irq(), which is otherwise done for
    IRQF_SHARED lines only (CONFIG_DEBUG_SHIRQ).

    A block inside another one has its own reports, and the outer one rests. Completions and lines
    that are older than the block are judged by less: what they went through was not seen.
    """
    reports = Reports(allow, stderr=stderr)
    with _switch:
        if _active:
            _active[-1].off()  # first: what the new one patches are the plain functions
        checker = _Checker(reports, shirq=shirq)
        _active.append(checker)
        checker.on()
    try:
        yield reports
    finally:
        with _switch:
            checker.off()
            _active.remove(checker)
            if _active:
                _active[-1].on()
        checker.end()
        reports.close()
    if strict and reports:
        raise CheckFailed(reports)
