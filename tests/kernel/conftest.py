# SPDX-License-Identifier: MIT
"""A scheduler that does nothing by itself, so that a test decides who runs when.

An actor is a thread with a task. One runs at a time: the test hands it the baton, and has it
back when the actor sleeps, ends, or reaches a point the test named. ``jiffies`` moves only when
the test moves it. What wakes an actor makes it runnable; it *runs* when the test says so:

    a = cpu.start("a", wait_for_completion_timeout, x, 10)   # runs until it sleeps
    complete(x)                                              # a is woken, has not run
    cpu.tick(10)                                             # its timer fires, too
    assert cpu.run(a) == 1
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from udriver.kernel import sched
from udriver.kernel.completion import Completion
from udriver.kernel.sched import MAX_SCHEDULE_TIMEOUT, TASK_RUNNING, Task

HANDOVER_S = 20  # how long a test waits for an actor that should stop; reached only by a bug


class Reaped(BaseException):
    """Ends an actor that still sleeps when its test is over."""


class Actor(Task):
    """A task that runs when the test says so. ``state`` is a point it can be stopped at."""

    __slots__ = ("at", "cpu", "expires", "go", "outcome", "stops", "thread", "value")

    def __init__(self, cpu: Steps, comm: str) -> None:
        self.cpu = cpu
        self.stops: frozenset[str] = frozenset()
        self.at = ""
        self.go = threading.Semaphore(0)
        self.outcome: Callable[[], Any] | None = None
        self.expires: int | None = None
        super().__init__(comm)

    @property  # type: ignore[override]
    def state(self) -> int:
        """The TASK_* state; RUNNING from the moment it is woken."""
        return self.value

    @state.setter
    def state(self, value: int) -> None:
        self.cpu.point("state", self)
        self.value = value

    @property
    def ended(self) -> bool:
        """Whether its function is over."""
        return self.outcome is not None

    @property
    def asleep(self) -> bool:
        """Whether it sleeps and nothing has woken it."""
        return self.at == "sleep" and self.state != TASK_RUNNING

    @property
    def woken(self) -> bool:
        """Whether it was woken and has not run yet."""
        return self.at == "sleep" and self.state == TASK_RUNNING

    @property
    def result(self) -> Any:
        """What its function returned; raises what it raised."""
        assert self.outcome is not None, f"{self.comm} is still at {self.at}"
        return self.outcome()


class Steps:
    """The four functions of the seam in virtual time, one actor at a time."""

    def __init__(self) -> None:
        self.jiffies = 1000
        self.actors: list[Actor] = []
        self.wakeups: list[str] = []
        self.wrong_timeouts: list[int] = []
        self.on_wake: Callable[[], object] = bool
        self._back = threading.Semaphore(0)
        self._local = threading.local()
        self._local.task = self.test = Actor(self, "test")

    # the seam

    def current(self) -> Actor:
        task: Actor = self._local.task
        return task

    def signal_pending_state(self, state: int, task: Task) -> bool:
        assert isinstance(task, Actor)
        pending = sched.signal_pending_state(state, task)
        self.point("signal", task)
        return pending

    def schedule_timeout(self, timeout: int) -> int:
        task = self.current()
        if timeout < 0:
            self.wrong_timeouts.append(timeout)
            return 0
        timed = timeout != MAX_SCHEDULE_TIMEOUT
        expires = self.jiffies + timeout
        task.expires = max(expires, self.jiffies + 1) if timed else None
        if task.state != TASK_RUNNING:
            assert task is not self.test, "the test itself went to sleep"
            task.nvcsw += 1
            self._stop("sleep", task)
        task.expires = None
        return max(0, expires - self.jiffies) if timed else timeout

    def wake_up_process(self, task: Task) -> None:
        assert isinstance(task, Actor)
        self.wakeups.append(task.comm)
        self.on_wake()
        task.value = TASK_RUNNING

    # for the test

    def start(self, comm: str, function: Callable[..., Any], *args: Any, stop: str = "") -> Actor:
        """Start an actor; it runs until it sleeps or ends, or to the point ``stop``."""
        actor = Actor(self, comm)
        actor.thread = threading.Thread(target=self._main, args=(actor, function, args), name=comm)
        self.actors.append(actor)
        actor.thread.start()
        self.run(actor, stop=stop)
        return actor

    def run(self, actor: Actor, stop: str = "") -> Any:
        """Let ``actor`` run until it stops again; give its result if it ended."""
        actor.stops = frozenset({stop}) if stop else frozenset()
        actor.go.release()
        assert self._back.acquire(timeout=HANDOVER_S), f"{actor.comm} neither slept nor ended"
        return actor.result if actor.ended else None

    def tick(self, jiffies: int = 1) -> None:
        """Let time pass; a timer that fires wakes its actor."""
        for _ in range(min(jiffies, 10_000)):
            self.jiffies += 1
            for actor in self.actors:
                if actor.asleep and actor.expires is not None and self.jiffies >= actor.expires:
                    actor.value = TASK_RUNNING

    def signal(self, actor: Actor, sig: int) -> None:
        """As the kernel's signal_wake_up(): wakes only a sleep that the signal may end."""
        actor.pending.append(sig)
        if sched.signal_pending_state(actor.state, actor):
            actor.value = TASK_RUNNING

    def point(self, name: str, actor: Actor) -> None:
        """Give the baton back if the test asked for it here."""
        if name in actor.stops:
            self._stop(name, actor)

    def _stop(self, name: str, actor: Actor) -> None:
        actor.at = name
        self._back.release()
        actor.go.acquire()
        if actor.cpu is not self or self.reaping:
            raise Reaped
        actor.at = ""

    reaping = False

    def reap(self) -> None:
        """End who still sleeps."""
        self.reaping = True
        for actor in self.actors:
            actor.stops = frozenset()
            while not actor.ended:
                actor.go.release()
                assert self._back.acquire(timeout=HANDOVER_S), f"{actor.comm} cannot be ended"
            actor.thread.join()

    def _main(self, actor: Actor, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._local.task = actor
        actor.go.acquire()
        try:
            result = function(*args)
            actor.outcome = lambda: result
        except BaseException as exc:  # noqa: BLE001 - the test gets it from actor.result
            raised = exc
            actor.outcome = lambda: _raise(raised)
        self._back.release()


def _raise(exc: BaseException) -> None:
    raise exc


@pytest.fixture
def cpu() -> Iterator[Steps]:
    """The deterministic scheduler, active while the test runs."""
    steps = Steps()
    with sched.using(steps):
        yield steps
        steps.reap()


def names(x: Completion) -> list[str]:
    """Who is queued, head first."""
    return [task.comm for task in x.wait_queue]


@pytest.fixture
def queue() -> Callable[[Completion], list[str]]:
    """``queue(x)``: who is queued, head first."""
    return names


class Deadline:
    """A bound for spinning: reached only by a bug."""

    def __init__(self, seconds: float = 20) -> None:
        self._end = time.monotonic() + seconds

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Spin, giving the CPU away, until ``condition()`` is true."""
        while not condition():
            assert time.monotonic() < self._end, f"still not: {what}"
            os.sched_yield()


@pytest.fixture
def until() -> Callable[[Callable[[], object], str], None]:
    """``until(condition, what)``: spin, bounded, instead of sleeping."""
    return Deadline().until
