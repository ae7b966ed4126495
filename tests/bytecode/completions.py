# SPDX-License-Identifier: MIT
"""udriver.kernel.completion under test: each function, with and without tokens and waiters."""

from __future__ import annotations

import asyncio
import functools
import signal
from collections.abc import Callable, Iterator

from tests.bytecode.ours import (
    Act,
    ByHand,
    FirstWait,
    Forgetting,
    ForgettingWithToken,
    OnCompletion,
    WithToken,
    WithWaiters,
    program,
)
from tests.bytecode.program import Program
from udriver.kernel import completion as c
from udriver.kernel import sched
from udriver.kernel.completion import Completion

__all__ = ["programs"]


def _took(function: Callable[..., object], *args: object) -> Act:
    """A wait: its result says whether it took a token."""

    def act(self: OnCompletion) -> None:
        result = function(self.x, *args)
        if result is None or result is True or (isinstance(result, int) and result >= untimed):
            self.taken.append(1)

    untimed = 0 if function in UNTIMED else 1
    return act


UNTIMED = (
    c.wait_for_completion_interruptible,
    c.wait_for_completion_killable,
    c.wait_for_completion_state,
)
WAITS: tuple[tuple[Callable[..., object], tuple[object, ...]], ...] = (
    (c.wait_for_completion, ()),
    (c.wait_for_completion_io, ()),
    (c.wait_for_completion_interruptible, ()),
    (c.wait_for_completion_killable, ()),
    (c.wait_for_completion_state, (sched.TASK_IDLE | sched.TASK_INTERRUPTIBLE,)),
    (c.wait_for_completion_timeout, (60_000,)),
    (c.wait_for_completion_io_timeout, (60_000,)),
    (c.wait_for_completion_interruptible_timeout, (60_000,)),
    (c.wait_for_completion_killable_timeout, (60_000,)),
    (Completion.wait, ()),
)


def _pythonic(timeout: float) -> Act:
    def act(self: OnCompletion) -> None:
        try:
            self.x.wait(timeout)
        except TimeoutError:
            return
        self.taken.append(1)

    return act


def _into(self: OnCompletion) -> None:
    taken: list[object] = []
    self.x.wait_into(taken)
    self.x.put_back(taken)


def _try_into(self: OnCompletion) -> None:
    taken: list[object] = []
    if self.x.try_wait_into(taken):
        self.x.put_back(taken)


def _awaited(self: OnCompletion) -> None:
    async def main() -> None:
        # gives the loop a wakeup fd: without one a signal that comes just before it blocks is
        # handled when something else wakes it, which is asyncio's and not for us to mend
        asyncio.get_running_loop().add_signal_handler(signal.SIGWINCH, bool)
        await self.x
        self.taken.append(1)

    asyncio.run(main())


def _scope(self: OnCompletion) -> None:
    with self.x as x:
        repr(x)


def _counted_by_hand(self: OnCompletion) -> None:
    self.complete()
    for _ in range(2):
        if c.try_wait_for_completion(self.x):
            self.taken.append(1)


def _write_done(self: OnCompletion) -> None:
    self.posted += [1, 1]
    self.x.done = 2


def _exit(self: OnCompletion) -> None:
    self.posted.append(1)
    try:
        c.kthread_complete_and_exit(self.x, 0)
    except SystemExit:
        pass


def _try(self: OnCompletion) -> None:
    if c.try_wait_for_completion(self.x):
        self.taken.append(1)


def _complete(function: Callable[[Completion], object]) -> Act:
    def act(self: OnCompletion) -> None:
        self.posted.append(1)
        function(self.x)

    return act


def _complete_all_method(self: OnCompletion) -> None:
    self.for_good.append(1)
    self.x.complete_all()


def _initializers(self: OnCompletion) -> None:
    c.COMPLETION_INITIALIZER("y")
    c.COMPLETION_INITIALIZER_ONSTACK("y")
    c.COMPLETION_INITIALIZER_ONSTACK_MAP("y", None)
    c.complete_acquire(self.x)
    c.complete_release(self.x)


def _complete_all(self: OnCompletion) -> None:
    self.for_good.append(1)
    c.complete_all(self.x)


@functools.cache
def programs() -> list[type[Program]]:
    """All of them."""
    return list(_programs())


def _programs() -> Iterator[type[Program]]:
    for base in (OnCompletion, WithWaiters):
        kind = " with waiters" if base is WithWaiters else ""
        yield program(base, "complete" + kind, _complete(c.complete))
        yield program(base, "complete_all" + kind, _complete_all)
    yield program(OnCompletion, "complete_on_current_cpu", _complete(c.complete_on_current_cpu))
    yield program(OnCompletion, "Completion.complete", _complete(Completion.complete))
    yield program(OnCompletion, "Completion.complete_all", _complete_all_method)
    yield program(OnCompletion, "kthread_complete_and_exit", _exit)
    for function, args in WAITS:
        name = function.__name__ if function is not Completion.wait else "Completion.wait"
        yield program(WithToken, f"{name} with a token", _took(function, *args))
        yield program(OnCompletion, f"{name} that sleeps", _took(function, *args))
        if args == (60_000,):
            yield program(OnCompletion, f"{name} that expires", _took(function, 0))
    yield program(FirstWait, "wait_for_completion, a thread's first", _took(c.wait_for_completion))
    yield program(OnCompletion, "Completion.wait that expires", _pythonic(0))
    yield program(OnCompletion, "Completion.wait_into, put_back", _into)
    yield program(OnCompletion, "await Completion", _awaited)
    for base in (OnCompletion, WithToken):
        kind = " with a token" if base is WithToken else ""
        yield program(base, "try_wait_for_completion" + kind, _try)
        yield program(base, "Completion.try_wait_into, put_back" + kind, _try_into)
        yield program(base, "completion_done" + kind, lambda self: c.completion_done(self.x))
    for base in (Forgetting, ForgettingWithToken):
        kind = " with a token" if base is ForgettingWithToken else ""
        yield program(base, "reinit_completion" + kind, lambda self: c.reinit_completion(self.x))
        yield program(base, "Completion.reinit" + kind, lambda self: self.x.reinit())
        yield program(base, "init_completion" + kind, lambda self: c.init_completion(self.x))
    yield program(Forgetting, "init_completion_map", lambda self: c.init_completion_map(self.x, 0))
    yield program(ByHand, "done that was written", _counted_by_hand)
    yield program(ForgettingWithToken, "done being written", _write_done)
    yield program(OnCompletion, "with Completion, repr", _scope)
    yield program(OnCompletion, "COMPLETION_INITIALIZER and friends", _initializers)
