# SPDX-License-Identifier: MIT
"""Hardirq context: what sleeps is refused at once, what completes is not."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType

import pytest

from udriver.errors import ContextError
from udriver.kernel.completion import (
    Completion,
    complete,
    complete_all,
    complete_on_current_cpu,
    completion_done,
    kthread_complete_and_exit,
    reinit_completion,
    try_wait_for_completion,
    wait_for_completion,
    wait_for_completion_interruptible,
    wait_for_completion_interruptible_timeout,
    wait_for_completion_io,
    wait_for_completion_io_timeout,
    wait_for_completion_killable,
    wait_for_completion_killable_timeout,
    wait_for_completion_state,
    wait_for_completion_timeout,
)
from udriver.kernel.context import (
    hardirq,
    hardirq_enter,
    hardirq_exit,
    hardirq_name,
    in_hardirq,
    might_sleep,
)
from udriver.kernel.sched import TASK_IDLE

WAITS: dict[str, Callable[[Completion], object]] = {
    "wait_for_completion": wait_for_completion,
    "wait_for_completion_io": wait_for_completion_io,
    "wait_for_completion_timeout": lambda x: wait_for_completion_timeout(x, 1),
    "wait_for_completion_io_timeout": lambda x: wait_for_completion_io_timeout(x, 1),
    "wait_for_completion_interruptible": wait_for_completion_interruptible,
    "wait_for_completion_interruptible_timeout": lambda x: (
        wait_for_completion_interruptible_timeout(x, 1)
    ),
    "wait_for_completion_killable": wait_for_completion_killable,
    "wait_for_completion_killable_timeout": lambda x: wait_for_completion_killable_timeout(x, 1),
    "wait_for_completion_state": lambda x: wait_for_completion_state(x, TASK_IDLE),
    "Completion.wait": lambda x: x.wait(0),
    "Completion.__await__": lambda x: asyncio.run(_await_it(x)),
}


async def _await_it(x: Completion) -> None:
    with hardirq("isr of ttyUSB0"):
        await x


@pytest.mark.udriver_allow("M10", "M18", "M24")
@pytest.mark.parametrize("done", [0, 1])
@pytest.mark.parametrize("name", WAITS)
def test_a_wait_in_hardirq_context_raises_at_once_naming_itself_and_the_handler(
    name: str, done: int
) -> None:
    x = Completion("x")
    x.done = done
    with hardirq("isr of ttyUSB0"), pytest.raises(ContextError) as refused:
        WAITS[name](x)
    assert f"{name}() in isr of ttyUSB0" in str(refused.value)
    assert (x.done, len(x.wait_queue)) == (done, 0)


def test_what_never_sleeps_is_legal_in_hardirq_context() -> None:
    x = Completion("x")
    with hardirq("isr of ttyUSB0"):
        complete(x)
        complete_on_current_cpu(x)
        x.complete()
        seen = [completion_done(x), try_wait_for_completion(x), x.done]
        complete_all(x)
        reinit_completion(x)
        with pytest.raises(SystemExit):
            kthread_complete_and_exit(x, 0)
    assert (seen, x.done) == ([True, True, 2], 1)


def test_the_context_ends_with_the_block_also_by_an_exception() -> None:
    with pytest.raises(ZeroDivisionError), hardirq("isr of ttyUSB0"):
        raise ZeroDivisionError
    assert (in_hardirq(), hardirq_name()) == (False, None)
    might_sleep("wait_for_completion")


def test_contexts_nest_the_inner_one_is_named_and_then_the_outer_again() -> None:
    seen = [hardirq_name()]
    with hardirq("isr of ttyUSB0"):
        seen.append(hardirq_name())
        with hardirq("isr of ttyUSB1"):
            seen.append(hardirq_name())
        seen.append(hardirq_name())
    seen.append(hardirq_name())
    assert seen == [None, "isr of ttyUSB0", "isr of ttyUSB1", "isr of ttyUSB0", None]


def test_enter_and_exit_hand_the_outer_context_through_the_callers_frame() -> None:
    outermost = hardirq_enter("outer")
    outer = hardirq_enter("inner")
    assert (outermost, outer, hardirq_name()) == (None, "outer", "inner")
    hardirq_exit(outer)
    assert in_hardirq()
    hardirq_exit(outermost)
    assert not in_hardirq()


def test_a_context_belongs_to_one_thread() -> None:
    seen: list[bool] = []
    with hardirq("isr of ttyUSB0"):
        thread = threading.Thread(target=lambda: seen.append(in_hardirq()))
        thread.start()
        thread.join()
        seen.append(in_hardirq())
    assert seen == [False, True]


def test_a_signal_on_top_of_a_handler_finishes_before_it_goes_on() -> None:
    seen: list[str | None] = []

    def nested(signum: int, frame: FrameType | None) -> None:
        with hardirq("isr of ttyUSB1"):
            seen.append(hardirq_name())

    before = signal.signal(signal.SIGUSR1, nested)
    try:
        with hardirq("isr of ttyUSB0"):
            signal.raise_signal(signal.SIGUSR1)
            seen.append(hardirq_name())
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == ["isr of ttyUSB1", "isr of ttyUSB0"]


def test_a_completion_created_in_a_handler_is_none_the_worse() -> None:
    with hardirq("isr of ttyUSB0"):
        x = Completion("x")
        complete(x)
    assert x.wait(0) is True
