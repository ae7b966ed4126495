# SPDX-License-Identifier: MIT
"""The kernel's steps: what Linux 6.12 does in one section under the lock of the queue.

Beside machine.py, on the same state. ``done`` is always the first deque; reinit is its plain store.
"""

from __future__ import annotations

from typing import Any

from tests.interleaving.machine import OPEN, Effect, Thread, World, enqueue, remove, take


def _complete(w: World, me: Thread, arg: Any) -> None:
    if w.ref != OPEN:
        w.counts[0] += 1
    if w.line:
        w.flags[w.line.pop(0)[0]] = True


def _complete_all(w: World, me: Thread, arg: Any) -> None:
    w.ref = OPEN
    while w.line:
        w.flags[w.line.pop(0)[0]] = True


def _reinit(w: World, me: Thread, arg: Any) -> None:
    w.ref, w.counts[0] = 0, 0


def _try_wait(w: World, me: Thread, arg: Any) -> bool:
    if w.ref == OPEN:
        return True
    w.held[me.number] = 0
    return take(w, me, arg)


def _wait(w: World, me: Thread, arg: tuple[tuple[int, ...], bool]) -> str:
    ended_by, late = arg
    said = "late"
    if _try_wait(w, me, None):
        said = "ok"
    elif not late:
        said = "signal" if set(ended_by) & set(w.pend[me.number][1]) else "asleep"
    if said == "asleep":
        enqueue(w, me, None)
        w.flags[me.number] = False
    else:
        remove(w, me, None)
    return said


def _signal(w: World, me: Thread, arg: tuple[int, int]) -> None:
    sig, whose = arg
    which, sigs = w.pend[whose]
    w.pend[whose] = (which, (*sigs, sig))
    w.flags[whose] = True  # where the state does not allow it, one more look that changes nothing


def _user(w: World, me: Thread, arg: Any) -> None:
    w.pend[me.number] = (w.pend[me.number][0], ())


SECTIONS: dict[str, Effect] = {
    "k complete": _complete, "k complete_all": _complete_all, "k reinit_completion": _reinit,
    "k try_wait_for_completion": _try_wait, "k wait": _wait, "k signal": _signal, "k user": _user,
    "k completion_done": lambda w, me, arg: w.ref == OPEN or w.counts[0] > 0,
}  # fmt: skip
