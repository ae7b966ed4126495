# SPDX-License-Identifier: MIT
"""Waits that begin wrongly, return the wrong number, or sleep in the wrong state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

from tests.oracle.mistake import wrong
from udriver.kernel import completion as kernel
from udriver.kernel.completion import UINT_MAX, Completion
from udriver.kernel.sched import (
    ERESTARTSYS,
    MAX_SCHEDULE_TIMEOUT,
    TASK_INTERRUPTIBLE,
    TASK_KILLABLE,
    TASK_NORMAL,
    TASK_UNINTERRUPTIBLE,
    active,
)

_wait_for_common = kernel._wait_for_common

# how a wait begins


@wrong("a pending signal is looked at before done", "_wait_for_common")
def _signal_first(x: Completion, timeout: int, state: int, taken: Any = None) -> int:
    scheduler = active()
    if scheduler.signal_pending_state(state, scheduler.current()):
        return -ERESTARTSYS
    return _wait_for_common(x, timeout, state, taken)


@wrong("who comes lets the queued go first", "_wait_for_common")
def _no_barging(x: Completion, timeout: int, state: int, taken: Any = None) -> int:
    if len(x.wait_queue):
        return kernel._sleep_on(x, timeout, state, [])
    return _wait_for_common(x, timeout, state, taken)


@wrong("a wait counts down from UINT_MAX", "_wait_for_common")
def _wait_consumes(x: Completion, timeout: int, state: int, taken: Any = None) -> int:
    result = _wait_for_common(x, timeout, state, taken)
    if x.done == UINT_MAX and result not in (0, -ERESTARTSYS):
        x.done = UINT_MAX - 1
    return result


@wrong("success without sleep returns 1", "_wait_for_common")
def _returns_1(x: Completion, timeout: int, state: int, taken: Any = None) -> int:
    got_one = x.done > 0
    result = _wait_for_common(x, timeout, state, taken)
    return 1 if got_one and result else result


@wrong("success with a timeout of 0 returns 0", "_wait_for_common")
def _returns_0(x: Completion, timeout: int, state: int, taken: Any = None) -> int:
    result = _wait_for_common(x, timeout, state, taken)
    return 0 if timeout == 0 and result == 1 else result


@wrong("a timeout of 0 is a poll", "_wait_for_common")
def _poll(x: Completion, timeout: int, state: int, taken: Any = None) -> int:
    if timeout == 0 and not x.done:
        return 0
    return _wait_for_common(x, timeout, state, taken)


@wrong("a negative timeout is for ever", "_wait_for_common")
def _for_ever(x: Completion, timeout: int, state: int, taken: Any = None) -> int:
    return _wait_for_common(x, timeout if timeout >= 0 else MAX_SCHEDULE_TIMEOUT, state, taken)


@wrong("success of a wait for ever returns 1", "_wait_for_common")
def _for_ever_1(x: Completion, timeout: int, state: int, taken: Any = None) -> int:
    result = _wait_for_common(x, timeout, state, taken)
    return 1 if result == MAX_SCHEDULE_TIMEOUT else result


# in which state


def _in_state(instead: Callable[[int], int]) -> Any:
    def wait(x: Completion, timeout: int, state: int, taken: Any = None) -> int:
        return _wait_for_common(x, timeout, instead(state), taken)

    return wait


_all_signals = {TASK_KILLABLE: TASK_INTERRUPTIBLE}
_no_signals = {TASK_INTERRUPTIBLE: TASK_UNINTERRUPTIBLE}
_never = {TASK_KILLABLE: TASK_UNINTERRUPTIBLE}
_fatal_only = {TASK_INTERRUPTIBLE: TASK_KILLABLE}
wrong("a killable wait is interruptible", "_wait_for_common")(
    _in_state(lambda state: _all_signals.get(state, state))
)
wrong("an interruptible wait is uninterruptible", "_wait_for_common")(
    _in_state(lambda state: _no_signals.get(state, state))
)
wrong("a killable wait is uninterruptible", "_wait_for_common")(
    _in_state(lambda state: _never.get(state, state))
)
wrong("an interruptible wait is killable", "_wait_for_common")(
    _in_state(lambda state: _fatal_only.get(state, state))
)
wrong("a signal ends every wait", "_wait_for_common")(_in_state(lambda state: TASK_INTERRUPTIBLE))
wrong("complete() wakes every task state", "_wait_for_common")(
    _in_state(lambda state: state if state & TASK_NORMAL else state | TASK_UNINTERRUPTIBLE)
)
wrong("_io is not accounted", "_iowait")(mock.MagicMock)
wrong("-ERESTARTSYS is -EINTR", "_wait_for_common")(
    lambda x, timeout, state, taken=None: _eintr(_wait_for_common(x, timeout, state, taken))
)


def _eintr(result: int) -> int:
    return -4 if result == -ERESTARTSYS else result
