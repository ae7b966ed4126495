# SPDX-License-Identifier: MIT
"""Wrong producers: complete(), complete_all(), reinit_completion(), try and done."""

from __future__ import annotations

from tests.oracle.mistake import wake_head, wrong
from udriver.kernel import completion as kernel
from udriver.kernel.completion import UINT_MAX, Completion
from udriver.kernel.sched import TASK_RUNNING

_right = {name: getattr(kernel, name) for name in kernel.__all__}

# complete()


@wrong("the count stops below UINT_MAX", "complete")
def _stops_short(x: Completion) -> None:
    if x.done == UINT_MAX - 1:
        wake_head(x)
    else:
        _right["complete"](x)


@wrong("the count wraps at UINT_MAX", "complete")
def _wraps(x: Completion) -> None:
    if x.done == UINT_MAX:
        x.done = 0
    _right["complete"](x)


@wrong("done is a flag", "complete")
def _flag(x: Completion) -> None:
    if x.done:
        wake_head(x)
    else:
        _right["complete"](x)


@wrong("complete() wakes the tail", "complete")
def _lifo(x: Completion) -> None:
    if x.wait_queue.task_list:
        x.wait_queue.task_list.move_to_end(next(reversed(x.wait_queue.task_list)), last=False)
    _right["complete"](x)


@wrong("complete() wakes everybody", "complete")
def _herd(x: Completion) -> None:
    _right["complete"](x)
    while wake_head(x):
        pass


@wrong("complete() leaves whom it wakes on the queue", "complete")
def _no_dequeue(x: Completion) -> None:
    x._done.post()
    if x.wait_queue.task_list:
        next(iter(x.wait_queue.task_list))()


@wrong("complete() passes over a waiter that is awake", "complete")
def _passes_over(x: Completion) -> None:
    asleep = [wake for wake, task in x.wait_queue.task_list.items() if task.state != TASK_RUNNING]
    if asleep:
        x.wait_queue.task_list.move_to_end(asleep[0], last=False)
    _right["complete"](x)


@wrong("complete() does not wake when a token is there already", "complete")
def _once(x: Completion) -> None:
    if x.done:
        x._done.post()
    else:
        _right["complete"](x)


@wrong("complete() of a waiter leaves no token to others", "complete")
def _handed_to_nobody(x: Completion) -> None:
    if not wake_head(x):
        x._done.post()


# complete_all(), reinit_completion()


@wrong("complete_all() posts one token a waiter", "complete_all")
def _not_sticky(x: Completion) -> None:
    for _ in list(x.wait_queue.task_list):
        _right["complete"](x)


@wrong("complete_all() wakes the tail first", "complete_all")
def _all_backwards(x: Completion) -> None:
    for wake in list(x.wait_queue.task_list):
        x.wait_queue.task_list.move_to_end(wake, last=False)
    _right["complete_all"](x)


@wrong("complete_all() wakes the head only", "complete_all")
def _all_but(x: Completion) -> None:
    x.done = UINT_MAX
    wake_head(x)


@wrong("complete_all() wakes nobody when it is done", "complete_all")
def _all_once(x: Completion) -> None:
    if x.done == 0:
        _right["complete_all"](x)
    x.done = UINT_MAX


@wrong("reinit drops the waiters", "reinit_completion")
def _drops(x: Completion) -> None:
    _right["reinit_completion"](x)
    x.wait_queue.task_list.clear()


@wrong("reinit wakes the waiters", "reinit_completion")
def _reinit_wakes(x: Completion) -> None:
    _right["reinit_completion"](x)
    while wake_head(x):
        pass


@wrong("reinit does not close what complete_all() opened", "reinit_completion")
def _stays_open(x: Completion) -> None:
    if x.done != UINT_MAX:
        _right["reinit_completion"](x)


@wrong("reinit takes one token", "reinit_completion")
def _reinit_takes(x: Completion) -> None:
    _right["try_wait_for_completion"](x)


# try_wait_for_completion(), completion_done()


@wrong("try counts down from UINT_MAX", "try_wait_for_completion")
def _try_consumes(x: Completion) -> bool:
    if x.done == UINT_MAX:
        x.done = UINT_MAX - 1
        return True
    return bool(_right["try_wait_for_completion"](x))


@wrong("try lets the queued go first", "try_wait_for_completion")
def _polite(x: Completion) -> bool:
    return not len(x.wait_queue) and bool(_right["try_wait_for_completion"](x))


@wrong("try only looks", "try_wait_for_completion")
def _looks(x: Completion) -> bool:
    return bool(x.done)


@wrong("completion_done() consumes", "completion_done")
def _done_takes(x: Completion) -> bool:
    return bool(_right["try_wait_for_completion"](x))


@wrong("completion_done() is false while somebody waits", "completion_done")
def _done_waits(x: Completion) -> bool:
    return x.done > 0 and not len(x.wait_queue)


@wrong("completion_done() is true with nobody waiting", "completion_done")
def _idle_is_done(x: Completion) -> bool:
    return not len(x.wait_queue)


@wrong("completion_done() is about complete_all()", "completion_done")
def _for_good(x: Completion) -> bool:
    return x.done == UINT_MAX
