# SPDX-License-Identifier: MIT
"""One processor in virtual time: the scheduler behind the seam on which our core plays a script.

What the module gets from SCHED_FIFO on one processor is spelt out here: the actors are threads that
hand on one baton, and those that were woken run in the order in which they were woken. ``jiffies``
moves at ``tick()`` only; timers fire in the order of their expiry, of two that expire in one jiffy
the later armed first, as the kernel's timer wheel has it (a bucket is a stack, kernel/time/timer.c).
"""

from __future__ import annotations

import _thread
import signal
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from udriver.kernel import sched
from udriver.kernel.sched import (
    MAX_SCHEDULE_TIMEOUT,
    TASK_INTERRUPTIBLE,
    TASK_NORMAL,
    TASK_RUNNING,
    TASK_WAKEKILL,
    Task,
)

UNIT = 1300  # ORACLE_UNIT, jiffies of a tick
HANDOVER_S = 20  # how long the controller waits for the baton; reached only by a bug
MOST_SLEEPS = 500  # in one script; a wrong core may never stop


class Reaped(BaseException):
    """Ends an actor that still sleeps when its script is over."""


class Sleeper(Task):
    """A thread with a task, asleep until it is given the baton."""

    __slots__ = ("expires", "go", "order", "reaped", "thread")

    thread: threading.Thread

    def __init__(self, comm: str) -> None:
        super().__init__(comm)
        self.go = _thread.allocate_lock()  # C, no condition variable of Python's: 5 us a handover
        self.go.acquire()
        self.expires: int | None = None
        self.order = 0
        self.reaped = False


class _Watch(Protocol):
    def sleeps(self, task: Sleeper) -> None: ...
    def wakes(self, task: Sleeper, left: int) -> None: ...


class Processor:
    """The four functions of the seam, and what a controller needs to drive them."""

    def __init__(self) -> None:
        self.jiffies = 0
        self.sleeps = 0
        self.runnable: deque[Sleeper] = deque()
        self.timers: list[Sleeper] = []
        self.watch: _Watch | None = None
        self.fall: Callable[[Sleeper], object] = bool  # what a task meets that is about to sleep
        self._armed = 0
        self._back = threading.Semaphore(0)
        self._running: Sleeper | None = None
        self._controller = Task("controller")

    # the seam

    def current(self) -> Task:
        return self._running or self._controller

    def signal_pending_state(self, state: int, task: Task) -> bool:
        return sched.signal_pending_state(state, task)

    def schedule_timeout(self, timeout: int) -> int:
        task = self._running
        assert task is not None, "the controller went to sleep"
        if self.watch is not None:
            self.watch.sleeps(task)
        self.fall(task)
        if timeout < 0:
            task.state = TASK_RUNNING
            return 0
        if timeout == MAX_SCHEDULE_TIMEOUT:
            self.schedule(task)
            left = timeout
        else:
            task.expires = expires = self.jiffies + timeout
            self._armed += 1
            task.order = -self._armed
            self.timers.append(task)
            self.schedule(task)
            if task.expires is not None:
                self._disarm(task)
            left = max(0, expires - self.jiffies)
        if self.watch is not None:
            self.watch.wakes(task, left)
        return left

    def wake_up_process(self, task: Task) -> None:
        self.wake(task, TASK_NORMAL)

    # what the kernel has beside it

    def wake(self, task: Task, states: int) -> None:
        """try_to_wake_up(): if it sleeps in one of these states it is runnable, behind the others."""
        assert isinstance(task, Sleeper)
        if task.state & states:
            task.state = TASK_RUNNING
            if task is not self._running:
                self.runnable.append(task)

    def signal(self, task: Sleeper, sig: int) -> None:
        """send_sig() of SIGUSR1, caught, or of SIGTERM or SIGKILL, which nobody catches.

        It wakes only a sleep that it may end. One that finds another pending wakes nobody, and
        if it is not SIGKILL it is not even fatal yet (complete_signal(), kernel/signal.c).
        """
        fatal = sig != signal.SIGUSR1
        if sched.signal_pending_state(TASK_WAKEKILL, task) or sig in task.pending:
            return  # it dies already; or is pending once for all
        late = bool(task.pending) and sig != signal.SIGKILL
        # our word for a fatal signal that has a number of its own is what Ctrl-C leaves behind
        told = KeyboardInterrupt() if sig == signal.SIGTERM and not late else sig
        task.pending.append(told)
        if not late:
            self.wake(task, TASK_INTERRUPTIBLE | (TASK_WAKEKILL if fatal else 0))

    def tick(self) -> None:
        """A unit of time later; the timers that expired wake their tasks."""
        self.jiffies += UNIT
        due = [task for task in self.timers if task.expires is not None
               and task.expires <= self.jiffies]  # fmt: skip
        for task in sorted(due, key=lambda task: (task.expires, task.order)):
            self._disarm(task)
            self.wake(task, TASK_NORMAL)

    def settle(self) -> None:
        """Let everybody who was woken run, until all sleep."""
        if self.runnable:
            self._dispatch()
            assert self._back.acquire(timeout=HANDOVER_S), f"{self._running} holds the baton"
            self._running = None

    # for the actors' threads

    def schedule(self, task: Sleeper) -> None:
        """Sleep until woken; Reaped when the script is over."""
        if sched.signal_pending_state(task.state, task):
            task.state = TASK_RUNNING
            return
        if task.state != TASK_RUNNING:
            task.nvcsw += 1
            self.sleeps += 1
            self.hand_on(task)
            if task.reaped or self.sleeps > MOST_SLEEPS:
                raise Reaped
        self._running = task

    def hand_on(self, task: Sleeper) -> None:
        """Give the baton to the next, or back to the controller; return when it comes again."""
        if self.runnable:
            self._dispatch()
        else:
            self._back.release()
        task.go.acquire()
        self._running = task

    def forget(self) -> None:
        """Between two scripts: no timer, nobody runnable, time begins anew."""
        self.timers.clear()
        self.runnable.clear()
        self.jiffies = self.sleeps = self._armed = 0

    def _dispatch(self) -> None:
        self._running = task = self.runnable.popleft()
        task.go.release()

    def _disarm(self, task: Sleeper) -> None:
        task.expires = None
        self.timers.remove(task)


def thread_of(main: Callable[..., Any], *args: Any) -> threading.Thread:
    """A daemon thread: an actor that a wrong core left in a loop must not keep us from ending."""
    thread = threading.Thread(target=main, args=args, daemon=True)
    thread.start()
    return thread
