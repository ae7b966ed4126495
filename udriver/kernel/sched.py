# SPDX-License-Identifier: MIT
"""What a wait sleeps through: four functions, replaceable as a whole.

The kernel's own wait needs exactly these: ``current``, ``signal_pending_state()``,
``schedule_timeout()`` and ``wake_up_process()``. ``with using(scheduler)`` puts another
scheduler in their place, so that a test decides who runs when. The default one,
:class:`udriver.kernel.threads.ThreadScheduler`, sleeps real threads.

**Signals.** A task has a list of pending signals; a wait looks at it, after ``done`` and after
the time, as the kernel does. On Python's main thread they come from Python's signal handlers:

=============================  ============================  ==================================
what happened to the task      is, in kernel words           ends a sleep that is
=============================  ============================  ==================================
a handler ran and returned     a caught signal               interruptible
a handler raised (Ctrl-C)      a fatal signal                interruptible or killable
``send_sig(SIGKILL, task)``    a fatal signal                interruptible or killable
``send_sig(other, task)``      a caught signal               interruptible
an irqchip's signal            an interrupt                  none: the handler calls complete()
=============================  ============================  ==================================

The signal stays pending until the task *returns to user mode*: at the end of the outermost
``with syscall():`` block, or, where there is none, at the end of the wait itself. There an
exception that a handler raised is raised again. So Ctrl-C is never lost, an uninterruptible
wait finishes first, and a driver inside ``syscall()`` sees -ERESTARTSYS and can stop its
hardware before the exception goes on.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

__all__ = [
    "ERESTARTSYS",
    "HZ",
    "MAX_SCHEDULE_TIMEOUT",
    "TASK_FREEZABLE",
    "TASK_IDLE",
    "TASK_INTERRUPTIBLE",
    "TASK_KILLABLE",
    "TASK_NORMAL",
    "TASK_RUNNING",
    "TASK_UNINTERRUPTIBLE",
    "TASK_WAKEKILL",
    "Scheduler",
    "Task",
    "jiffies_to_msecs",
    "msecs_to_jiffies",
    "send_sig",
    "signal_pending_state",
    "syscall",
    "using",
]

HZ = 1000  # jiffies a second: CONFIG_HZ_1000, which is also the grain of epoll_wait(2)
LONG_MAX = 2**63 - 1
MAX_SCHEDULE_TIMEOUT = LONG_MAX  # include/linux/sched.h: sleep without a timer
ERESTARTSYS = 512  # include/linux/errno.h

# include/linux/sched.h, 6.12
TASK_RUNNING = 0x0000
TASK_INTERRUPTIBLE = 0x0001
TASK_UNINTERRUPTIBLE = 0x0002
TASK_WAKEKILL = 0x0100
TASK_NOLOAD = 0x0400
TASK_FREEZABLE = 0x2000
TASK_KILLABLE = TASK_WAKEKILL | TASK_UNINTERRUPTIBLE
TASK_IDLE = TASK_UNINTERRUPTIBLE | TASK_NOLOAD
TASK_NORMAL = TASK_INTERRUPTIBLE | TASK_UNINTERRUPTIBLE


def msecs_to_jiffies(ms: int) -> int:
    """Milliseconds in jiffies, rounded up, so that a short time never becomes 0.

    Context: Any context.
    """
    return -(-ms * HZ // 1000)


def jiffies_to_msecs(jiffies: int) -> int:
    """Jiffies in whole milliseconds.

    Context: Any context.
    """
    return jiffies * 1000 // HZ


Leaves = tuple[Callable[[], object], "Leaves | None"]


class Task:
    """What the kernel keeps of a sleeper in ``struct task_struct``, as far as a wait looks.

    ``comm`` is its name, ``state`` one of the TASK_* values, ``pending`` its signals (numbers,
    and the exceptions that handlers raised), ``nvcsw`` how often it slept of its own will,
    ``timer`` the scheduler's own note of the deadline of the wait that is under way, ``leaves``
    what takes the task off the queue of that wait, and of those it is on top of, innermost first.
    """

    __slots__ = (
        "__weakref__",
        "comm",
        "in_iowait",
        "leaves",
        "nvcsw",
        "pending",
        "state",
        "syscall_depth",
        "timer",
    )

    def __init__(self, comm: str) -> None:
        self.comm = comm
        self.state = TASK_RUNNING
        self.pending: list[int | BaseException] = []
        self.syscall_depth = 0
        self.timer: tuple[int, int] | None = None
        self.in_iowait = False
        self.nvcsw = 0
        self.leaves: Leaves | None = None

    def enter_wait(self, entered: list[object]) -> None:
        """A wait is about to sleep; remember in ``entered`` what leave_wait() puts back.

        A wait in a signal handler, on top of another wait of the task, starts with a clean slate:
        the signal that is being handled is not pending any more, and ends the wait below only.

        Context: Process context.
        """
        entered.append((self.state, self.timer, self.pending))
        if self.state != TASK_RUNNING:
            self.pending = []
        self.timer = None

    def leave_wait(self, entered: list[object]) -> None:
        """It is over; what it did not take of wake-ups and signals goes to the wait below.

        May be repeated, and has to be when a signal handler raised in the middle.

        Context: Process context.
        """
        if not entered:
            return
        found: tuple[int, tuple[int, int] | None, list[int | BaseException]] = entered[0]  # type: ignore[assignment]  # what enter_wait() noted
        self.state, self.timer, pending = found
        if self.state != TASK_RUNNING:
            if self.pending is not pending:
                pending.extend(self.pending)
                self.pending = pending
            active().wake_up_process(self)
        elif self.pending and not self.syscall_depth:  # a system call of its own: they are handled
            self.pending = [sig for sig in self.pending if isinstance(sig, BaseException)]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.comm}>"


class Scheduler(Protocol):
    """The seam: implement these four and a wait sleeps in your hands."""

    def current(self) -> Task:
        """The task that is running.

        Context: Any context.
        """
        ...

    def signal_pending_state(self, state: int, task: Task) -> bool:
        """Whether ``task`` has a signal pending that ends a sleep in ``state``.

        Context: Any context.
        """
        ...

    def schedule_timeout(self, timeout: int) -> int:
        """Sleep till woken, signalled, or ``timeout`` jiffies later; give the jiffies left.

        A task that was woken since it set its state does not sleep at all. May return early
        for no reason; 0 only when the time is up. MAX_SCHEDULE_TIMEOUT means no timer.

        Context: Process context. May sleep.
        """
        ...

    def wake_up_process(self, task: Task) -> object:
        """Let ``task`` run, or its next sleep return at once if it runs already.

        Context: Any context.
        """
        ...


class _Active:
    scheduler: Scheduler | None = None


_active = _Active()
_default: dict[str, Scheduler] = {}


def active() -> Scheduler:
    """The scheduler that waits sleep through now.

    Context: Any context.
    """
    scheduler = _active.scheduler
    if scheduler is None:
        # here and not at the top: the default one opens fds when first slept on, an import must not
        from udriver.kernel.threads import ThreadScheduler

        # threads that are the first together get the same one: a task's signals are kept in its own
        scheduler = _active.scheduler = _default.setdefault("threads", ThreadScheduler())
    return scheduler


@contextmanager
def using(scheduler: Scheduler) -> Iterator[Scheduler]:
    """Sleep through ``scheduler`` while the block runs, in all threads.

    A waiter that sleeps already is still woken by the scheduler it went to sleep in.

    Context: Process context.
    """
    outer, _active.scheduler = _active.scheduler, scheduler
    try:
        yield scheduler
    finally:
        _active.scheduler = outer


def signal_pending_state(state: int, task: Task) -> bool:
    """The kernel's rule (linux/sched/signal.h) on ``task.pending``, for any scheduler's use.

    Context: Any context.
    """
    if not state & (TASK_INTERRUPTIBLE | TASK_WAKEKILL) or not task.pending:
        return False
    return bool(state & TASK_INTERRUPTIBLE) or any(map(_fatal, task.pending))


def _fatal(sig: int | BaseException) -> bool:
    return isinstance(sig, BaseException) or sig == signal.SIGKILL


def send_sig(sig: int, task: Task) -> None:
    """Make ``sig`` pending for ``task`` and wake it, so that a sleep that allows it ends.

    Nothing runs in the task's name: the signal only ends its wait, with -ERESTARTSYS, or with
    InterruptedError where the wait is Completion.wait().

    Context: Any context.
    """
    task.pending.append(sig)
    active().wake_up_process(task)


@contextmanager
def syscall() -> Iterator[Task]:
    """Process context inside a system call: signals are delivered when the block ends.

    Context: Process context.
    """
    task = active().current()
    task.syscall_depth += 1
    try:
        yield task
    finally:
        task.syscall_depth -= 1
        resume_user_mode(task)


def resume_user_mode(task: Task) -> None:
    """Deliver what is pending, unless ``task`` is still inside a system call or a wait.

    Raises the first exception that a signal handler raised meanwhile.

    Context: Process context.
    """
    if task.syscall_depth or task.state != TASK_RUNNING or not task.pending:
        return
    pending = task.pending[:]
    del task.pending[: len(pending)]
    for sig in pending:
        if isinstance(sig, BaseException):
            raise sig
