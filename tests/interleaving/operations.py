# SPDX-License-Identifier: MIT
"""What a task of a program does: a letter each, the real core's function and the kernel's steps.

====== ==========================================  ====== ===========================================
``C``  complete()                                  ``W``  wait_for_completion()
``A``  complete_all()                              ``X``  wait_for_completion_timeout()
``R``  reinit_completion()                         ``I``  wait_for_completion_interruptible()
``T``  try_wait_for_completion()                   ``K``  wait_for_completion_killable()
``D``  completion_done()                           ``Y``  wait_for_completion_interruptible_timeout()
``U1`` send_sig(SIGUSR1) to task 1                 ``B``  Completion.wait_into(), then put_back()
``S1`` send_sig(SIGKILL) to task 1
====== ==========================================  ====== ===========================================

:func:`ours` runs the core. :func:`kernels` is the reference, Linux 6.12's do_wait_for_common() and
friends: what the kernel does under the lock of the queue is one step, and nothing else is.
"""

from __future__ import annotations

import signal
from typing import Any

from tests.interleaving.ports import JIFFIES, Ask, Asker, PortTask, Seam, X, substituted
from udriver.kernel import completion as kernel
from udriver.kernel import sched
from udriver.kernel.sched import ERESTARTSYS

WAITS = "WXIKYB"
TIMED = "XY"
SIGNALS = {"U": signal.SIGUSR1, "S": signal.SIGKILL}
ENDED_BY = {
    "W": (), "X": (), "B": (signal.SIGKILL,), "K": (signal.SIGKILL,),
    "I": (signal.SIGUSR1, signal.SIGKILL), "Y": (signal.SIGUSR1, signal.SIGKILL),
}  # fmt: skip
FUNCTIONS = {
    "C": "complete", "A": "complete_all", "R": "reinit_completion", "T": "try_wait_for_completion",
    "D": "completion_done", "W": "wait_for_completion", "X": "wait_for_completion_timeout",
    "I": "wait_for_completion_interruptible", "K": "wait_for_completion_killable",
    "Y": "wait_for_completion_interruptible_timeout",
}  # fmt: skip


def ours(op: str, ask: Asker) -> str:
    """Carry out ``op`` with the core, and say what came of it."""
    x = X(ask)
    seam = Seam(ask)
    with sched.using(seam), substituted(ask):
        if op[0] in SIGNALS:
            sched.send_sig(SIGNALS[op[0]], PortTask(ask, int(op[1:])))
            return "ok"
        if op == "B":
            return _borrow(x)
        arguments = (JIFFIES,) if op in TIMED else ()
        return _told(op, getattr(kernel, FUNCTIONS[op])(x, *arguments))


def _borrow(x: X) -> str:
    taken: list[object] = []
    try:
        x.wait_into(taken)
    except InterruptedError:
        return "signal"
    x.put_back(taken)
    return "ok"


def _told(op: str, result: Any) -> str:
    if result == -ERESTARTSYS:
        return "signal"
    if op in TIMED:
        return "ok" if result >= 1 else "late"
    return "yes" if result is True else "no" if result is False else "ok"


def kernels(op: str, ask: Asker) -> str:
    """The same by the kernel's algorithm; each ask is a section under the lock."""
    if op[0] in SIGNALS:
        ask(Ask("k signal", (SIGNALS[op[0]], int(op[1:]))))
        return "ok"
    if op not in WAITS:
        result = ask(Ask("k " + FUNCTIONS[op]))
        return "ok" if result is None else "yes" if result else "no"
    late = False
    while (said := ask(Ask("k wait", (ENDED_BY[op], late)))) == "asleep":
        late = ask(Ask("sleep", (op in TIMED, ENDED_BY[op]))) == "late"
    if op == "B" and said == "ok":
        ask(Ask("k complete"))
    ask(Ask("k user"))  # its signals are handled
    return said  # type: ignore[no-any-return]
