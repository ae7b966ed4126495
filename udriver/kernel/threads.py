# SPDX-License-Identifier: MIT
"""The default scheduler: a task is a thread, and it sleeps in a system call.

1. Waking is one C call that can neither fail nor be cut in two: of a task that sleeps the write of
   an eventfd, of one that runs a store. Most wake-ups of an inline interrupt are of the task that
   takes it, which runs.
2. A wake-up is never lost: a task says that it sleeps, then looks at the store, then sleeps; what
   comes later is written, and stays in the eventfd until a sleep takes it.
3. The main thread sleeps on Python's signal wakeup fd too. A signal that lands after the
   interpreter's last check and before the thread blocks would otherwise wait with it: its C
   handler has run, its Python handler would run after the sleep that it was to end.
4. Nothing is opened before a task first sleeps.
5. Before it blocks, the main thread asks for pending signals in so many words. To CPython before
   3.13 a signal that lands on another thread does not mark the main one, and takes away the mark of
   one that had: both handlers would run when the main thread next gets the GIL, after the sleep.
6. An fd is read when an epoll said that there is something, never to see whether there is: a read
   that says EAGAIN costs five times what an empty epoll does.

Rejected: a lock per sleeper (``sem_wait`` has the gap of rule 3, and is slower than an eventfd
in ping-pong); sleeping in slices of a lock (turns the gap into latency and idle wake-ups);
``pthread_sigmask`` around the check (8 us a pair, and another thread takes the signal while
the Python handler still runs here); signalfd (Python's handlers would never run at all).
"""

from __future__ import annotations

import functools
import os
import select
import signal
import sys
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from operator import methodcaller
from typing import Protocol

from udriver.kernel import tracepoint
from udriver.kernel.sched import (
    HZ,
    MAX_SCHEDULE_TIMEOUT,
    TASK_RUNNING,
    Task,
    signal_pending_state,
)

__all__ = ["Idle", "MainTask", "Ready", "ThreadScheduler", "ThreadTask"]

NSEC_PER_JIFFY = 1_000_000_000 // HZ
EPOLL_MAX = 2e6  # seconds: epoll_wait(2) takes an int of ms; who sleeps longer sleeps once more


Ready = list[tuple[int, int]]
"""What epoll gives: fds and their events."""


class Idle(Protocol):
    """What a task does while it sleeps, if it is not to do nothing: the inline irqchip's loop."""

    def sleep(self, task: ThreadTask, timeout: float | None) -> Ready:
        """Block in ``task``'s name, at most so long; give what there was to wake for.

        Context: Process context. May sleep.
        """
        ...


class ThreadTask(Task):
    """A thread that is not the main one. Signal handlers never run on it.

    ``wake`` is the call that wakes it; ``fds`` are its own, for an epoll in which it sleeps.
    """

    __slots__ = ("_poll", "_stored", "_written", "fds", "wake", "woken")

    def __init__(self, comm: str, flags: int = 0) -> None:
        super().__init__(comm)
        eventfd = os.eventfd(0, os.EFD_CLOEXEC | flags)
        self.fds: tuple[int, ...] = (eventfd,)
        self.woken: deque[None] = deque(maxlen=1)
        self._stored: Callable[[], object] = partial(self.woken.append, None)
        self._written: Callable[[], object] = partial(os.eventfd_write, eventfd, 1)
        self.wake: Callable[[], object] = self._stored
        self._poll = (
            select.epoll()
        )  # not poll(): its object refuses a handler's wait on top of ours
        self._poll.register(eventfd, select.EPOLLIN)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # os is gone at exit
        for fd in getattr(self, "fds", ()):
            close(fd)

    def block(self, poll: select.epoll, timeout: float | None) -> Ready:
        """Sleep in ``poll``, which has the task's fds; at once back if it was woken before.

        That wake-up stays in the store: given back as a value, it would be lost with the frame if a
        signal handler raised before sleep() has it.

        A signal handler may wait on top of this, and a wait on top of ours leaves ``wake`` as it found
        it: one that is still to sleep is woken by a write.

        Context: Process context. May sleep.
        """
        found = self.wake
        try:
            self.wake = self._written  # before the look: see rule 2
            return [] if self.woken else poll.poll(timeout)
        finally:
            self.wake = found  # not done, because another handler raised here: slower, never lost

    def nap(self, timeout: float | None) -> Ready:
        """Sleep on nothing but the task's own fds; give those that are ready.

        Context: Process context. May sleep.
        """
        return self.block(self._poll, timeout)

    def sleep(self, timeout: float | None, idle: Idle | None) -> bool:
        """Block until woken, or ``timeout`` seconds later; None means no limit.

        Context: Process context. May sleep.
        """
        if idle is None and timeout is None:
            self.wake = self._written
            if not self.woken:
                os.eventfd_read(self.fds[0])  # blocking: one system call where poll needs two
            self.wake = self._stored
            self.woken.clear()
            return True
        ready = idle.sleep(self, timeout) if idle is not None else self.nap(timeout)
        return self._take(ready) or bool(ready)

    def _take(self, ready: Ready) -> bool:
        """Take the wake-ups that are known of; true if there was one."""
        woken = bool(self.woken)
        if woken:
            self.woken.clear()
        for fd, _ in ready:
            if fd == self.fds[0]:
                woken = True
                self._read_wakes()
        return woken

    def _read_wakes(self) -> None:
        os.eventfd_read(self.fds[0])


# repr() looks at the signals themselves and not at the eval breaker, without a system call
_run_signal_handlers = partial(repr, None)
_swap_wakeup_fd = partial(signal.set_wakeup_fd, warn_on_full_buffer=False)


class MainTask(ThreadTask):
    """The main thread, on top of which every Python signal handler runs.

    From enter_wait() to leave_wait() Python's wakeup fd is ours: what arrives there is a signal
    that arrived inside the wait. Whoever had the fd before gets the numbers too.
    """

    __slots__ = ("_foreign", "_wakeup")

    irq_signals: frozenset[int] = frozenset()
    """Signals that are an irqchip's interrupts: they end no sleep, their handler may."""

    def __init__(self) -> None:
        # non-blocking: a handler that waits, on top of a wait, may take the wake of the one below
        super().__init__("main", os.EFD_NONBLOCK)
        reader, self._wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.fds = (self.fds[0], reader)
        self._poll.register(reader, select.EPOLLIN)
        self._foreign = -1

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        super().__del__(close)
        if hasattr(self, "_wakeup"):
            close(self._wakeup)

    def enter_wait(self, entered: list[object]) -> None:
        """As in Task, and take the wakeup fd.

        Context: Process context.
        """
        if self.state != TASK_RUNNING:
            self._take_signals()  # those of the wait below this one, which it finds when we are done
        else:
            self.wake = self._stored  # nobody sleeps below: undo what block() could not
        super().enter_wait(entered)
        # swap and remember in one C call: an exception between the two would lose the old fd
        entered.extend(map(_swap_wakeup_fd, (self._wakeup,)))
        if entered[1] != self._wakeup:
            self._foreign = entered[1]  # type: ignore[assignment]

    def leave_wait(self, entered: list[object]) -> None:
        """As in Task, and give the wakeup fd back.

        Context: Process context.
        """
        if len(entered) > 1:
            signal.set_wakeup_fd(entered[1], warn_on_full_buffer=False)  # type: ignore[arg-type]
            if self._poll.poll(0):
                self._take_signals()
        super().leave_wait(entered)

    def forget_signals(self) -> None:
        """In a child that another thread forked during our wait: its signals are not the parent's.

        Context: Process context.
        """
        found = signal.set_wakeup_fd(-1)
        if found != self._wakeup:
            signal.set_wakeup_fd(found)

    def sleep(self, timeout: float | None, idle: Idle | None) -> bool:
        """As in ThreadTask; what a signal handler raises becomes a pending signal.

        Context: Process context. May sleep.
        """
        ready: Ready = []
        try:
            _run_signal_handlers()  # rule 5; what comes now is in the wakeup fd
            ready = idle.sleep(self, timeout) if idle is not None else self.nap(timeout)
        except BaseException as exc:  # noqa: BLE001 - a signal handler raised it; poll has nothing to
            self.pending.append(exc)
            ready = self._poll.poll(0)
        for fd, _ in ready:
            if fd == self.fds[1]:
                self._take_signals()
        return self._take(ready) or (idle is not None and bool(ready))

    def _read_wakes(self) -> None:
        try:
            super()._read_wakes()
        except BlockingIOError:
            pass  # a handler's wait on top of ours was faster

    def _take_signals(self) -> None:
        try:
            arrived = os.read(self.fds[1], 4096)
        except BlockingIOError:
            return
        if self._foreign != -1:
            try:
                os.write(self._foreign, arrived)  # somebody else's loop waits for these numbers
            except OSError:
                pass  # full: that loop wakes anyway; or closed since
        self.pending.extend(set(arrived) - self.irq_signals)


_schedulers: weakref.WeakSet[ThreadScheduler] = weakref.WeakSet()


@functools.cache
def _start_anew_in_children() -> None:
    def forked() -> None:
        for scheduler in tuple(_schedulers):
            scheduler.forked()

    os.register_at_fork(after_in_child=forked)


class ThreadScheduler:
    """Tasks are threads; see the module's rules."""

    idle: Idle | None = None
    """The inline irqchip, by set_idle(): a task that would sleep takes interrupts instead."""

    def __init__(self) -> None:
        if "t" in sys.abiflags:
            warnings.warn(
                "udriver needs a Python with the GIL: on this free-threaded build wake-ups can be lost; "
                "use one whose sys.abiflags has no t (docs/interleaving.md)",
                RuntimeWarning,
                stacklevel=2,
            )
        self._local = threading.local()
        self._main: MainTask | None = None
        # by thread; not a WeakSet, which cannot be looked through while another thread adds to it
        self._tasks: weakref.WeakValueDictionary[int, ThreadTask] = weakref.WeakValueDictionary()
        _schedulers.add(self)
        _start_anew_in_children()

    def forked(self) -> None:
        """In a child: its tasks must not share the parent's eventfds, each would eat the other's.

        Nor its pipe for signals, which is in place if the main thread sleeps and another forked.
        Nor may they stand in a queue: a token's wake-up would go to a thread that is not here.

        Context: Process context.
        """
        for task in tuple(self._tasks.values()):
            leaves = task.leaves if task is not getattr(self._local, "task", None) else None
            while leaves is not None:
                leave, leaves = leaves
                leave()
        if self._main is not None and self._main is not getattr(self._local, "task", None):
            self._main.forget_signals()
            self._main = None
        self._local = threading.local()
        self.idle = None

    def set_idle(self, idle: Idle) -> None:
        """Let who sleeps from now on sleep in ``idle``, and who sleeps already sleep there, too.

        Context: Process context.
        """
        self.idle = idle
        for ref in self._tasks.valuerefs():
            task = ref()
            # a task says that it sleeps before it looks for the idle: so we see it, or it sees ours
            if task is not None and task.state != TASK_RUNNING:
                task.wake()  # its wait looks at its completion and sleeps again

    def current(self) -> ThreadTask:
        """The calling thread's task, made on its first wait.

        Context: Any context.
        """
        try:
            task: ThreadTask = self._local.task
        except AttributeError:
            thread = threading.current_thread()
            main = thread is threading.main_thread()
            if main:
                task = self._main = MainTask()
            else:
                task = ThreadTask(thread.name)
            self._tasks[threading.get_ident()] = task  # before it can sleep: see set_idle()
            self._local.task = task
        return task

    wake_up_process = staticmethod(methodcaller("wake"))  # C from end to end: see rule 1
    signal_pending_state = staticmethod(signal_pending_state)

    def schedule_timeout(self, timeout: int) -> int:
        """Sleep (kernel/time/sleep_timeout.c): jiffies in, jiffies left out, never early.

        The timer runs out at the first tick that is ``timeout`` whole ones away, so 0 sleeps to
        the next tick. Only a wake-up, a signal that the task's state allows, or the time end it.

        Context: Process context. May sleep.
        """
        task = self.current()
        if timeout < 0:
            warnings.warn(f"schedule_timeout: wrong timeout value {timeout:x}", stacklevel=4)
            return 0
        task.nvcsw += 1
        if tracepoint.ring is not None:
            tracepoint.ring("sched_switch", task.comm, task.state)
        if timeout < MAX_SCHEDULE_TIMEOUT:
            left = self._sleep_until(task, _expiry(task, timeout))
        else:
            left, task.timer = MAX_SCHEDULE_TIMEOUT, None
            while not task.sleep(None, self.idle):
                if self.signal_pending_state(task.state, task):
                    break
        if tracepoint.ring is not None:
            tracepoint.ring("sched_waking", task.comm, left)
        return left

    def _sleep_until(self, task: ThreadTask, expires: int) -> int:
        while True:
            woken = task.sleep(_seconds_until(expires), self.idle)
            left = _jiffies_until(expires)
            if woken or not left or self.signal_pending_state(task.state, task):
                task.timer = (left, expires)
                return left


def _expiry(task: ThreadTask, timeout: int) -> int:
    if task.timer is not None and task.timer[0] == timeout:
        return task.timer[1]  # the same wait sleeps on: jiffies alone would round up once more
    return (-(-time.monotonic_ns() // NSEC_PER_JIFFY) + timeout) * NSEC_PER_JIFFY


def _seconds_until(expires: int) -> float:
    left = expires - time.monotonic_ns()
    return min(left / 1e9, EPOLL_MAX) if left > 0 else 0.0


def _jiffies_until(expires: int) -> int:
    """0 only when it is past."""
    left = expires - time.monotonic_ns()
    return (left // NSEC_PER_JIFFY or 1) if left > 0 else 0
