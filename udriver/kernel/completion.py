# SPDX-License-Identifier: MIT
"""struct completion: the kernel's names, integers and rules, then a Pythonic face.

Process context sleeps until the event it waits for has happened; whoever makes it happen, from
any context, calls complete(). Not a lock: nobody owns it. Semantics of Linux 6.12
(kernel/sched/completion.c), in its order, so that the two files can be read side by side.

1. ``done`` counts tokens that nobody has taken yet; complete_all() makes it UINT_MAX, for good.
2. A token goes to whoever takes it first, not to the waiter that was woken for it.
3. When a waiter runs, ``done`` is looked at first, then the time, then signals.
4. Waiters are woken in the order in which they queued; one that finds its token gone queues
   again at the tail, with its old deadline.
5. At rest, somebody is queued only if ``done`` is 0.

There is no lock (see swait.py for why not). ``done`` is the length of a deque of tokens, and
each step that the kernel does under the lock is one call into C: post, dequeue and wake; take,
dequeue and remember. The kernel tests and queues under one lock; here a waiter queues, tests
again, and only then sleeps, so that no complete() can fall in between.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice, repeat
from math import ceil
from operator import call, length_hint
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self

from udriver.errors import UDriverError
from udriver.kernel import tracepoint
from udriver.kernel.context import might_sleep
from udriver.kernel.sched import (
    ERESTARTSYS,
    HZ,
    LONG_MAX,
    MAX_SCHEDULE_TIMEOUT,
    TASK_INTERRUPTIBLE,
    TASK_KILLABLE,
    TASK_NORMAL,
    TASK_UNINTERRUPTIBLE,
    TASK_WAKEKILL,
    Scheduler,
    Task,
    active,
    resume_user_mode,
)
from udriver.kernel.swait import Entry, SwaitQueueHead

if TYPE_CHECKING:
    import asyncio  # 40 ms to import, for those who await only

__all__ = [
    "COMPLETION_INITIALIZER",
    "COMPLETION_INITIALIZER_ONSTACK",
    "COMPLETION_INITIALIZER_ONSTACK_MAP",
    "DECLARE_COMPLETION",
    "DECLARE_COMPLETION_ONSTACK",
    "DECLARE_COMPLETION_ONSTACK_MAP",
    "UINT_MAX",
    "Completion",
    "complete",
    "complete_acquire",
    "complete_all",
    "complete_on_current_cpu",
    "complete_release",
    "completion_done",
    "init_completion",
    "init_completion_map",
    "kthread_complete_and_exit",
    "reinit_completion",
    "try_wait_for_completion",
    "wait_for_completion",
    "wait_for_completion_interruptible",
    "wait_for_completion_interruptible_timeout",
    "wait_for_completion_io",
    "wait_for_completion_io_timeout",
    "wait_for_completion_killable",
    "wait_for_completion_killable_timeout",
    "wait_for_completion_state",
    "wait_for_completion_timeout",
]

UINT_MAX = 2**32 - 1
MOST_HELD = 100
_ULONG = 2**64


class _Done:
    """The counter: ``post`` adds a token, ``take`` removes one or raises IndexError; both in C.

    ``append(None)`` is ``post()`` without the partial, which takes a sixth of complete(). ``some`` is
    true while there is a token to take.
    """

    __slots__ = ("append", "post", "some", "take", "value")

    def __init__(self) -> None:
        tokens: deque[None] = deque(maxlen=UINT_MAX)
        self.some: Any = tokens
        self.value: Callable[[], int] = tokens.__len__
        self.append: Callable[[None], object] = tokens.append
        self.post: Callable[[], object] = partial(tokens.append, None)
        self.take: Callable[[], object] = tokens.pop


class _DoneForGood(_Done):
    """UINT_MAX: never counted up, never consumed."""

    __slots__ = ()

    def __init__(self) -> None:
        self.some = True
        self.value = partial(int, UINT_MAX)
        self.append = self.post = self.take = bool  # a C call that does nothing


class _DoneByHand(_Done):
    """A count that was written, not posted: 2**32 tokens would not fit in memory."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return self.value() > 0

    def __init__(self, x: Completion, count: int) -> None:
        super().__init__()
        posted, written = self.some, repeat(None, count)
        self.some = self
        self.value = lambda: length_hint(written) + len(posted)
        # the written ones first; the second iterator is endless and raises IndexError when empty
        self.take = partial(next, chain(written, iter(posted.pop, self)))

        def append(token: None = None) -> None:
            posted.append(token)
            if self.value() >= UINT_MAX:
                x._done = _DONE_FOR_GOOD

        self.append = self.post = append


_DONE_FOR_GOOD = _DoneForGood()


class Completion:
    """``struct completion``: a counter of events and the tasks that wait for them.

    ``name`` is for messages. The methods are the Pythonic face, the functions of this module
    the kernel's; both work on the same object at the same time.
    """

    __slots__ = ("__weakref__", "_done", "name", "wait_queue")

    def __init__(self, name: str = "completion") -> None:
        self.name = name
        self._done = _Done()
        self.wait_queue = SwaitQueueHead()

    @property
    def done(self) -> int:
        """Tokens posted and not taken, 0..UINT_MAX; UINT_MAX means complete for good.

        Context: Any context.
        """
        return self._done.value()

    @done.setter
    def done(self, count: int) -> None:
        if not 0 <= count <= UINT_MAX:
            raise ValueError(f"done of {self.name} is an unsigned int, not {count}")
        self._done = _DONE_FOR_GOOD if count == UINT_MAX else _DoneByHand(self, count)

    def __repr__(self) -> str:
        waiters = [task.comm for task in self.wait_queue]
        return f"<Completion {self.name}: done={self.done} wait={waiters}>"

    # the Pythonic face

    def complete(self) -> None:
        """Post one token; complete() as a method.

        Context: Any context.
        """
        complete(self)

    def complete_all(self) -> None:
        """Let everybody through, now and later, until reinit().

        Context: Any context.
        """
        complete_all(self)

    def reinit(self) -> None:
        """Forget all tokens, to use the object for the next event.

        Context: Any context.
        """
        reinit_completion(self)

    def wait(self, timeout: float | None = None) -> Literal[True]:
        """Sleep until a token is there, and take it; at most ``timeout`` seconds.

        Signal handlers run meanwhile. One that returns does not end the wait (PEP 475); what
        one raises, KeyboardInterrupt for one, ends it at once and takes no token.
        Raises TimeoutError when the time is up, InterruptedError after send_sig(SIGKILL).

        Context: Process context. May sleep.
        """
        return self.wait_into([], timeout)

    def wait_into(self, taken: list[object], timeout: float | None = None) -> Literal[True]:
        """wait(), for whoever must give the token back: ``taken`` is not empty once it is ours.

        A signal handler may raise between the token and the caller's next line. A ``finally``
        that looks into ``taken`` knows what to do even then; a flag would not be set yet.

        Context: Process context. May sleep.
        """
        might_sleep("Completion.wait")
        left = _wait_for_common(self, _seconds_to_jiffies(timeout), TASK_KILLABLE, taken)
        try:
            _deliver(left)
        except BaseException:
            self.put_back(taken)
            raise
        if left > 0:
            return True
        if left == 0:
            raise TimeoutError(f"{self.name} was not completed within {timeout} s")
        raise InterruptedError(f"the wait for {self.name} was killed by a signal")

    def try_wait_into(self, taken: list[object]) -> bool:
        """try_wait_for_completion(), with ``taken`` as in wait_into(): not empty once it is ours.

        Context: Any context.
        """
        done = self._done
        if not done.some:
            return False
        try:
            # take and remember in one C call
            taken.extend(map(call, (done.take,)))
        except IndexError:
            return False  # somebody was faster
        return True

    def put_back(self, taken: list[object]) -> None:
        """Give back what wait_into() noted in ``taken``, and empty it. May be called twice.

        Context: Any context.
        """
        queue = self.wait_queue
        if taken:
            # forget and post in one C call, so that this may be repeated if an exception cut it
            any(map(call, (taken.clear, self._done.post)))
        if queue.task_list and self._done.some:
            _wake_head(queue)

    def __await__(self) -> Generator[Any, None, None]:
        """``await x``: wait in an asyncio task instead of a thread; same queue, same rules.

        Context: Process context. May sleep.
        """
        return _wait_in_loop(self).__await__()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """End of the scope that owns it: nobody may be waiting any more.

        Context: Process context.
        """
        if len(self.wait_queue):
            waiters = ", ".join(task.comm for task in self.wait_queue)
            raise UDriverError(f"{self.name} went out of scope while {waiters} still waits for it")


def _seconds_to_jiffies(timeout: float | None) -> int:
    if timeout is None:
        return MAX_SCHEDULE_TIMEOUT
    if not timeout >= 0:
        raise ValueError(f"timeout is a number of seconds >= 0, not {timeout}")
    return ceil(timeout * HZ) if timeout < 2**32 else MAX_SCHEDULE_TIMEOUT


# include/linux/completion.h


def COMPLETION_INITIALIZER(work: str) -> Completion:
    """A completion in its first state: done 0, nobody waiting.

    Context: Any context.
    """
    return Completion(work)


def COMPLETION_INITIALIZER_ONSTACK(work: str) -> Completion:
    """For an automatic variable; put it in a ``with`` block and its scope is checked.

    Context: Any context.
    """
    return Completion(work)


def COMPLETION_INITIALIZER_ONSTACK_MAP(work: str, lockdep_map: object) -> Completion:
    """As without MAP: the map has been ignored since cross-release lockdep went, in 4.15.

    Context: Any context.
    """
    return Completion(work)


# A macro that declares a variable of that name; in Python the assignment does it.
DECLARE_COMPLETION = COMPLETION_INITIALIZER
DECLARE_COMPLETION_ONSTACK = COMPLETION_INITIALIZER_ONSTACK
DECLARE_COMPLETION_ONSTACK_MAP = COMPLETION_INITIALIZER_ONSTACK_MAP


def complete_acquire(x: Completion) -> None:
    """Nothing, as in the kernel since 4.15.

    Context: Any context.
    """


def complete_release(x: Completion) -> None:
    """Nothing, as in the kernel since 4.15.

    Context: Any context.
    """


def init_completion(x: Completion) -> None:
    """Make ``x`` new, once, before anybody can see it. Waiters of a live one are orphaned.

    Context: Any context.
    """
    x.__init__(x.name)  # type: ignore[misc]  # that is what the kernel's does


def init_completion_map(x: Completion, lockdep_map: object) -> None:
    """As init_completion(): the map is ignored in 6.12.

    Context: Any context.
    """
    init_completion(x)


def reinit_completion(x: Completion) -> None:
    """``done = 0``, nothing else: nobody is woken and the queue stays. One plain store.

    Context: Any context.
    """
    x._done = _Done()


# kernel/sched/completion.c


def complete(x: Completion) -> None:
    """Post one token and wake the waiter at the head of the queue, if there is one.

    At UINT_MAX the count stays. Never sleeps; a signal handler may call it at any point.

    Context: Any context.
    """
    if tracepoint.ring is not None:  # first: the waiter may run before this function ends
        tracepoint.ring("complete", x.name, min(x.done + 1, UINT_MAX))
    queue = x.wait_queue
    if queue.task_list:
        try:
            any(map(call, (x._done.post, queue.swake_up_one)))
        except KeyError:
            pass  # the last waiter left meanwhile; the token is posted
    else:
        try:
            x._done.append(None)
        finally:  # a waiter may have queued between the test and the token
            if queue.task_list and x._done.some:
                try:
                    queue.swake_up_one()  # no function of ours: a signal handler may raise at its entry
                except KeyError:
                    pass


def _wake_head(queue: SwaitQueueHead) -> None:
    try:
        queue.swake_up_one()
    except KeyError:
        pass


def complete_on_current_cpu(x: Completion) -> None:
    """As complete(); the scheduler's hint that goes with it has no meaning for threads.

    Context: Any context.
    """
    complete(x)


def complete_all(x: Completion) -> None:
    """Make ``done`` UINT_MAX and wake everybody, head first. Stays so until reinit_completion().

    Context: Any context.
    """
    if tracepoint.ring is not None:
        tracepoint.ring("complete", x.name, UINT_MAX)
    x._done = _DONE_FOR_GOOD
    queue = x.wait_queue
    try:
        deque(islice(queue.wakes, len(queue.task_list)), 0)
    except KeyError:
        pass  # some left by themselves
    except BaseException:  # a signal handler's, before that call or after it
        try:
            deque(islice(queue.wakes, len(queue.task_list)), 0)
        except KeyError:
            pass
        raise


class _Waiter:
    """One wait: ``struct swait_queue`` and the locals of do_wait_for_common().

    In an object, not in locals, so that an exception at any line leaves them readable.
    """

    __slots__ = ("dequeue", "entry", "queue", "taken", "task", "timeout", "x")

    def __init__(
        self, x: Completion, task: Task, wake: Entry, timeout: int, taken: list[object]
    ) -> None:
        self.x = x
        self.queue = x.wait_queue
        self.task = task
        self.entry = wake
        self.dequeue: Entry = partial(self.queue.task_list.pop, wake, None)
        self.taken = taken
        self.timeout = timeout

    def enqueue(self) -> None:
        """At the tail; where it is, if it is queued already."""
        self.queue.task_list.setdefault(self.entry, self.task)

    def take(self) -> bool:
        """Take a token, leave the queue and remember it, in one C call; or nothing of it."""
        try:
            self.taken.extend(map(call, (self.x._done.take, self.dequeue)))
        except IndexError:
            return False
        return True

    def leave(self) -> bool:
        """Leave the queue without a token; true if a token has to be taken after all.

        Who is not on the queue any more was chosen by a complete(), and answers for its token.
        """
        return self.dequeue() is None and self.take()

    def abandon(self) -> None:
        """An exception ends the wait: give the token back, or pass the wake-up on."""
        if self.taken:
            self.x.put_back(self.taken)
        elif self.dequeue() is None and self.x._done.some:
            _wake_head(self.queue)

    def sleep(self, scheduler: Scheduler, state: int) -> int:
        """The loop of do_wait_for_common(), up to and with the token."""
        while True:
            if scheduler.signal_pending_state(state, self.task):
                return 1 if self.leave() else -ERESTARTSYS
            # the state first: a wake-up between the two must find something to undo
            self.task.state = state
            self.enqueue()
            if not self.x._done.some:
                self.timeout = scheduler.schedule_timeout(self.timeout)
            if self.take():
                return self.timeout or 1
            if self.timeout == 0:
                return 1 if self.leave() else 0


def _wait_for_common(
    x: Completion, timeout: int, state: int, taken: list[object] | None = None
) -> int:
    """The one algorithm. Jiffies left (at least 1), 0 when the time is up, or -ERESTARTSYS.

    ``taken`` is not empty any more from the moment the token is ours.
    """
    taken = [] if taken is None else taken
    if x._done.some:
        try:
            taken.extend(map(call, (x._done.take,)))
            return timeout or 1
        except IndexError:
            pass  # somebody was faster
        except BaseException:  # a signal handler's: the caller will not know that it has a token
            x.put_back(taken)
            raise
    return _sleep_on(x, timeout, state, taken)


def _sleep_on(x: Completion, timeout: int, state: int, taken: list[object]) -> int:
    scheduler = active()
    task = scheduler.current()
    # complete() wakes TASK_NORMAL sleepers only: another is dequeued and sleeps on, as in 6.12
    wake = partial(scheduler.wake_up_process, task) if state & TASK_NORMAL else partial(bool)
    waiter = _Waiter(x, task, wake, timeout, taken)
    entered: list[object] = []
    below = task.leaves
    try:
        task.leaves = waiter.dequeue, below
        task.enter_wait(entered)
        return _sleep_out(waiter, scheduler, state)
    except BaseException:
        # Not a function of ours: a second handler may raise at its entry, and a third in what answers
        # that. CPython looks for signals behind a call into C, never before it, so each call here
        # is made, being the first in its block, whatever is raised meanwhile.
        chosen = True
        try:
            if taken:
                try:
                    taken.clear()
                finally:
                    x._done.post()
            elif waiter.dequeue() is not None:
                chosen = False
        finally:
            if chosen and x.wait_queue.task_list and x._done.some:
                try:
                    x.wait_queue.swake_up_one()
                except KeyError:
                    pass
        raise
    finally:
        task.leaves = below
        try:
            task.leave_wait(entered)
        except BaseException:  # a signal handler's, before it was done; it may be called again
            task.leave_wait(entered)
            raise


def _sleep_out(waiter: _Waiter, scheduler: Scheduler, state: int) -> int:
    while True:
        try:
            return waiter.sleep(scheduler, state)
        except BaseException as exc:
            # raised between two sleeps; the scheduler keeps those raised in one
            if not _stays_pending(exc, state, waiter.task):
                raise
            if waiter.taken:
                return waiter.timeout or 1


def _stays_pending(exc: BaseException, state: int, task: Task) -> bool:
    """Whether ``exc`` is a signal handler's and the sleep one that no signal ends."""
    if state & (TASK_INTERRUPTIBLE | TASK_WAKEKILL):
        return False
    if not isinstance(exc, (Exception, KeyboardInterrupt, SystemExit)):
        return False  # a scheduler's own way to end a task
    if threading.current_thread() is not threading.main_thread() or len(task.pending) > MOST_HELD:
        return False  # no handler runs there, and none raises so often: it is the scheduler's error
    task.pending.append(exc)
    return True


async def _wait_in_loop(x: Completion) -> None:
    import asyncio

    might_sleep("Completion.__await__")
    loop = asyncio.get_running_loop()
    current = asyncio.current_task()
    task = Task(current.get_name() if current else "asyncio")
    while True:
        woken = loop.create_future()
        wake = partial(_wake_in_loop, loop, woken, x.wait_queue)
        waiter = _Waiter(x, task, wake, MAX_SCHEDULE_TIMEOUT, [])
        try:
            waiter.enqueue()
            if waiter.take():
                return
            await woken
            if waiter.take():
                return
        except BaseException:
            waiter.abandon()
            raise


def _wake_in_loop(
    loop: asyncio.AbstractEventLoop, woken: asyncio.Future[None], queue: SwaitQueueHead
) -> None:
    try:
        loop.call_soon_threadsafe(_set, woken)
    except RuntimeError:  # closed, with the waiter still queued: the wake-up is the next one's
        _wake_head(queue)


def _set(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)


def _deliver(result: int) -> int:
    """End of a wait: signals are delivered here if it is a system call of its own."""
    task = active().current()
    if task.pending:
        resume_user_mode(task)
    return result


def _wait_timeout(x: Completion, timeout: int, state: int) -> int:
    """A timed wait, with C's conversion of ``unsigned long`` to ``long`` on the way in."""
    timeout %= _ULONG
    return _deliver(
        _wait_for_common(x, timeout if timeout <= LONG_MAX else timeout - _ULONG, state)
    )


def _wait_untimed(x: Completion, state: int) -> int:
    result = _wait_for_common(x, MAX_SCHEDULE_TIMEOUT, state)
    return _deliver(result if result == -ERESTARTSYS else 0)


def wait_for_completion(x: Completion) -> None:
    """Sleep until a token is there and take it. Nothing else ends it, Ctrl-C comes afterwards.

    Context: Process context. May sleep.
    """
    might_sleep("wait_for_completion")
    _wait_untimed(x, TASK_UNINTERRUPTIBLE)


def wait_for_completion_timeout(x: Completion, timeout: int) -> int:
    """At most ``timeout`` jiffies. 0 when the time is up, else the jiffies left, at least 1.

    Context: Process context. May sleep.
    """
    might_sleep("wait_for_completion_timeout")
    return _wait_timeout(x, timeout, TASK_UNINTERRUPTIBLE) % _ULONG  # returns unsigned long


def wait_for_completion_io(x: Completion) -> None:
    """wait_for_completion(), accounted as waiting for I/O.

    Context: Process context. May sleep.
    """
    might_sleep("wait_for_completion_io")
    with _iowait():
        _wait_untimed(x, TASK_UNINTERRUPTIBLE)


def wait_for_completion_io_timeout(x: Completion, timeout: int) -> int:
    """wait_for_completion_timeout(), accounted as waiting for I/O.

    Context: Process context. May sleep.
    """
    might_sleep("wait_for_completion_io_timeout")
    with _iowait():
        return _wait_timeout(x, timeout, TASK_UNINTERRUPTIBLE) % _ULONG


def wait_for_completion_interruptible(x: Completion) -> int:
    """0 with a token, -ERESTARTSYS without one because of a signal.

    Context: Process context. May sleep.
    """
    might_sleep("wait_for_completion_interruptible")
    return _wait_untimed(x, TASK_INTERRUPTIBLE)


def wait_for_completion_interruptible_timeout(x: Completion, timeout: int) -> int:
    """At least 1 with a token, 0 when the time is up, -ERESTARTSYS because of a signal.

    Three meanings in one number: never test it for truth.

    Context: Process context. May sleep.
    """
    might_sleep("wait_for_completion_interruptible_timeout")
    return _wait_timeout(x, timeout, TASK_INTERRUPTIBLE)


def wait_for_completion_killable(x: Completion) -> int:
    """0 with a token, -ERESTARTSYS because of a fatal signal; others do not end it.

    Context: Process context. May sleep.
    """
    might_sleep("wait_for_completion_killable")
    return _wait_untimed(x, TASK_KILLABLE)


def wait_for_completion_state(x: Completion, state: int) -> int:
    """In the caller's task state: 0 with a token, -ERESTARTSYS if that state allows it.

    Context: Process context. May sleep.
    """
    might_sleep("wait_for_completion_state")
    return _wait_untimed(x, state)


def wait_for_completion_killable_timeout(x: Completion, timeout: int) -> int:
    """At least 1 with a token, 0 when the time is up, -ERESTARTSYS because of a fatal signal.

    Context: Process context. May sleep.
    """
    might_sleep("wait_for_completion_killable_timeout")
    return _wait_timeout(x, timeout, TASK_KILLABLE)


@contextmanager
def _iowait() -> Iterator[None]:
    task = active().current()
    outer, task.in_iowait = task.in_iowait, True
    try:
        yield
    finally:
        task.in_iowait = outer


def try_wait_for_completion(x: Completion) -> bool:
    """Take a token if there is one, without sleeping; false, and nothing taken, if not.

    Context: Any context.
    """
    done = x._done
    if not done.some:
        return False
    try:
        done.take()
    except IndexError:
        return False
    return True


def completion_done(x: Completion) -> bool:
    """Whether a token is there, or complete_all() was called. Says nothing about waiters.

    Context: Any context.
    """
    return bool(x._done.some)


def kthread_complete_and_exit(x: Completion | None, code: int) -> NoReturn:
    """Post a token, if ``x`` is given, and end this thread (kernel/kthread.c).

    Context: Process context.
    """
    if x is not None:
        complete(x)
    raise SystemExit(code)
