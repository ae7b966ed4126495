# SPDX-License-Identifier: MIT
"""The rules of ``struct completion`` at 6.12, row by row, each interleaving driven by hand."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from udriver.errors import ContextError, UDriverError
from udriver.kernel import completion as kernel
from udriver.kernel import sched
from udriver.kernel.completion import (
    UINT_MAX,
    Completion,
    complete,
    complete_all,
    complete_on_current_cpu,
    completion_done,
    init_completion,
    init_completion_map,
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
from udriver.kernel.context import hardirq
from udriver.kernel.sched import (
    ERESTARTSYS,
    LONG_MAX,
    MAX_SCHEDULE_TIMEOUT,
    TASK_FREEZABLE,
    TASK_IDLE,
    TASK_INTERRUPTIBLE,
    TASK_KILLABLE,
    TASK_RUNNING,
    TASK_UNINTERRUPTIBLE,
)

SIGUSR1, SIGKILL = signal.SIGUSR1, signal.SIGKILL
Queue = Callable[[Completion], list[str]]
TASK_STOPPED = 0x0004  # linux/sched.h: __TASK_STOPPED, not in TASK_NORMAL


class Wait(NamedTuple):
    """A row of the table of waits: the function, how it sleeps, what ends it, what it returns."""

    name: str
    function: Callable[..., Any]
    state: int
    timed: bool = False
    io: bool = False
    got: object = 0  # what an untimed one returns with a token

    def __str__(self) -> str:
        return self.name

    def args(self, x: Completion, timeout: int = 100) -> tuple[object, ...]:
        """What to call it with."""
        return (x, timeout) if self.timed else (x,)

    @property
    def any_signal(self) -> bool:
        """Whether every signal ends it."""
        return self.state & TASK_INTERRUPTIBLE != 0

    @property
    def fatal(self) -> bool:
        """Whether a fatal signal ends it."""
        return self.any_signal or self.state == TASK_KILLABLE


def in_state(state: int) -> Callable[[Completion], int]:
    return lambda x: wait_for_completion_state(x, state)


D, S, K = TASK_UNINTERRUPTIBLE, TASK_INTERRUPTIBLE, TASK_KILLABLE
WAITS = [
    Wait("wait", wait_for_completion, D, got=None),
    Wait("io", wait_for_completion_io, D, io=True, got=None),
    Wait("timeout", wait_for_completion_timeout, D, timed=True),
    Wait("io_timeout", wait_for_completion_io_timeout, D, timed=True, io=True),
    Wait("interruptible", wait_for_completion_interruptible, S),
    Wait("interruptible_timeout", wait_for_completion_interruptible_timeout, S, timed=True),
    Wait("killable", wait_for_completion_killable, K),
    Wait("killable_timeout", wait_for_completion_killable_timeout, K, timed=True),
    Wait("state_idle", in_state(TASK_IDLE), TASK_IDLE),
    Wait("state_freezable", in_state(S | TASK_FREEZABLE), S | TASK_FREEZABLE),
]
TIMED = [wait for wait in WAITS if wait.timed]
SIGNALLED = [wait for wait in WAITS if wait.fatal]
DEAF = [wait for wait in WAITS if not wait.any_signal]

each_wait = pytest.mark.parametrize("wait", WAITS, ids=str)
each_timed = pytest.mark.parametrize("wait", TIMED, ids=str)
each_signalled = pytest.mark.parametrize("wait", SIGNALLED, ids=str)


def thread_exit(x: Completion) -> None:
    with pytest.raises(SystemExit):
        kthread_complete_and_exit(x, 0)


COMPLETERS = [complete, complete_on_current_cpu, thread_exit, Completion.complete]
each_completer = pytest.mark.parametrize(
    "post", COMPLETERS, ids=["complete", "on_current_cpu", "kthread_exit", "method"]
)


def with_done(count: int) -> Completion:
    x = Completion("x")
    x.done = count
    return x


# 1. State


def test_a_new_completion_has_no_token_and_nobody_waits(queue: Queue) -> None:
    x = Completion("x")
    assert (x.done, queue(x)) == (0, [])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_done_counts_the_tokens_that_nobody_took(count: int) -> None:
    x = Completion("x")
    for _ in range(count):
        complete(x)
    assert x.done == count


@pytest.mark.udriver_allow("M24")
@pytest.mark.parametrize("count", [0, 1, 3, UINT_MAX - 1, UINT_MAX])
def test_done_holds_every_unsigned_int(count: int) -> None:
    assert with_done(count).done == count


@pytest.mark.udriver_allow("M24")
@pytest.mark.parametrize("count", [-1, UINT_MAX + 1])
def test_done_refuses_what_is_no_unsigned_int(count: int) -> None:
    with pytest.raises(ValueError, match="unsigned int"):
        with_done(count)


@pytest.mark.udriver_allow("M24")
def test_below_uint_max_a_token_is_consumed() -> None:
    x = with_done(UINT_MAX - 1)
    assert try_wait_for_completion(x)
    assert x.done == UINT_MAX - 2


@pytest.mark.udriver_allow("M24")
def test_a_written_count_is_taken_before_and_after_posts_one_by_one() -> None:
    x = with_done(2)
    complete(x)
    assert [try_wait_for_completion(x) for _ in range(4)] == [True, True, True, False]
    complete(x)
    assert (x.done, try_wait_for_completion(x), x.done) == (1, True, 0)


@pytest.mark.udriver_allow("M24")
def test_uint_max_is_never_counted_up() -> None:
    x = with_done(UINT_MAX)
    complete(x)
    assert x.done == UINT_MAX


@pytest.mark.udriver_allow("M24")
def test_uint_max_is_never_consumed() -> None:
    x = with_done(UINT_MAX)
    assert [try_wait_for_completion(x) for _ in range(3)] == [True] * 3
    assert x.done == UINT_MAX


def test_the_queue_is_fifo(cpu: Any, queue: Queue) -> None:
    x = Completion("x")
    for name in "abc":
        cpu.start(name, wait_for_completion, x)
    assert queue(x) == ["a", "b", "c"]
    complete(x)
    assert (queue(x), cpu.wakeups) == (["b", "c"], ["a"])


def test_no_hand_off_the_token_lies_there_until_somebody_takes_it(cpu: Any) -> None:
    x = Completion("x")
    a = cpu.start("a", wait_for_completion, x)
    complete(x)
    assert (a.woken, x.done) == (True, 1)
    assert try_wait_for_completion(x)
    cpu.run(a)
    assert a.asleep


def test_no_owner_the_waiter_need_not_be_the_one_who_made_it(cpu: Any) -> None:
    x = Completion("x")
    cpu.start("poster", complete, x)
    cpu.start("other", complete, x)
    assert cpu.start("a", wait_for_completion_interruptible, x).result == 0
    assert x.done == 1


# 2. Producer side


@each_completer
def test_complete_adds_one_and_returns_nothing(post: Callable[..., None]) -> None:
    x = Completion("x")
    assert post(x) is None
    assert x.done == 1


@pytest.mark.udriver_allow("M24")
@each_completer
def test_complete_leaves_uint_max(post: Callable[..., None]) -> None:
    x = with_done(UINT_MAX)
    post(x)
    assert x.done == UINT_MAX


@pytest.mark.udriver_allow("M24")
@each_completer
def test_complete_makes_uint_max_minus_1_permanent(post: Callable[..., None]) -> None:
    x = with_done(UINT_MAX - 1)
    post(x)
    assert x.done == UINT_MAX
    assert try_wait_for_completion(x)
    assert x.done == UINT_MAX


@each_completer
def test_complete_wakes_and_dequeues_only_the_head(
    cpu: Any, queue: Queue, post: Callable[..., None]
) -> None:
    x = Completion("x")
    a, b = (cpu.start(name, wait_for_completion, x) for name in "ab")
    post(x)
    assert (a.woken, b.asleep, queue(x)) == (True, True, ["b"])


@each_completer
def test_complete_with_nobody_queued_leaves_the_token_only(
    cpu: Any, queue: Queue, post: Callable[..., None]
) -> None:
    x = Completion("x")
    post(x)
    assert (x.done, queue(x), cpu.wakeups) == (1, [], [])


@pytest.mark.parametrize("first", ["timer", "signal"])
def test_complete_of_a_head_that_is_awake_dequeues_it_and_wakes_nobody_else(
    cpu: Any, queue: Queue, first: str
) -> None:
    x = Completion("x")
    a = cpu.start("a", wait_for_completion_interruptible_timeout, x, 10)
    b = cpu.start("b", wait_for_completion, x)
    if first == "timer":
        cpu.tick(10)
    else:
        cpu.signal(a, SIGUSR1)
    assert (a.woken, queue(x)) == (True, ["a", "b"])
    complete(x)
    assert (b.asleep, queue(x)) == (True, ["b"])
    assert cpu.run(a) == (1 if first == "timer" else 10)


@pytest.mark.parametrize("post", [*COMPLETERS, complete_all], ids=lambda f: f.__name__)
def test_completers_are_legal_in_hardirq_context(cpu: Any, post: Callable[..., None]) -> None:
    x = Completion("x")
    a = cpu.start("a", wait_for_completion, x)
    with hardirq("isr of ttyUSB0"):
        post(x)
    assert a.woken


@pytest.mark.udriver_allow("M24")
def test_complete_all_sets_uint_max() -> None:
    x = with_done(3)
    assert complete_all(x) is None  # type: ignore[func-returns-value]
    assert x.done == UINT_MAX


def test_complete_all_dequeues_and_wakes_all_head_first(cpu: Any, queue: Queue) -> None:
    x = Completion("x")
    actors = [cpu.start(name, wait_for_completion, x) for name in "abcd"]
    x.complete_all()
    assert (cpu.wakeups, queue(x)) == (["a", "b", "c", "d"], [])
    for actor in actors:
        cpu.run(actor)
    assert [actor.ended for actor in actors] == [True] * 4
    assert x.done == UINT_MAX


@pytest.mark.udriver_allow("M13")
def test_complete_all_twice_changes_nothing(cpu: Any) -> None:
    x = Completion("x")
    complete_all(x)
    complete_all(x)
    assert (x.done, cpu.wakeups) == (UINT_MAX, [])


@pytest.mark.udriver_allow("M13")
def test_complete_after_complete_all_changes_nothing(cpu: Any) -> None:
    x = Completion("x")
    complete_all(x)
    complete(x)
    assert (x.done, cpu.wakeups) == (UINT_MAX, [])


@pytest.mark.parametrize("code", [0, 7])
def test_kthread_complete_and_exit_ends_the_thread_with_its_code(code: int) -> None:
    x = Completion("x")
    with pytest.raises(SystemExit) as exited:
        kthread_complete_and_exit(x, code)
    assert (exited.value.code, x.done) == (code, 1)


def test_kthread_complete_and_exit_without_a_completion_only_exits() -> None:
    with pytest.raises(SystemExit) as exited:
        kthread_complete_and_exit(None, 3)
    assert exited.value.code == 3


# 3. Waiting side: the table


@pytest.mark.udriver_allow("M10", "M24")
@each_wait
def test_every_wait_checks_its_context_even_with_a_token(wait: Wait) -> None:
    x = with_done(1)
    with hardirq("isr of ttyUSB0"), pytest.raises(ContextError, match="isr of ttyUSB0"):
        wait.function(*wait.args(x))
    assert x.done == 1


@each_wait
def test_every_wait_sleeps_in_its_state(cpu: Any, wait: Wait) -> None:
    a = cpu.start("a", wait.function, *wait.args(Completion("x")))
    assert (a.asleep, a.state) == (True, wait.state)


@each_wait
def test_iowait_is_accounted_during_an_io_wait_only(cpu: Any, wait: Wait) -> None:
    x = Completion("x")
    a = cpu.start("a", wait.function, *wait.args(x))
    assert a.in_iowait == wait.io
    complete(x)
    cpu.run(a)
    assert (a.ended, a.in_iowait) == (True, False)


@each_wait
def test_a_token_ends_every_wait(cpu: Any, queue: Queue, wait: Wait) -> None:
    x = Completion("x")
    a = cpu.start("a", wait.function, *wait.args(x))
    cpu.tick(30)
    complete(x)
    assert cpu.run(a) == (70 if wait.timed else wait.got)
    assert (a.state, x.done, queue(x)) == (TASK_RUNNING, 0, [])


@pytest.mark.udriver_allow("M24")
@each_wait
def test_a_token_that_is_there_ends_every_wait_without_sleep(cpu: Any, wait: Wait) -> None:
    x = with_done(2)
    a = cpu.start("a", wait.function, *wait.args(x))
    assert a.result == (100 if wait.timed else wait.got)
    assert (x.done, a.nvcsw) == (1, 0)


@each_wait
def test_any_signal_ends_an_interruptible_wait_only(cpu: Any, queue: Queue, wait: Wait) -> None:
    x = Completion("x")
    a = cpu.start("a", wait.function, *wait.args(x))
    cpu.signal(a, SIGUSR1)
    assert a.woken == wait.any_signal
    sched.send_sig(SIGUSR1, a)  # wakes in any case: then a spurious wake for who cannot be ended
    cpu.run(a)
    if wait.any_signal:
        assert (a.result, queue(x)) == (-ERESTARTSYS, [])
    else:
        assert (a.asleep, queue(x)) == (True, ["a"])


@each_wait
def test_a_fatal_signal_ends_a_killable_wait_too(cpu: Any, queue: Queue, wait: Wait) -> None:
    x = Completion("x")
    a = cpu.start("a", wait.function, *wait.args(x))
    cpu.signal(a, SIGKILL)
    assert a.woken == wait.fatal
    sched.send_sig(SIGKILL, a)
    cpu.run(a)
    if wait.fatal:
        assert (a.result, queue(x)) == (-ERESTARTSYS, [])
    else:
        assert (a.asleep, queue(x)) == (True, ["a"])


@each_wait
def test_time_ends_a_timed_wait_only(cpu: Any, queue: Queue, wait: Wait) -> None:
    x = Completion("x")
    a = cpu.start("a", wait.function, *wait.args(x))
    cpu.tick(99)
    assert a.asleep
    cpu.tick()
    assert a.woken == wait.timed
    if wait.timed:
        assert (cpu.run(a), queue(x), a.state) == (0, [], TASK_RUNNING)


@pytest.mark.udriver_allow("M14")
def test_the_pythonic_wait_is_killable_and_raises(cpu: Any, queue: Queue) -> None:
    x = Completion("rx_ready")
    a, b, c = (cpu.start(name, x.wait, 0.1) for name in "abc")
    assert a.state == TASK_KILLABLE
    cpu.signal(a, SIGUSR1)
    assert a.asleep
    cpu.signal(a, SIGKILL)
    with pytest.raises(InterruptedError, match="rx_ready"):
        cpu.run(a)
    complete(x)
    assert cpu.run(b) is True
    cpu.tick(100)
    with pytest.raises(TimeoutError, match="rx_ready was not completed within"):
        cpu.run(c)
    assert queue(x) == []


def test_wait_into_says_whose_the_token_is(cpu: Any) -> None:
    x = Completion("x")
    taken: list[object] = []
    a = cpu.start("a", x.wait_into, taken)
    assert taken == []
    complete(x)
    assert cpu.run(a) is True
    assert (len(taken) > 0, x.done) == (True, 0)


def test_try_wait_into_says_whose_the_token_is() -> None:
    x = Completion("x")
    taken: list[object] = []
    assert (x.try_wait_into(taken), taken) == (False, [])
    complete(x)
    assert x.try_wait_into(taken) is True
    assert (len(taken) > 0, x.done) == (True, 0)
    x.put_back(taken)
    assert (taken, x.done) == ([], 1)


@pytest.mark.udriver_allow("M24")
def test_try_wait_takes_one_token() -> None:
    x = with_done(2)
    assert [try_wait_for_completion(x) for _ in range(3)] == [True, True, False]
    assert x.done == 0


def test_try_wait_never_blocks_and_takes_nothing_when_false(cpu: Any, queue: Queue) -> None:
    x = Completion("x")
    cpu.start("a", wait_for_completion, x)
    assert try_wait_for_completion(x) is False
    assert (x.done, queue(x)) == (0, ["a"])


@pytest.mark.udriver_allow("M24")
@pytest.mark.parametrize("count", [0, 1, UINT_MAX])
def test_try_wait_is_legal_in_hardirq_context(count: int) -> None:
    x = with_done(count)
    with hardirq("isr of ttyUSB0"):
        assert try_wait_for_completion(x) is (count > 0)


@pytest.mark.udriver_allow("M24")
@pytest.mark.parametrize("count", [0, 1, UINT_MAX])
def test_completion_done_is_done_not_0_and_never_consumes(count: int) -> None:
    x = with_done(count)
    with hardirq("isr of ttyUSB0"):
        assert [completion_done(x), completion_done(x)] == [count > 0] * 2
    assert x.done == count


def test_every_waiter_is_exclusive(cpu: Any) -> None:
    x = Completion("x")
    actors = [cpu.start(wait.name, wait.function, *wait.args(x)) for wait in WAITS]
    for n in range(len(WAITS)):
        assert [actor.woken for actor in actors].count(True) == 0
        complete(x)
        assert actors[n].woken
        cpu.run(actors[n])
    assert (x.done, all(actor.ended for actor in actors)) == (0, True)


# 3. The wait, step by step


@pytest.mark.udriver_allow("M24")
@each_wait
def test_step_1_a_pending_signal_is_not_looked_at_when_a_token_is_there(
    cpu: Any, wait: Wait
) -> None:
    x = with_done(1)
    cpu.test.pending.append(SIGKILL)
    cpu.test.syscall_depth = 1
    assert wait.function(*wait.args(x)) == (100 if wait.timed else wait.got)
    assert (x.done, cpu.test.pending) == (0, [SIGKILL])


def test_step_1_barging_who_comes_takes_the_token_past_the_queue(cpu: Any, queue: Queue) -> None:
    x = Completion("x")
    a = cpu.start("a", wait_for_completion, x)
    cpu.start("b", wait_for_completion, x)
    complete(x)
    assert cpu.start("barger", wait_for_completion_interruptible, x).result == 0
    assert (x.done, queue(x)) == (0, ["b"])
    cpu.run(a)
    assert (a.asleep, queue(x)) == (True, ["b", "a"])


@pytest.mark.udriver_allow("M18", "M24")
@each_timed
@pytest.mark.parametrize("timeout", [0, 1, 2, 5000, LONG_MAX])
def test_step_1_a_timed_wait_gives_back_its_argument_and_0_becomes_1(
    cpu: Any, wait: Wait, timeout: int
) -> None:
    assert wait.function(with_done(1), timeout) == max(timeout, 1)


@each_signalled
def test_step_2_a_pending_signal_ends_the_wait_before_it_slept_once(
    cpu: Any, queue: Queue, wait: Wait
) -> None:
    x = Completion("x")
    cpu.test.pending.append(SIGKILL)
    assert wait.function(*wait.args(x)) == -ERESTARTSYS
    assert (cpu.test.nvcsw, queue(x), cpu.test.state) == (0, [], TASK_RUNNING)


def test_step_2_a_pending_caught_signal_does_not_end_a_killable_wait(cpu: Any) -> None:
    x = Completion("x")

    def body() -> int:
        with sched.syscall() as task:
            task.pending.append(SIGUSR1)
            result = wait_for_completion_killable(x)
            assert task.pending == [SIGUSR1]
            return result

    a = cpu.start("a", body)
    assert a.asleep
    complete(x)
    assert cpu.run(a) == 0


def test_step_2_a_token_posted_after_the_signal_check_wins(cpu: Any, queue: Queue) -> None:
    x = Completion("x")
    a = cpu.start("a", wait_for_completion_interruptible, x, stop="signal")
    assert (a.at, queue(x)) == ("signal", [])
    complete(x)
    assert cpu.run(a) == 0
    assert (a.nvcsw, x.done, queue(x)) == (0, 0, [])


def test_step_2_a_token_posted_before_erestartsys_was_returned_is_taken(cpu: Any) -> None:
    x = Completion("x")
    a = cpu.start("a", wait_for_completion_interruptible, x)
    b = cpu.start("b", wait_for_completion, x)
    cpu.signal(a, SIGUSR1)
    cpu.run(a, stop="signal")  # it has seen the signal and not left yet
    complete(x)
    assert cpu.run(a) == 0
    assert (x.done, b.asleep) == (0, True)


def test_step_3_a_wake_that_falls_before_the_state_is_set_is_not_lost(cpu: Any) -> None:
    x = Completion("x")
    a = cpu.start("a", wait_for_completion, x, stop="state")
    complete(x)
    assert try_wait_for_completion(x)
    cpu.run(a)
    assert a.asleep
    complete(x)
    assert a.woken
    cpu.run(a)
    assert a.ended


def test_step_3_a_woken_waiter_without_token_queues_at_the_tail(cpu: Any, queue: Queue) -> None:
    x = Completion("x")
    a, *_ = (cpu.start(name, wait_for_completion, x) for name in "abc")
    complete(x)
    assert try_wait_for_completion(x)
    cpu.run(a)
    assert queue(x) == ["b", "c", "a"]


@each_wait
def test_step_3_a_spurious_wake_does_not_return_and_keeps_the_place(
    cpu: Any, queue: Queue, wait: Wait
) -> None:
    x = Completion("x")
    a = cpu.start("a", wait.function, *wait.args(x))
    b = cpu.start("b", wait_for_completion, x)
    for _ in range(3):
        cpu.wake_up_process(a)
        cpu.run(a)
    assert (a.asleep, a.state, queue(x)) == (True, wait.state, ["a", "b"])
    complete(x)
    assert (a.woken, b.asleep) == (True, True)


def test_step_4_the_sleep_is_the_rest_of_the_timeout(cpu: Any) -> None:
    a = cpu.start("a", wait_for_completion_timeout, Completion("x"), 100)
    deadline = a.expires
    cpu.tick(40)
    cpu.wake_up_process(a)
    cpu.run(a)
    assert a.expires == deadline == cpu.jiffies + 60


@pytest.mark.parametrize(("passed", "left"), [(0, 100), (1, 99), (99, 1), (100, 1), (250, 1)])
@each_timed
def test_step_5_what_is_left_is_returned_at_least_1(
    cpu: Any, wait: Wait, passed: int, left: int
) -> None:
    x = Completion("x")
    a = cpu.start("a", wait.function, x, 100)
    cpu.tick(passed)
    complete(x)
    assert cpu.run(a) == left


def test_step_6_out_of_time_it_leaves_the_queue_when_it_runs(cpu: Any, queue: Queue) -> None:
    x = Completion("x")
    a = cpu.start("a", wait_for_completion_timeout, x, 5)
    cpu.start("b", wait_for_completion, x)
    cpu.tick(5)
    assert queue(x) == ["a", "b"]
    assert cpu.run(a) == 0
    assert queue(x) == ["b"]


def test_step_7_a_signal_is_noticed_when_the_waiter_runs(cpu: Any, queue: Queue) -> None:
    x = Completion("x")
    a = cpu.start("a", wait_for_completion_killable, x)
    cpu.start("b", wait_for_completion, x)
    cpu.signal(a, SIGKILL)
    assert queue(x) == ["a", "b"]
    assert cpu.run(a) == -ERESTARTSYS
    assert queue(x) == ["b"]


# 3. Who wins, when the waiter runs

TIMED_SIGNALLED = [wait for wait in SIGNALLED if wait.timed]
each_timed_signalled = pytest.mark.parametrize("wait", TIMED_SIGNALLED, ids=str)


@each_timed
def test_done_and_timer_completed_exactly_1(cpu: Any, queue: Queue, wait: Wait) -> None:
    for order in ("timer first", "token first"):
        x = Completion("x")
        a = cpu.start(order, wait.function, x, 10)
        if order == "token first":
            complete(x)
        cpu.tick(10)
        if order == "timer first":
            complete(x)
        assert cpu.run(a) == 1
        assert (x.done, queue(x)) == (0, [])


@each_signalled
def test_done_and_signal_completed_and_the_signal_stays_pending(cpu: Any, wait: Wait) -> None:
    for order in ("signal first", "token first"):
        x = Completion("x")
        seen: list[object] = []

        def body(x: Completion = x, seen: list[object] = seen) -> Any:
            with sched.syscall() as task:
                result = wait.function(*wait.args(x))
                seen.extend(task.pending)
                return result

        a = cpu.start(order, body)
        if order == "token first":
            complete(x)
        cpu.signal(a, SIGKILL)
        if order == "signal first":
            complete(x)
        assert cpu.run(a) == (100 if wait.timed else 0)
        assert (seen, a.pending, x.done) == ([SIGKILL], [], 0)


@each_signalled
def test_a_signal_that_stays_pending_ends_the_next_wait_of_the_syscall(
    cpu: Any, wait: Wait
) -> None:
    x = Completion("x")

    def body() -> list[int]:
        with sched.syscall():
            return [wait.function(*wait.args(x)), wait.function(*wait.args(x))]

    a = cpu.start("a", body)
    cpu.signal(a, SIGKILL)
    complete(x)
    assert cpu.run(a) == [100 if wait.timed else 0, -ERESTARTSYS]


@pytest.mark.parametrize("function", [wait.function for wait in SIGNALLED if not wait.timed])
def test_outside_a_syscall_a_signal_is_delivered_at_the_end_of_the_wait(
    cpu: Any, function: Callable[..., int]
) -> None:
    x = Completion("x")
    a = cpu.start("a", lambda: [function(x), function(x)])
    cpu.signal(a, SIGKILL)
    complete(x)
    cpu.run(a)
    assert (a.asleep, a.pending) == (True, [])
    complete(x)
    assert cpu.run(a) == [0, 0]


@pytest.mark.parametrize("end", ["token", "time"])
def test_a_signal_is_delivered_at_the_end_of_the_pythonic_wait(cpu: Any, end: str) -> None:
    x, y = Completion("x"), Completion("y")

    def body() -> int:
        try:
            x.wait(0.01)
        except TimeoutError:
            pass
        return wait_for_completion_interruptible(y)

    a = cpu.start("a", body)
    cpu.signal(a, SIGUSR1)  # caught: does not end wait(), and is over with it
    if end == "token":
        complete(x)
    cpu.tick(10)
    cpu.run(a)
    assert (a.asleep, a.pending) == (True, [])
    complete(y)
    assert cpu.run(a) == 0


@each_timed_signalled
def test_done_timer_and_signal_completed_1(cpu: Any, wait: Wait) -> None:
    x = Completion("x")
    a = cpu.start("a", wait.function, x, 10)
    cpu.tick(10)
    cpu.signal(a, SIGKILL)
    complete(x)
    assert (cpu.run(a), x.done) == (1, 0)


@each_timed_signalled
def test_timer_and_signal_without_token_is_a_timeout(cpu: Any, queue: Queue, wait: Wait) -> None:
    for order in ("signal first", "timer first"):
        x = Completion("x")
        a = cpu.start(order, wait.function, x, 10)
        if order == "signal first":
            cpu.signal(a, SIGKILL)
        cpu.tick(10)
        if order == "timer first":
            cpu.signal(a, SIGKILL)
        assert (cpu.run(a), queue(x)) == (0, [])


@each_timed_signalled
def test_signal_with_time_left_is_erestartsys(cpu: Any, wait: Wait) -> None:
    x = Completion("x")
    a = cpu.start("a", wait.function, x, 10)
    cpu.tick(9)
    cpu.signal(a, SIGKILL)
    assert cpu.run(a) == -ERESTARTSYS


@each_wait
def test_stolen_with_time_left_sleeps_again_at_the_tail_with_the_old_deadline(
    cpu: Any, queue: Queue, wait: Wait
) -> None:
    x = Completion("x")
    a = cpu.start("a", wait.function, *wait.args(x))
    cpu.start("b", wait_for_completion, x)
    deadline = a.expires
    cpu.tick(60)
    complete(x)
    assert try_wait_for_completion(x)
    cpu.tick(10)
    cpu.run(a)
    assert (a.asleep, a.state, queue(x)) == (True, wait.state, ["b", "a"])
    assert a.expires == deadline


@pytest.mark.udriver_allow("M14")
@each_timed
def test_stolen_and_the_deadline_passed_is_a_timeout(cpu: Any, queue: Queue, wait: Wait) -> None:
    x = Completion("x")
    a = cpu.start("a", wait.function, x, 10)
    cpu.start("b", wait_for_completion, x)
    complete(x)
    assert try_wait_for_completion(x)
    cpu.tick(10)
    assert (cpu.run(a), queue(x)) == (0, ["b"])


@each_signalled
def test_stolen_and_a_signal_arrived_is_erestartsys(cpu: Any, queue: Queue, wait: Wait) -> None:
    x = Completion("x")
    a = cpu.start("a", wait.function, *wait.args(x))
    cpu.start("b", wait_for_completion, x)
    complete(x)
    assert try_wait_for_completion(x)
    cpu.signal(a, SIGKILL)
    assert (cpu.run(a), queue(x)) == (-ERESTARTSYS, ["b"])


@each_timed_signalled
def test_stolen_deadline_passed_and_signal_is_a_timeout(cpu: Any, wait: Wait) -> None:
    x = Completion("x")
    a = cpu.start("a", wait.function, x, 10)
    complete(x)
    assert try_wait_for_completion(x)
    cpu.signal(a, SIGKILL)
    cpu.tick(10)
    assert cpu.run(a) == 0


@pytest.mark.udriver_allow("M14")
def test_at_rest_somebody_is_queued_only_without_tokens(cpu: Any, queue: Queue) -> None:
    x = Completion("x")
    actors = [cpu.start(wait.name, wait.function, *wait.args(x, 8)) for wait in WAITS]
    for step in range(40):
        actor = actors[step * 7 % len(actors)]
        (complete, try_wait_for_completion, cpu.wake_up_process)[step % 3](
            x if step % 3 < 2 else actor
        )
        for runnable in [a for a in actors if a.woken]:
            cpu.run(runnable)
        assert not (queue(x) and x.done)
        cpu.tick(step % 2)


# 3. Subtle points


def test_fifo_is_the_order_of_wakes_the_token_goes_to_who_runs_first(
    cpu: Any, queue: Queue
) -> None:
    x = Completion("x")
    a, b, _ = (cpu.start(name, wait_for_completion_interruptible, x) for name in "abc")
    cpu.wake_up_process(b)
    complete(x)
    assert (a.woken, queue(x)) == (True, ["b", "c"])
    assert cpu.run(b) == 0
    assert queue(x) == ["c"]
    cpu.run(a)
    assert queue(x) == ["c", "a"]


@pytest.mark.parametrize("reason", ["timer", "signal"])
def test_who_runs_because_of_a_timer_or_signal_takes_the_heads_token(
    cpu: Any, queue: Queue, reason: str
) -> None:
    x = Completion("x")
    a = cpu.start("a", wait_for_completion, x)
    b = cpu.start("b", wait_for_completion_interruptible_timeout, x, 10)
    if reason == "timer":
        cpu.tick(10)
    else:
        cpu.signal(b, SIGUSR1)
    complete(x)
    assert cpu.run(b) == (1 if reason == "timer" else 10)
    cpu.run(a)
    assert (a.asleep, queue(x), x.done) == (True, ["a"], 0)


@pytest.mark.parametrize("reason", ["timer", "signal"])
def test_a_complete_between_timer_or_signal_and_run_is_a_success_and_no_token_is_passed_on(
    cpu: Any, queue: Queue, reason: str
) -> None:
    x = Completion("x")
    a = cpu.start("a", wait_for_completion_killable_timeout, x, 10)
    b = cpu.start("b", wait_for_completion, x)
    if reason == "timer":
        cpu.tick(10)
    else:
        cpu.signal(a, SIGKILL)
    complete(x)
    assert cpu.run(a) >= 1
    assert (x.done, b.asleep, queue(x)) == (0, True, ["b"])


@pytest.mark.udriver_allow("M18")
@each_timed
def test_timeout_0_is_no_try_it_sleeps_to_the_next_tick(cpu: Any, queue: Queue, wait: Wait) -> None:
    x = Completion("x")
    a = cpu.start("a", wait.function, x, 0)
    assert (a.asleep, queue(x)) == (True, ["a"])
    cpu.tick()
    assert (cpu.run(a), queue(x)) == (0, [])


@pytest.mark.udriver_allow("M18")
@each_timed
def test_timeout_0_can_be_completed_meanwhile(cpu: Any, wait: Wait) -> None:
    x = Completion("x")
    a = cpu.start("a", wait.function, x, 0)
    complete(x)
    assert cpu.run(a) == 1


@each_timed
def test_long_max_is_for_ever_and_returns_long_max(cpu: Any, wait: Wait) -> None:
    x = Completion("x")
    a = cpu.start("a", wait.function, x, MAX_SCHEDULE_TIMEOUT)
    cpu.tick(10_000)
    assert (a.asleep, a.expires) == (True, None)
    complete(x)
    assert cpu.run(a) == LONG_MAX


@pytest.mark.udriver_allow("M18")
@pytest.mark.parametrize("timeout", [LONG_MAX + 1, 2**64 - 1, -1, -5])
@each_timed
def test_a_timeout_above_long_max_is_wrong_and_0_at_once(
    cpu: Any, queue: Queue, wait: Wait, timeout: int
) -> None:
    x = Completion("x")
    assert cpu.start("a", wait.function, x, timeout).result == 0
    as_long = timeout - 2**64 if timeout > LONG_MAX else timeout
    assert (cpu.wrong_timeouts, queue(x), x.done) == ([as_long], [], 0)


@pytest.mark.udriver_allow("M18", "M24")
@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (wait_for_completion_timeout, 2**64 - 5),
        (wait_for_completion_io_timeout, 2**64 - 5),
        (wait_for_completion_interruptible_timeout, -5),
        (wait_for_completion_killable_timeout, -5),
    ],
    ids=["unsigned long", "io: unsigned long", "interruptible: long", "killable: long"],
)
@pytest.mark.parametrize("timeout", [-5, 2**64 - 5])
def test_a_wrong_timeout_comes_straight_back_with_a_token(
    cpu: Any, function: Callable[..., int], expected: int, timeout: int
) -> None:
    x = with_done(1)
    assert (function(x, timeout), x.done, cpu.wrong_timeouts) == (expected, 0, [])


@pytest.mark.udriver_allow("M18")
def test_the_default_scheduler_warns_of_a_wrong_timeout() -> None:
    with pytest.warns(match="schedule_timeout: wrong timeout value"):
        assert wait_for_completion_timeout(Completion("x"), -5) == 0


@pytest.mark.parametrize(
    ("sig", "interruptible", "killable"),
    [(SIGUSR1, True, False), (signal.SIGTERM, True, False), (SIGKILL, True, True)],
)
def test_killable_is_woken_by_fatal_signals_only_interruptible_by_all(
    cpu: Any, sig: int, interruptible: bool, killable: bool
) -> None:
    x = Completion("x")
    s = cpu.start("s", wait_for_completion_interruptible, x)
    k = cpu.start("k", wait_for_completion_killable, x)
    cpu.signal(s, sig)
    cpu.signal(k, sig)
    assert (s.woken, k.woken) == (interruptible, killable)


def test_what_a_handler_raised_is_a_fatal_signal_and_raised_at_the_end(cpu: Any) -> None:
    x = Completion("x")
    deaf = cpu.start("deaf", wait_for_completion, x)
    k = cpu.start("k", wait_for_completion_killable, x)
    for actor in (deaf, k):
        cpu.signal(actor, KeyboardInterrupt())
    assert (deaf.asleep, k.woken) == (True, True)
    with pytest.raises(KeyboardInterrupt):
        cpu.run(k)
    complete(x)
    with pytest.raises(KeyboardInterrupt):
        cpu.run(deaf)
    assert x.done == 0


def test_a_state_outside_task_normal_is_dequeued_and_never_woken(cpu: Any, queue: Queue) -> None:
    x = Completion("x")
    a = cpu.start("a", wait_for_completion_state, x, TASK_STOPPED)
    assert a.state == TASK_STOPPED
    complete(x)
    assert (a.asleep, queue(x), x.done) == (True, [], 1)
    cpu.wake_up_process(a)  # whoever ends that state lets it see its token
    assert cpu.run(a) == 0


def test_mixed_states_on_one_queue_stay_fifo(cpu: Any, queue: Queue) -> None:
    x = Completion("x")
    for wait in WAITS:
        cpu.start(wait.name, wait.function, *wait.args(x))
    order = [wait.name for wait in WAITS]
    assert queue(x) == order
    for _ in WAITS:
        complete(x)
    assert cpu.wakeups == order


# 4. Set-up and re-arming


@pytest.mark.parametrize(
    "make",
    [
        kernel.DECLARE_COMPLETION,
        kernel.COMPLETION_INITIALIZER,
        kernel.DECLARE_COMPLETION_ONSTACK,
        kernel.COMPLETION_INITIALIZER_ONSTACK,
        lambda name: kernel.DECLARE_COMPLETION_ONSTACK_MAP(name, object()),
        lambda name: kernel.COMPLETION_INITIALIZER_ONSTACK_MAP(name, object()),
    ],
    ids=[
        "DECLARE",
        "INITIALIZER",
        "DECLARE_ONSTACK",
        "INITIALIZER_ONSTACK",
        "DECLARE_ONSTACK_MAP",
        "INITIALIZER_ONSTACK_MAP",
    ],
)
def test_each_initialiser_gives_done_0_and_an_empty_queue(
    make: Callable[[str], Completion], queue: Queue
) -> None:
    x = make("setup_done")
    assert (x.done, queue(x), x.name) == (0, [], "setup_done")


@pytest.mark.udriver_allow("M9")
def test_a_scope_that_ends_with_a_waiter_is_reported(cpu: Any) -> None:
    refused = pytest.raises(UDriverError, match="x went out of scope while a still waits")
    with refused, kernel.DECLARE_COMPLETION_ONSTACK("x") as x:
        cpu.start("a", wait_for_completion, x)


@pytest.mark.udriver_allow("M24")
def test_acquire_and_release_are_empty(cpu: Any) -> None:
    x = with_done(1)
    kernel.complete_acquire(x)
    kernel.complete_release(x)
    assert (x.done, cpu.wakeups) == (1, [])


@pytest.mark.udriver_allow("M2", "M24")
@pytest.mark.parametrize(
    "init", [init_completion, lambda x: init_completion_map(x, object())], ids=["init", "map"]
)
def test_init_completion_of_a_live_object_orphans_its_waiters(
    cpu: Any, queue: Queue, init: Callable[[Completion], None]
) -> None:
    x = with_done(0)
    a = cpu.start("a", wait_for_completion, x)
    t = cpu.start("t", wait_for_completion_timeout, x, 10)
    init(x)
    assert (x.done, queue(x)) == (0, [])
    complete(x)
    complete_all(x)
    assert (cpu.wakeups, a.asleep, t.asleep) == ([], True, True)
    cpu.tick(10)
    assert cpu.run(t) == 1  # a timed one finds done when it expires
    assert a.asleep  # an untimed one sleeps for ever


@pytest.mark.udriver_allow("M24")
@pytest.mark.parametrize("count", [0, 1, 7, UINT_MAX])
def test_reinit_is_done_0(count: int) -> None:
    x = with_done(count)
    x.reinit()
    assert (x.done, try_wait_for_completion(x)) == (0, False)


@pytest.mark.udriver_allow("M5")
def test_reinit_wakes_nobody_and_leaves_the_queue(cpu: Any, queue: Queue) -> None:
    x = Completion("x")
    cpu.start("a", wait_for_completion, x)
    cpu.start("b", wait_for_completion, x)
    reinit_completion(x)
    assert (cpu.wakeups, queue(x)) == ([], ["a", "b"])
    complete(x)
    assert (cpu.wakeups, queue(x)) == (["a"], ["b"])


@pytest.mark.udriver_allow("M5")
def test_complete_reinit_before_the_woken_one_ran_loses_the_wake(cpu: Any, queue: Queue) -> None:
    x = Completion("x")
    a = cpu.start("a", wait_for_completion, x)
    cpu.start("b", wait_for_completion, x)
    complete(x)
    reinit_completion(x)
    cpu.run(a)
    assert (a.asleep, queue(x), x.done) == (True, ["b", "a"], 0)


@pytest.mark.udriver_allow("M5")
def test_complete_all_reinit_before_they_ran_rebuilds_the_queue_in_run_order(
    cpu: Any, queue: Queue
) -> None:
    x = Completion("x")
    a, b, c = (cpu.start(name, wait_for_completion, x) for name in "abc")
    complete_all(x)
    reinit_completion(x)
    for actor in (c, a, b):
        cpu.run(actor)
    assert queue(x) == ["c", "a", "b"]


@pytest.mark.udriver_allow("M5")
def test_complete_all_reinit_complete_lets_exactly_one_pass(cpu: Any, queue: Queue) -> None:
    x = Completion("x")
    actors = [cpu.start(name, wait_for_completion, x) for name in "abc"]
    complete_all(x)
    reinit_completion(x)
    complete(x)
    for actor in actors:
        cpu.run(actor)
    assert ([actor.ended for actor in actors], queue(x)) == ([True, False, False], ["b", "c"])


# 5. completion_done


def test_completion_done_is_true_with_a_waiter_woken_but_not_gone(cpu: Any) -> None:
    x = Completion("x")
    a = cpu.start("a", wait_for_completion, x)
    complete(x)
    assert (completion_done(x), a.ended) == (True, False)


def test_completion_done_is_false_with_no_waiter_at_all(queue: Queue) -> None:
    x = Completion("x")
    assert (completion_done(x), queue(x)) == (False, [])


def test_completion_done_cannot_tell_after_complete_all_that_the_waiters_are_gone(
    cpu: Any,
) -> None:
    x = Completion("x")
    a = cpu.start("a", wait_for_completion, x)
    complete_all(x)
    before = completion_done(x)
    cpu.run(a)
    assert (before, completion_done(x), a.ended) == (True, True, True)


def test_completion_done_a_poller_can_miss_the_event(cpu: Any) -> None:
    x = Completion("x")
    a = cpu.start("a", wait_for_completion, x)
    seen = [completion_done(x)]
    complete(x)
    cpu.run(a)
    seen.append(completion_done(x))
    assert (seen, a.ended) == ([False, False], True)


def test_completion_done_true_means_that_completer_is_through_with_x(cpu: Any) -> None:
    x = Completion("x")
    a = cpu.start("a", wait_for_completion, x)
    at_wake: list[bool] = []
    cpu.on_wake = lambda: at_wake.append(completion_done(x))
    complete(x)
    assert (at_wake, a.ended) == ([True], False)  # the token comes before the wake


def test_a_token_is_visible_before_the_wake_that_announces_it(cpu: Any, queue: Queue) -> None:
    x = Completion("x")
    cpu.start("a", wait_for_completion, x)
    seen: list[tuple[int, list[str]]] = []
    cpu.on_wake = lambda: seen.append((x.done, queue(x)))
    complete(x)
    assert seen == [(1, [])]
