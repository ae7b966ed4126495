# SPDX-License-Identifier: MIT
"""Completions on the default scheduler: real threads, real signals, asyncio, fork."""

from __future__ import annotations

import asyncio
import ctypes
import inspect
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

from tests.kernel.signals import handling
from udriver.kernel import completion, sched, threads
from udriver.kernel.completion import (
    UINT_MAX,
    Completion,
    complete,
    complete_all,
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
from udriver.kernel.sched import ERESTARTSYS, TASK_IDLE

SIGUSR1, SIGUSR2 = signal.SIGUSR1, signal.SIGUSR2
LONG = 20 * sched.HZ  # jiffies that only a bug lets pass
Until = Callable[[Callable[[], object], str], None]
Spawn = Callable[..., "Waiter"]

UNTIMED: dict[str, Callable[[Completion], Any]] = {
    "wait": wait_for_completion,
    "io": wait_for_completion_io,
    "interruptible": wait_for_completion_interruptible,
    "killable": wait_for_completion_killable,
    "state": lambda x: wait_for_completion_state(x, TASK_IDLE),
}
TIMED: dict[str, Callable[[Completion, int], int]] = {
    "timeout": wait_for_completion_timeout,
    "io_timeout": wait_for_completion_io_timeout,
    "interruptible_timeout": wait_for_completion_interruptible_timeout,
    "killable_timeout": wait_for_completion_killable_timeout,
}
each_timed = pytest.mark.parametrize("wait", TIMED.values(), ids=list(TIMED))
ALL = UNTIMED | {name: (lambda x, f=f: f(x, LONG)) for name, f in TIMED.items()}
each_wait = pytest.mark.parametrize("name", ALL)


class Waiter(threading.Thread):
    """A thread that waits; ``result`` is what came of it."""

    def __init__(self, name: str, function: Callable[..., Any], *args: Any) -> None:
        super().__init__(name=name)
        self._call = lambda: function(*args)
        self.result: Any = "still waiting"

    def run(self) -> None:
        try:
            self.result = self._call()
        except BaseException as exc:  # noqa: BLE001 - the test looks at it
            self.result = exc

    def end(self) -> Any:
        """Wait for its end, bounded."""
        self.join(20)
        assert not self.is_alive(), f"{self.name} still waits"
        return self.result


@pytest.fixture
def spawn(until: Until) -> Iterator[Spawn]:
    """``spawn(name, x, function, *args)``: a thread that is queued on x when it returns."""
    started: list[tuple[Waiter, Completion]] = []

    def spawn_waiter(name: str, x: Completion, function: Callable[..., Any], *args: Any) -> Waiter:
        waiter = Waiter(name, function, x, *args)
        queued = len(x.wait_queue)
        started.append((waiter, x))
        waiter.start()
        until(lambda: len(x.wait_queue) > queued, f"{name} is queued")
        return waiter

    yield spawn_waiter
    for waiter, x in started:
        while waiter.is_alive():
            complete(x)
            waiter.join(0.01)


@contextmanager
def meanwhile(function: Callable[..., Any], *args: Any) -> Iterator[Waiter]:
    """Run a thread beside the block; what it raises fails the test."""
    helper = Waiter("meanwhile", function, *args)
    helper.start()
    try:
        yield helper
    finally:
        result = helper.end()
        if isinstance(result, BaseException):
            raise result


class InSleep:
    """Does something at the very last moment before the main thread blocks."""

    def __init__(self, *actions: Callable[[], object]) -> None:
        self.actions = list(actions)

    def sleep(self, task: threads.ThreadTask, *limit: Any) -> Any:
        if self.actions:
            self.actions.pop(0)()
        return task.nap(*limit)


@contextmanager
def in_sleep(*actions: Callable[[], object]) -> Iterator[None]:
    """Let the n-th sleep of the main thread start with the n-th action."""
    scheduler = sched.active()
    assert isinstance(scheduler, threads.ThreadScheduler)
    scheduler.idle = InSleep(*actions)
    try:
        yield
    finally:
        scheduler.idle = None


def ignore(signum: int, frame: FrameType | None) -> None:
    """A handler that returns."""


def kill(signum: int) -> Callable[[], None]:
    return lambda: signal.raise_signal(signum)


def interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


class Oops(Exception):
    """What a user's handler may raise."""


@pytest.fixture(autouse=True)
def nothing_stays_behind() -> Iterator[None]:
    """After each test the main thread's task is as it was: nothing pending, nothing nested."""
    yield
    task = sched.active().current()
    left = (task.pending[:], task.state, task.syscall_depth, task.in_iowait)
    task.pending.clear()
    task.state = task.syscall_depth = 0
    wakeup = signal.set_wakeup_fd(-1)
    assert (left, wakeup) == (([], 0, 0, False), -1)


# who wins, with real threads


@each_wait
def test_a_token_ends_a_sleeping_thread(spawn: Spawn, name: str) -> None:
    x = Completion("x")
    a = spawn("a", x, ALL[name])
    complete(x)
    result = a.end()
    if name in TIMED:
        assert 1 <= result <= LONG
    else:
        assert result == (None if name in ("wait", "io") else 0)
    assert (x.done, len(x.wait_queue)) == (0, 0)


@pytest.mark.udriver_allow("M7")
@each_wait
def test_a_token_ends_the_sleeping_main_thread(until: Until, name: str) -> None:
    x = Completion("x")

    def post() -> None:
        until(lambda: len(x.wait_queue), "main is queued")
        complete(x)

    with meanwhile(post):
        ALL[name](x)
    assert (x.done, len(x.wait_queue)) == (0, 0)


@each_timed
def test_time_ends_a_thread_never_early(wait: Callable[[Completion, int], int]) -> None:
    before = time.monotonic()
    assert wait(Completion("x"), 15) == 0
    assert time.monotonic() - before >= 0.015


@each_timed
def test_what_is_left_is_never_more_than_the_timeout(
    spawn: Spawn, wait: Callable[[Completion, int], int]
) -> None:
    for _ in range(10):
        x = Completion("x")
        a = spawn("a", x, wait, LONG)
        complete(x)
        assert a.end() <= LONG


def test_spurious_wakes_do_not_move_the_deadline(spawn: Spawn, until: Until) -> None:
    x = Completion("x")
    a = spawn("a", x, wait_for_completion_timeout, 20)
    end = time.monotonic() + 10

    def ended() -> bool:
        for task in x.wait_queue:
            sched.active().wake_up_process(task)
        return not a.is_alive() or time.monotonic() > end

    until(ended, "a timed out")
    assert (a.is_alive(), a.result) == (False, 0)


@pytest.mark.parametrize("step_ns", [100_000, 300_000, 999_999, 1_000_000, 1_700_000])
@pytest.mark.parametrize("start_ns", [5_000_000_000, 5_000_000_001, 5_000_999_999])
@pytest.mark.parametrize("timeout", [0, 1, 20])
def test_the_deadline_stands_however_often_it_is_woken(
    monkeypatch: pytest.MonkeyPatch, step_ns: int, start_ns: int, timeout: int
) -> None:
    now = [start_ns]

    def woken(task: threads.MainTask, limit: object, idle: object) -> bool:
        now[0] += step_ns
        return True

    scheduler = sched.active()
    monkeypatch.setattr(threads, "time", SimpleNamespace(monotonic_ns=lambda: now[0]))
    monkeypatch.setattr(threads.MainTask, "sleep", woken)
    left = scheduler.schedule_timeout(timeout)
    assert left <= timeout or timeout == 0
    for _ in range(1000):
        if left == 0:
            break
        left = scheduler.schedule_timeout(left)
    jiffy = 1_000_000_000 // sched.HZ
    assert left == 0
    assert now[0] - start_ns <= (timeout + 1) * jiffy + step_ns


def test_stolen_tokens_do_not_move_the_deadline(spawn: Spawn, until: Until) -> None:
    x = Completion("x")
    a = spawn("a", x, wait_for_completion_timeout, 20)
    end = time.monotonic() + 10
    stolen = posted = 0
    while a.is_alive() and time.monotonic() < end:
        complete(x)
        posted += 1
        stolen += try_wait_for_completion(x)
        os.sched_yield()
    assert not a.is_alive()
    assert posted == stolen + (a.result > 0) + x.done


@each_wait
def test_a_signal_to_a_thread_ends_what_it_may_end(spawn: Spawn, until: Until, name: str) -> None:
    x = Completion("x")
    a = spawn("a", x, ALL[name])
    (task,) = x.wait_queue
    sched.send_sig(SIGUSR1, task)
    if not name.startswith("interruptible"):
        sched.send_sig(signal.SIGKILL, task)
    if not name.startswith(("interruptible", "killable")):
        complete(x)
        assert a.end() != -ERESTARTSYS
    else:
        assert a.end() == -ERESTARTSYS
    assert (x.done, len(x.wait_queue)) == (0, 0)


def test_a_thread_in_the_pythonic_wait_is_ended_by_sigkill(spawn: Spawn) -> None:
    x = Completion("rx_ready")
    a = spawn("a", x, Completion.wait)
    (task,) = x.wait_queue
    sched.send_sig(signal.SIGKILL, task)
    assert isinstance(a.end(), InterruptedError)
    complete(x)
    assert x.done == 1


def test_threads_are_woken_and_served_in_fifo_order(spawn: Spawn, until: Until) -> None:
    x = Completion("x")
    order: list[str] = []

    def wait_and_note(x: Completion, name: str) -> None:
        wait_for_completion(x)
        order.append(name)

    for name in "abcde":
        spawn(name, x, wait_and_note, name)
    assert [task.comm for task in x.wait_queue] == list("abcde")
    for n in range(5):
        complete(x)
        until(lambda n=n: len(order) == n + 1, f"waiter {n} passed")
    assert order == list("abcde")


def test_complete_all_lets_every_thread_through(spawn: Spawn) -> None:
    x = Completion("x")
    waiters = [spawn(name, x, wait_for_completion_interruptible) for name in "abcd"]
    complete_all(x)
    assert [waiter.end() for waiter in waiters] == [0] * 4
    assert (x.done, len(x.wait_queue)) == (UINT_MAX, 0)


@pytest.mark.udriver_allow("M5", "M13")
@pytest.mark.slow
def test_complete_all_ends_although_the_waiters_come_back(spawn: Spawn, until: Until) -> None:
    x = Completion("x")
    for n in range(20):
        spawn(f"w{n}", x, wait_for_completion)
    with meanwhile(complete_all, x):
        until(lambda: x.done, "complete_all began")
        reinit_completion(x)
    complete_all(x)
    until(lambda: not len(x.wait_queue), "all passed")


@pytest.mark.slow
def test_each_token_is_consumed_exactly_once() -> None:
    x = Completion("x")
    posts, consumers, got = 2000, 4, [0] * 4
    handled = [0]

    def consume(n: int) -> None:
        while wait_for_completion_interruptible(x) == 0 and not stop:
            got[n] += 1

    def in_handler(signum: int, frame: FrameType | None) -> None:
        handled[0] += 1
        complete(x)

    stop: list[bool] = []
    pool = [Waiter(f"c{n}", consume, n) for n in range(consumers)]
    for thread in pool:
        thread.start()
    with handling(SIGUSR1, in_handler):
        for n in range(posts):
            complete(x)
            if n % 50 == 0:
                signal.raise_signal(SIGUSR1)
    posted = posts + handled[0]
    end = time.monotonic() + 20
    while sum(got) < posted and time.monotonic() < end:
        os.sched_yield()
    stop.append(True)
    complete_all(x)
    for thread in pool:
        thread.end()
    assert sum(got) == posted


# real signals


@pytest.mark.parametrize("name", ["interruptible", "interruptible_timeout"])
def test_a_handler_that_returns_ends_an_interruptible_wait(name: str) -> None:
    x = Completion("x")
    with handling(SIGUSR1, ignore), in_sleep(kill(SIGUSR1)):
        assert ALL[name](x) == -ERESTARTSYS
    assert (x.done, len(x.wait_queue)) == (0, 0)


@pytest.mark.parametrize("name", [name for name in ALL if not name.startswith("interruptible")])
def test_a_handler_that_returns_ends_no_other_wait(name: str) -> None:
    x = Completion("x")
    seen: list[object] = []
    with (
        handling(SIGUSR1, lambda *args: seen.append("handled")),
        in_sleep(kill(SIGUSR1), lambda: (seen.append("still asleep"), complete(x))),
    ):
        assert ALL[name](x) != -ERESTARTSYS
    assert seen == ["handled", "still asleep"]
    assert (x.done, len(x.wait_queue)) == (0, 0)


def test_a_signal_from_another_process_ends_an_interruptible_wait(until: Until) -> None:
    x = Completion("x")
    over: list[bool] = []

    def send() -> None:
        until(lambda: len(x.wait_queue), "main is queued")
        while not over:  # again: the first may come before the wait is deaf to Python's handler
            os.kill(os.getpid(), SIGUSR1)
            os.sched_yield()

    with handling(SIGUSR1, ignore), meanwhile(send):
        assert wait_for_completion_interruptible(x) == -ERESTARTSYS
        over.append(True)


@pytest.mark.parametrize("name", ALL)
def test_ctrl_c_outside_a_syscall_is_raised_at_the_end_of_the_wait(name: str) -> None:
    x = Completion("x")
    ends_it = name.startswith(("interruptible", "killable"))
    actions = [kill(signal.SIGINT)] + ([] if ends_it else [lambda: complete(x)])
    with (
        handling(signal.SIGINT, signal.default_int_handler),
        in_sleep(*actions),
        pytest.raises(KeyboardInterrupt),
    ):
        ALL[name](x)
    assert (x.done, len(x.wait_queue)) == (0, 0)


@pytest.mark.udriver_allow("M6")
@pytest.mark.parametrize("name", ALL)
def test_ctrl_c_inside_a_syscall_is_raised_when_the_block_ends(name: str) -> None:
    x = Completion("x")
    results: list[object] = []
    ends_it = name.startswith(("interruptible", "killable"))
    actions = [kill(signal.SIGINT)] + ([] if ends_it else [lambda: complete(x)])
    with (  # noqa: PT012, SIM117 - the order of results is the point
        handling(signal.SIGINT, signal.default_int_handler),
        in_sleep(*actions),
        pytest.raises(KeyboardInterrupt),
    ):
        with sched.syscall():
            results.append(ALL[name](x) == -ERESTARTSYS)
            results.append("hardware stopped")
    assert results == [ends_it, "hardware stopped"]


def test_nested_syscalls_deliver_at_the_end_of_the_outermost() -> None:
    x = Completion("x")
    seen: list[object] = []
    with (  # noqa: PT012, SIM117
        handling(signal.SIGINT, signal.default_int_handler),
        in_sleep(kill(signal.SIGINT)),
        pytest.raises(KeyboardInterrupt),
    ):
        with sched.syscall():
            with sched.syscall():
                seen.append(wait_for_completion_killable(x))
            seen.append("outer")
    assert seen == [-ERESTARTSYS, "outer"]


def test_any_exception_of_a_handler_counts_as_fatal() -> None:
    def oops(signum: int, frame: FrameType | None) -> None:
        raise Oops

    with handling(SIGUSR1, oops), in_sleep(kill(SIGUSR1)), pytest.raises(Oops):
        wait_for_completion_killable(Completion("x"))


@pytest.mark.parametrize("exc", [KeyboardInterrupt, SystemExit, Oops])
def test_an_exception_before_the_sleep_does_not_end_an_uninterruptible_wait(
    exc: type[BaseException],
) -> None:
    x = Completion("x")
    seen: list[str] = []

    def raises(signum: int, frame: FrameType | None) -> None:
        raise exc

    default = sched.active()

    class Once:
        current = staticmethod(default.current)
        signal_pending_state = staticmethod(default.signal_pending_state)
        wake_up_process = staticmethod(default.wake_up_process)

        def schedule_timeout(self, timeout: int) -> int:
            if not seen:
                seen.append("raised")
                signal.raise_signal(SIGUSR1)
            seen.append("slept")
            complete(x)
            return default.schedule_timeout(timeout)

    with handling(SIGUSR1, raises), sched.using(Once()), pytest.raises(exc):
        wait_for_completion(x)
    assert (seen, x.done, len(x.wait_queue)) == (["raised", "slept"], 0, 0)


# the Pythonic wait


def test_pythonic_wait_keyboard_interrupt_at_once_and_no_token_lost() -> None:
    x = Completion("x")
    with (
        handling(signal.SIGINT, signal.default_int_handler),
        in_sleep(kill(signal.SIGINT)),
        pytest.raises(KeyboardInterrupt),
    ):
        x.wait()
    assert len(x.wait_queue) == 0
    complete(x)
    assert x.done == 1


def test_pythonic_wait_ctrl_c_together_with_the_token_loses_neither() -> None:
    x = Completion("x")

    def post_and_raise(signum: int, frame: FrameType | None) -> None:
        complete(x)
        raise KeyboardInterrupt

    with (
        handling(SIGUSR1, post_and_raise),
        in_sleep(kill(SIGUSR1)),
        pytest.raises(KeyboardInterrupt),
    ):
        x.wait()
    assert (x.done, len(x.wait_queue)) == (1, 0)


def test_pythonic_wait_ctrl_c_together_with_the_end_of_the_time_is_not_lost() -> None:
    def wait_then_raise(signum: int, frame: FrameType | None) -> None:
        end = time.monotonic() + 0.003
        while time.monotonic() < end:
            pass
        raise KeyboardInterrupt

    with (
        handling(SIGUSR1, wait_then_raise),
        in_sleep(kill(SIGUSR1)),
        pytest.raises(KeyboardInterrupt),
    ):
        Completion("x").wait(0.001)


def test_pythonic_wait_goes_on_after_a_handler_that_returned() -> None:
    x = Completion("x")
    seen: list[str] = []
    with (
        handling(SIGUSR1, lambda *args: seen.append("handled")),
        in_sleep(kill(SIGUSR1), lambda: (seen.append("asleep again"), complete(x))),
    ):
        assert x.wait(20) is True
    assert seen == ["handled", "asleep again"]


def test_pythonic_wait_does_not_leave_its_signals_to_the_next_wait() -> None:
    x, y = Completion("x"), Completion("y")
    with handling(SIGUSR1, lambda *args: complete(x)), in_sleep(kill(SIGUSR1)):
        x.wait(20)
    assert wait_for_completion_interruptible_timeout(y, 2) == 0


@pytest.mark.parametrize("timeout", [0, 0.0005, 0.005])
def test_pythonic_wait_raises_timeout_error(timeout: float) -> None:
    before = time.monotonic()
    with pytest.raises(TimeoutError, match=f"within {timeout} s"):
        Completion("x").wait(timeout)
    assert time.monotonic() - before >= timeout


@pytest.mark.parametrize("timeout", [-1, float("nan"), -0.001])
def test_pythonic_wait_refuses_a_timeout_that_is_none(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout is a number of seconds >= 0"):
        Completion("x").wait(timeout)


@pytest.mark.parametrize("timeout", [None, float("inf"), 2.0**62, 1e300])
def test_pythonic_wait_takes_any_long_time_for_ever(until: Until, timeout: float | None) -> None:
    x = Completion("x")

    def post() -> None:
        until(lambda: len(x.wait_queue), "main is queued")
        complete(x)

    with meanwhile(post):
        assert x.wait(timeout) is True


# signal handlers on top


def test_complete_from_a_handler_ends_the_wait_it_interrupted() -> None:
    x = Completion("x")
    with handling(SIGUSR1, lambda *args: complete(x)), in_sleep(kill(SIGUSR1)):
        wait_for_completion(x)
    assert x.done == 0


def test_complete_from_a_handler_whose_signal_went_to_another_thread() -> None:
    x = Completion("x")
    with (
        handling(SIGUSR1, lambda *args: complete(x)),
        meanwhile(lambda: signal.pthread_kill(threading.get_ident(), SIGUSR1)),
    ):
        wait_for_completion(x)


@pytest.mark.parametrize("inner_wait", ["wait", "killable", "timeout"])
@pytest.mark.parametrize("outer_wait", ["wait", "killable", "timeout"])
def test_a_wait_in_a_handler_on_top_of_a_wait(
    outer_wait: str, inner_wait: str, until: Until
) -> None:
    outer, inner = Completion("outer"), Completion("inner")
    order: list[object] = []

    def handler(signum: int, frame: FrameType | None) -> None:
        result = ALL[inner_wait](inner)
        order.append(("inner", result is None or result >= 0))

    def post() -> None:
        until(lambda: len(inner.wait_queue), "the handler waits")
        complete(outer)
        complete(inner)

    def child() -> bool:
        with handling(SIGUSR1, handler), meanwhile(post), in_sleep(kill(SIGUSR1)):
            result = ALL[outer_wait](outer)
        order.append(("outer", result is None or result >= 0))
        return order == [("inner", True), ("outer", True)] and not (outer.done or inner.done)

    assert in_child(child) == 0


def test_a_wait_on_top_of_a_blocked_wait(until: Until) -> None:
    outer, inner = Completion("outer"), Completion("inner")

    def handler(signum: int, frame: FrameType | None) -> None:
        wait_for_completion_timeout(inner, LONG)

    def send() -> None:
        until(lambda: len(outer.wait_queue), "main is queued")
        os.kill(os.getpid(), SIGUSR1)
        until(lambda: len(inner.wait_queue), "the handler waits")
        complete(inner)
        complete(outer)

    def child() -> bool:
        with handling(SIGUSR1, handler), meanwhile(send):
            return wait_for_completion_timeout(outer, LONG) > 0

    assert in_child(child) == 0


def test_time_passes_for_a_wait_inside_a_signal_that_interrupted_poll(until: Until) -> None:
    outer, inner = Completion("outer"), Completion("inner")
    results: list[int] = []

    def handler(signum: int, frame: FrameType | None) -> None:
        results.append(wait_for_completion_timeout(inner, 2))
        complete(outer)

    def send() -> None:
        until(lambda: len(outer.wait_queue), "main is queued")
        while not results:  # one of them finds it in poll(2) itself
            os.kill(os.getpid(), SIGUSR1)
            threading.Event().wait(0.01)

    def child() -> bool:
        with handling(SIGUSR1, handler), meanwhile(send):
            wait_for_completion(outer)
        return set(results) == {0}

    assert in_child(child) == 0


def test_the_signal_of_a_handler_that_waited_still_ends_the_interruptible_wait_below() -> None:
    outer, inner = Completion("outer"), Completion("inner")

    def handler(signum: int, frame: FrameType | None) -> None:
        assert wait_for_completion_timeout(inner, 2) == 0

    with handling(SIGUSR1, handler), in_sleep(kill(SIGUSR1)):
        assert wait_for_completion_interruptible_timeout(outer, 2000) == -ERESTARTSYS


@pytest.mark.udriver_allow("M7", "M18")
def test_the_signal_whose_handler_runs_does_not_end_the_handlers_own_wait() -> None:
    outer, inner = Completion("outer"), Completion("inner")
    results: list[int] = []

    def handler(signum: int, frame: FrameType | None) -> None:
        results.append(wait_for_completion_interruptible_timeout(inner, 3))

    with handling(SIGUSR1, handler), in_sleep(kill(SIGUSR1)):
        wait_for_completion_timeout(outer, 3)
    assert results == [0]


# Python's wakeup fd


@contextmanager
def wakeup_pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe2(os.O_NONBLOCK)
    signal.set_wakeup_fd(writer)
    try:
        yield reader, writer
    finally:
        signal.set_wakeup_fd(-1)
        os.close(reader)
        os.close(writer)


@pytest.mark.udriver_allow("M7", "M18")
@pytest.mark.parametrize("end", ["token", "signal", "time", "exception"])
def test_the_wakeup_fd_is_given_back_and_gets_its_bytes(end: str) -> None:
    x = Completion("x")
    handler = {"token": lambda *args: complete(x), "exception": interrupt}.get(end, ignore)
    with handling(SIGUSR1, handler), in_sleep(kill(SIGUSR1)), wakeup_pipe() as (reader, writer):
        with suppress(KeyboardInterrupt):
            if end in ("token", "exception"):
                wait_for_completion_killable(x)
            elif end == "signal":
                wait_for_completion_interruptible(x)
            else:
                wait_for_completion_timeout(x, 1)
        assert signal.set_wakeup_fd(writer) == writer
        assert os.read(reader, 100) == bytes([SIGUSR1])


@pytest.mark.udriver_allow("M7", "M18")
def test_the_wakeup_fd_gets_its_bytes_from_under_a_nested_wait() -> None:
    outer, inner = Completion("outer"), Completion("inner")

    def handler(signum: int, frame: FrameType | None) -> None:
        wait_for_completion_timeout(inner, 1)

    with handling(SIGUSR1, handler), in_sleep(kill(SIGUSR1)), wakeup_pipe() as (reader, writer):
        wait_for_completion_timeout(outer, 5)
        assert signal.set_wakeup_fd(writer) == writer
        assert os.read(reader, 100) == bytes([SIGUSR1])


def test_a_full_wakeup_fd_is_no_error() -> None:
    x = Completion("x")
    with (
        handling(SIGUSR1, lambda *args: complete(x)),
        in_sleep(kill(SIGUSR1)),
        wakeup_pipe() as (_, writer),
    ):
        with suppress(BlockingIOError):
            while True:
                os.write(writer, bytes(4096))
        wait_for_completion(x)


def test_asyncio_still_hears_the_signal_that_came_during_a_wait() -> None:
    x = Completion("x")

    async def main() -> str:
        loop = asyncio.get_running_loop()
        heard: asyncio.Future[str] = loop.create_future()
        loop.add_signal_handler(SIGUSR1, heard.set_result, "heard")
        try:
            with in_sleep(lambda: (signal.raise_signal(SIGUSR1), complete(x))):
                wait_for_completion(x)
            return await asyncio.wait_for(heard, 20)
        finally:
            loop.remove_signal_handler(SIGUSR1)

    assert asyncio.run(main()) == "heard"


# fork


def test_a_complete_that_is_cut_short_wakes_who_queued_between_its_look_and_its_token(
    spawn: Spawn,
) -> None:
    x = Completion("x")
    append = x._done.append
    waiters: list[Waiter] = []

    def queue_post_and_raise(token: None) -> None:
        waiters.append(spawn("late", x, wait_for_completion))
        append(token)
        raise KeyboardInterrupt

    x._done.append = queue_post_and_raise
    with pytest.raises(KeyboardInterrupt):
        complete(x)
    waiters[0].join(20)
    assert not waiters[0].is_alive()
    assert x.done == 0


def in_child(function: Callable[[], bool]) -> int:
    """The exit status of a child: 0 if the function is true there; SIGALRM if it hangs."""
    child = os.fork()
    if child == 0:
        status = 2
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(10)
            status = 0 if function() else 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_childs_waits_do_not_eat_the_parents_wakes() -> None:
    x = Completion("x")
    sched.active().wake_up_process(sched.active().current())  # a wake that is the parent's own

    def child() -> bool:
        return wait_for_completion_timeout(Completion("own"), 3) == 0

    assert in_child(child) == 0
    task = sched.active().current()
    assert isinstance(task, threads.ThreadTask)
    assert task.sleep(0, None)  # the wake is still there
    assert wait_for_completion_timeout(x, 1) == 0


def test_a_child_can_wait_and_complete_on_its_own() -> None:
    x = Completion("x")

    def child() -> bool:
        thread = threading.Timer(0, complete, (x,))
        thread.start()
        wait_for_completion(x)
        thread.join()
        return x.done == 0

    assert in_child(child) == 0
    assert x.done == 0


def test_a_childs_token_does_not_wake_a_thread_that_is_the_parents(spawn: Spawn) -> None:
    x = Completion("x")
    waiters = [spawn(name, x, wait_for_completion) for name in "ab"]

    def child() -> bool:
        assert len(x.wait_queue) == 0
        mine = threading.Thread(target=wait_for_completion, args=(x,))
        mine.start()
        while not len(x.wait_queue):
            pass
        complete(x)
        mine.join(5)
        return not mine.is_alive() and x.done == 0

    assert in_child(child) == 0
    assert len(x.wait_queue) == 2
    for waiter in waiters:
        complete(x)
        waiter.join(20)
        assert not waiter.is_alive()


def test_a_childs_own_waits_below_a_fork_keep_their_place() -> None:
    """The one that forks, in a signal handler on top of its own wait, is the one that is there."""
    x = Completion("x")
    ended: list[int] = []

    def fork(*_: object) -> None:
        ended.append(in_child(lambda: len(x.wait_queue) == 1))

    def knock() -> None:
        while not len(x.wait_queue):
            pass
        os.kill(os.getpid(), SIGUSR1)
        while not ended:
            pass
        complete(x)

    with handling(SIGUSR1, fork), meanwhile(knock):
        wait_for_completion(x)
    assert ended == [0]


def test_a_childs_signal_does_not_end_the_parents_wait() -> None:
    """Another thread forks while the main one sleeps, with its pipe as Python's wakeup fd."""
    x = Completion("x")

    def child() -> bool:
        os.kill(os.getpid(), SIGUSR1)
        return signal.set_wakeup_fd(-1) == -1

    ended: list[int] = []

    def fork() -> None:
        while not len(x.wait_queue):
            pass
        try:
            ended.append(in_child(child))
        finally:
            complete(x)

    with handling(SIGUSR1, lambda signum, frame: None), meanwhile(fork):
        assert wait_for_completion_interruptible_timeout(x, LONG) > 0
    assert ended == [0]


def test_threads_whose_first_waits_begin_together_get_one_scheduler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each would else keep its signals where the end of the wait does not look: Ctrl-C was lost."""
    both = threading.Barrier(2)

    class Slow(threads.ThreadScheduler):
        def __init__(self) -> None:
            super().__init__()
            both.wait(20)

    monkeypatch.setattr(threads, "ThreadScheduler", Slow)
    monkeypatch.setattr(sched, "_default", {})
    with sched.using(None):  # type: ignore[arg-type]  # as before the first wait
        found: list[sched.Scheduler] = []
        with meanwhile(lambda: found.append(sched.active())):
            found.append(sched.active())
        assert found[0] is found[1] is sched.active()


# asyncio


def test_await_takes_a_token_that_is_there() -> None:
    x = Completion("x")
    complete(x)

    async def main() -> None:
        await x

    asyncio.run(main())
    assert x.done == 0


def test_await_is_woken_from_a_thread() -> None:
    x = Completion("x")

    async def main() -> None:
        waiting = asyncio.ensure_future(_awaited(x))
        while not len(x.wait_queue):
            await asyncio.sleep(0)
        with meanwhile(complete, x):
            await waiting

    asyncio.run(main())
    assert (x.done, len(x.wait_queue)) == (0, 0)


async def _awaited(x: Completion) -> None:
    await x


def test_await_and_threads_share_one_fifo_queue(spawn: Spawn, until: Until) -> None:
    x = Completion("x")

    async def main() -> list[str]:
        order: list[str] = []

        async def aw(name: str) -> None:
            await x
            order.append(name)

        first = asyncio.create_task(aw("first"), name="first")
        while not len(x.wait_queue):
            await asyncio.sleep(0)
        second = spawn("second", x, wait_for_completion)
        third = asyncio.create_task(aw("third"), name="third")
        while len(x.wait_queue) < 3:
            await asyncio.sleep(0)
        assert [task.comm for task in x.wait_queue] == ["first", "second", "third"]
        complete(x)
        await first
        complete(x)
        second.end()
        order.append("second")
        complete(x)
        await third
        return order

    assert asyncio.run(main()) == ["first", "second", "third"]
    assert x.done == 0


def test_a_cancelled_await_leaves_the_queue_and_takes_no_token() -> None:
    x = Completion("x")

    async def main() -> None:
        waiting = asyncio.ensure_future(_awaited(x))
        while not len(x.wait_queue):
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())
    assert len(x.wait_queue) == 0
    complete(x)
    assert x.done == 1


def test_a_cancelled_await_that_was_woken_passes_the_wake_on(spawn: Spawn) -> None:
    x = Completion("x")

    async def main() -> None:
        waiting = asyncio.ensure_future(_awaited(x))
        while not len(x.wait_queue):
            await asyncio.sleep(0)
        behind = spawn("behind", x, wait_for_completion)
        complete(x)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        behind.end()

    asyncio.run(main())
    assert (x.done, len(x.wait_queue)) == (0, 0)


def test_a_waiter_of_a_loop_that_was_closed_does_not_stop_the_others(spawn: Spawn) -> None:
    x = Completion("x")
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(_awaited(x))
    while not len(x.wait_queue):
        loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    behind = spawn("behind", x, wait_for_completion)
    try:
        complete_all(x)
        assert behind.end() is None
    finally:
        waiting.get_coro().close()  # type: ignore[union-attr]
        waiting._log_destroy_pending = False  # type: ignore[attr-defined]


def test_kthread_complete_and_exit_ends_its_thread(spawn: Spawn) -> None:
    x = Completion("exited")
    a = spawn("a", x, wait_for_completion_killable)
    thread = Waiter("kthread", kthread_complete_and_exit, x, 3)
    thread.start()
    result = thread.end()
    assert (type(result), result.code, a.end()) == (SystemExit, 3, 0)


# a handler at every bytecode boundary

INJECTOR = Path(__file__).with_name("injector.py")
SCENARIOS = [
    line.split()[1].split("(")[0]
    for line in INJECTOR.read_text().splitlines()
    if line.startswith("class ") and "In" in line.split("(")[0]
]


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_handler_at_every_bytecode_boundary(scenario: str) -> None:
    root = Path(inspect.getfile(sched)).parents[2]
    ran = subprocess.run(
        [sys.executable, INJECTOR, scenario],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    outcome = json.loads(ran.stdout)
    assert outcome["failures"] == {}
    assert outcome["points"] >= 1


def test_a_build_without_the_gil_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    threads.ThreadScheduler()
    monkeypatch.setattr(sys, "abiflags", "t")
    with pytest.warns(RuntimeWarning, match="needs a Python with the GIL"):
        threads.ThreadScheduler()


class Stop(Exception):
    """What the handlers below raise."""


@pytest.mark.parametrize("token", [False, True], ids=["chosen by nobody", "with the token"])
@pytest.mark.udriver_unchecked("it cuts the core where the checker's own hooks run too")
def test_a_second_exception_in_the_answer_to_the_first_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, token: bool
) -> None:
    class Cut(completion._Waiter):
        __slots__ = ()

        def take(self) -> bool:
            if token:
                complete(self.x)
                assert super().take()
            raise Stop("first")

    def cut(*args: object) -> bool:
        raise Stop("second")

    monkeypatch.setattr(completion, "_Waiter", Cut)
    monkeypatch.setattr(completion, "_stays_pending", cut)
    x = Completion("x")
    with pytest.raises(Stop, match="second"):
        wait_for_completion_timeout(x, 1)
    assert (len(x.wait_queue), x.done) == (0, int(token))


FOUR_RAISE = """
import os, signal, threading, time
from udriver.kernel import completion, sched

class Stop(Exception): pass

raised = ghosts = 0
over = []

def handler(signum, frame):
    global raised
    if "udriver/kernel" in frame.f_code.co_filename:  # elsewhere it only returns, for this program's own sake
        raised += 1
        raise Stop(signum)

signals = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
for signum in signals:
    signal.signal(signum, handler)

def send(x):
    while not len(x.wait_queue) and not over:  # a late signal of the last round may end it first
        time.sleep(0)
    for signum in signals:
        os.kill(os.getpid(), signum)

def one_round():
    global over, ghosts
    x, over = completion.Completion("x"), []
    sender = threading.Thread(target=send, args=(x,))
    sender.start()
    try:
        completion.wait_for_completion_killable_timeout(x, sched.HZ)
    except Stop:
        pass
    over.append(True)
    sender.join()
    ghosts += len(x.wait_queue)

rounds = 0
while rounds < 40:
    try:
        one_round()
        rounds += 1
    except Stop:  # late, and outside of any wait
        pass
print(raised > 40, ghosts)
"""


@pytest.mark.slow
def test_four_handlers_that_raise_at_once_leave_nobody_on_the_queue() -> None:
    result = subprocess.run(
        [sys.executable, "-c", FOUR_RAISE],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (0, "True 0\n"), result.stderr


def test_a_signal_that_landed_on_another_thread_is_seen_before_the_sleep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """CPython marks only the thread it lands on; its byte is gone as if it came before the fd did."""
    x, over = Completion("x"), threading.Lock()
    task = sched.active().current()
    assert isinstance(task, threads.MainTask)
    over.acquire()
    other = threading.Thread(target=over.acquire)
    other.start()
    libc = ctypes.PyDLL(None)  # keeps the GIL: with it comes the mark
    real = threads._swap_wakeup_fd

    def swap(fd: int) -> int:
        found = real(fd)
        if fd != -1 and not landed:
            landed.append(libc.pthread_kill(ctypes.c_ulong(other.ident or 0), SIGUSR1))
            byte = ctypes.c_char()
            while libc.read(task.fds[1], ctypes.byref(byte), 1) != 1:
                pass
        return found

    def nap(task: threads.ThreadTask, timeout: float | None) -> Any:
        seen.append("sleeps")
        complete(x)
        return sleep(task, timeout)

    landed: list[int] = []
    seen: list[str] = []
    sleep = threads.ThreadTask.nap
    with handling(SIGUSR1, lambda *args: seen.append("handled")):
        monkeypatch.setattr(threads, "_swap_wakeup_fd", swap)
        monkeypatch.setattr(threads.ThreadTask, "nap", nap)
        wait_for_completion(x)
    over.release()
    other.join()
    assert (landed, seen[:2]) == ([0], ["handled", "sleeps"])


def threads_main_task() -> threads.MainTask:
    task = sched.active().current()
    assert isinstance(task, threads.MainTask)
    return task


def test_a_task_that_runs_is_woken_without_a_system_call_and_sleeps_not() -> None:
    scheduler = sched.active()
    task = scheduler.current()
    assert isinstance(task, threads.ThreadTask)
    task.sleep(0, None)  # takes what an earlier wait left
    scheduler.wake_up_process(task)
    eventfd = select.poll()
    eventfd.register(task.fds[0], select.POLLIN)
    assert eventfd.poll(0) == []  # nothing was written
    assert scheduler.schedule_timeout(20 * sched.HZ) > 0  # the wake was not lost
    assert not task.sleep(0, None)  # and is one


def test_a_wake_is_not_lost_with_a_sleep_that_a_handler_cut_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The handler raises after block() has seen the wake-up and before sleep() has been told."""
    scheduler = sched.active()
    task, real, raised = scheduler.current(), threads.MainTask.nap, InterruptedError()
    assert isinstance(task, threads.MainTask)

    def nap(task: threads.ThreadTask, timeout: float | None) -> threads.Ready:
        monkeypatch.setattr(threads.MainTask, "nap", real)
        scheduler.wake_up_process(task)  # it runs: the wake is stored
        real(task, timeout)
        raise raised

    monkeypatch.setattr(threads.MainTask, "nap", nap)
    assert scheduler.schedule_timeout(sched.HZ) > 0
    assert task.pending.pop() is raised


def test_a_wake_between_the_look_and_the_sleep_is_written_not_stored() -> None:
    task = sched.active().current()
    assert isinstance(task, threads.ThreadTask)
    task.sleep(0, None)
    with in_sleep_poll(task, lambda: sched.active().wake_up_process(task)):
        assert task.nap(20) == [(task.fds[0], select.EPOLLIN)]
    assert not task.woken
    os.eventfd_read(task.fds[0])


def test_a_wait_on_top_of_a_sleep_leaves_it_to_be_woken_by_a_write() -> None:
    """Its wake went to the eventfd before and must do so after: the one below does not look again."""
    task = sched.active().current()
    assert isinstance(task, threads.ThreadTask)
    task.sleep(0, None)

    def wait_and_wake() -> None:
        task.sleep(0, None)
        sched.active().wake_up_process(task)

    with in_sleep_poll(task, wait_and_wake):
        assert task.nap(20) == [(task.fds[0], select.EPOLLIN)]
    os.eventfd_read(task.fds[0])


class LastMoment:
    """An epoll set that does something just before it blocks, as a signal handler does."""

    def __init__(self, poll: Any, action: Callable[[], object]) -> None:
        self._real, self._action = poll, [action]

    def poll(self, timeout: float | None) -> Any:
        if self._action:
            self._action.pop()()
        return self._real.poll(timeout)


@contextmanager
def in_sleep_poll(task: threads.ThreadTask, action: Callable[[], object]) -> Iterator[None]:
    """Let ``action`` come between the task's last look and its sleep."""
    real = task._poll
    task._poll = LastMoment(real, action)  # type: ignore[assignment]
    try:
        yield
    finally:
        task._poll = real
