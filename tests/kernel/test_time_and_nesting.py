# SPDX-License-Identifier: MIT
"""What a wait does to the clock and to the wait below it; the clock is the test's, and stands still."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import pytest

from tests.kernel.signals import handling
from udriver.kernel import sched, threads
from udriver.kernel.completion import (
    Completion,
    complete,
    wait_for_completion,
    wait_for_completion_interruptible,
    wait_for_completion_interruptible_timeout,
    wait_for_completion_timeout,
)
from udriver.kernel.sched import ERESTARTSYS, HZ

JIFFY = 1_000_000_000 // HZ  # ns


class Clock:
    """Instead of a sleep, time passes: ``naps`` are the sleeps in ns, ``early`` of the next cuts it short."""

    def __init__(self, now: int) -> None:
        self.now = now
        self.naps: list[int] = []
        self.early = 0
        self.first: Callable[[], object] | None = None

    def monotonic_ns(self) -> int:
        return self.now

    def sleep(self, task: threads.ThreadTask, timeout: float | None) -> threads.Ready:
        assert timeout is not None
        if self.first is not None:
            first, self.first = self.first, None
            first()
        nap = round(timeout * 1e9) - self.early
        self.early = 0
        self.naps.append(nap)
        self.now += nap
        return []


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    scheduler = sched.active()
    assert isinstance(scheduler, threads.ThreadScheduler)
    clock = Clock(7 * JIFFY + 1)
    monkeypatch.setattr(threads, "time", clock)
    scheduler.idle = clock
    yield clock
    scheduler.idle = None


@pytest.mark.parametrize("past", [0, 1, JIFFY - 1])  # ns since the last tick
@pytest.mark.parametrize("jiffies", [1, 2, 5])
def test_a_timeout_is_so_many_whole_ticks_and_never_early(
    clock: Clock, past: int, jiffies: int
) -> None:
    began = clock.now = 7 * JIFFY + past
    assert wait_for_completion_timeout(Completion("x"), jiffies) == 0
    assert jiffies * JIFFY <= clock.now - began < (jiffies + 1) * JIFFY


@pytest.mark.parametrize("past", [0, 1])
@pytest.mark.parametrize("jiffies", [0.5, 1.0, 3.5])
def test_seconds_are_never_cut_down_to_jiffies(clock: Clock, past: int, jiffies: float) -> None:
    began = clock.now = 7 * JIFFY + past
    with pytest.raises(TimeoutError):
        Completion("x").wait(jiffies / HZ)
    assert clock.now - began >= jiffies * JIFFY


def test_a_sleep_that_ends_within_the_last_tick_is_slept_on(clock: Clock) -> None:
    clock.early = JIFFY // 2
    assert wait_for_completion_timeout(Completion("x"), 3) == 0
    assert clock.naps[1:] == [JIFFY // 2]


def test_a_token_in_the_last_tick_leaves_one_jiffy(clock: Clock) -> None:
    x = Completion("x")
    clock.early = JIFFY // 2
    clock.first = lambda: complete(x)
    assert wait_for_completion_timeout(x, 3) == 1


def test_a_wait_in_a_handler_has_a_deadline_of_its_own(clock: Clock) -> None:
    """Of as many jiffies as the wait below it has left, whose deadline was set before."""
    below, above = Completion("below"), Completion("above")
    spent: list[int] = []

    def handler(signum: int, frame: object) -> None:
        clock.now += JIFFY
        began = clock.now
        assert wait_for_completion_timeout(above, 3) == 0
        spent.append(clock.now - began)

    def woken_for_nothing() -> None:
        sched.active().wake_up_process(sched.active().current())
        clock.early = 3 * JIFFY  # so much is left
        clock.first = lambda: signal.raise_signal(signal.SIGUSR1)

    clock.first = woken_for_nothing
    with handling(signal.SIGUSR1, handler):
        assert wait_for_completion_timeout(below, 5) == 0
    assert spent[0] >= 3 * JIFFY


def test_the_signal_that_is_handled_ends_the_wait_below_and_not_the_handlers_own() -> None:
    below, above = Completion("below"), Completion("above")
    seen: list[int] = []

    def handler(signum: int, frame: object) -> None:
        post = threading.Timer(0.02, complete, [above])
        post.start()
        seen.append(wait_for_completion_interruptible_timeout(above, 20 * HZ))
        post.join()

    with handling(signal.SIGUSR1, handler), asleep_in(below, signal.SIGUSR1):
        assert wait_for_completion_interruptible(below) == -ERESTARTSYS
    assert seen[0] > 0


def test_a_signal_that_comes_in_the_wait_above_ends_the_wait_below() -> None:
    """The one above is uninterruptible and takes no notice; the one below is not."""
    below, above = Completion("below"), Completion("above")
    scheduler = sched.active()
    assert isinstance(scheduler, threads.ThreadScheduler)

    class WaitsInside:
        """What runs in a sleep of the main thread without a signal, as a C library's callback."""

        def sleep(self, task: threads.ThreadTask, timeout: float | None) -> threads.Ready:
            scheduler.idle = None
            with asleep_in(above, signal.SIGUSR1):
                wait_for_completion(above)
            return task.nap(timeout)

    scheduler.idle = WaitsInside()
    with handling(signal.SIGUSR1, lambda *args: complete(above)):
        assert wait_for_completion_interruptible(below) == -ERESTARTSYS


def test_a_signal_at_the_end_of_a_wait_does_not_end_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = Completion("x")
    leave_wait = threads.MainTask.leave_wait

    def late(task: threads.MainTask, entered: list[object]) -> None:
        monkeypatch.undo()
        signal.raise_signal(signal.SIGUSR1)
        leave_wait(task, entered)

    with handling(signal.SIGUSR1, lambda *args: None):
        with once_queued(x, partial(complete, x)):
            monkeypatch.setattr(threads.MainTask, "leave_wait", late)
            assert wait_for_completion_interruptible(x) == 0
        with once_queued(x, partial(complete, x)):
            assert wait_for_completion_interruptible(x) == 0


@contextmanager
def once_queued(x: Completion, action: Callable[[], object]) -> Iterator[None]:
    """Do it from another thread once somebody waits for ``x``, or when the block is over."""
    over: list[bool] = []

    def act() -> None:
        while not len(x.wait_queue) and not over:
            os.sched_yield()
        action()

    actor = threading.Thread(target=act)
    actor.start()
    try:
        yield
    finally:
        over.append(True)
        actor.join()


def asleep_in(x: Completion, signum: int) -> AbstractContextManager[None]:
    """Send ``signum`` to the main thread once it waits for ``x``."""
    main = threading.main_thread().ident
    assert main is not None
    return once_queued(x, partial(signal.pthread_kill, main, signum))


@pytest.mark.udriver_allow("M15")  # that is what a loop closed too early is
def test_the_wake_up_of_a_task_whose_loop_is_closed_goes_to_the_next() -> None:
    x = Completion("x")
    loop = asyncio.new_event_loop()

    async def waits() -> None:
        await x

    abandoned = loop.create_task(waits())
    loop.run_until_complete(asyncio.sleep(0))
    assert len(x.wait_queue) == 1
    loop.close()
    got: list[int] = []
    second = threading.Thread(target=lambda: got.append(wait_for_completion_timeout(x, 20 * HZ)))
    second.start()
    while len(x.wait_queue) < 2:
        os.sched_yield()
    complete(x)
    second.join()
    assert got[0] > 1  # 1 is a token found when the time was up
    assert x.done == 0
    del abandoned
