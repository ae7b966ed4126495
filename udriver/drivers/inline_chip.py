# SPDX-License-Identifier: MIT
"""Enters hardirq context. Interrupts are taken by whoever sleeps in a wait: an idle CPU."""

from __future__ import annotations

import select
import weakref
from collections.abc import Container

from udriver.drivers.fd_irqchip import EpollChip, epoll_set
from udriver.errors import UDriverError
from udriver.kernel import sched
from udriver.kernel.threads import Ready, ThreadScheduler, ThreadTask

__all__ = ["InlineChip"]

AT_ONCE = 32  # lines that resample() raises; epoll makes room for so many events, 1023 by default


class _Seat:
    """The leader's, from the first line's beginning to the last one's end."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        # of one item: setdefault() takes the seat and says whose it is
        self.leader: dict[int, ThreadTask] = {}
        self.followers: dict[ThreadTask, None] = {}
        self.over = False
        self._sitter: weakref.ref[ThreadTask] | None = None
        self._fds: tuple[int, ...] = ()

    def sit(self, task: ThreadTask, sources: Container[int]) -> None:
        """Let the task's own fds end the sleep, and those of the one before no more."""
        if self._sitter is not None and self._sitter() is task:
            return
        self._sitter = None  # first: a handler may raise, and then nobody's fds are known to be in
        for fd in self._fds:
            if fd not in sources:
                try:
                    epoll_set(self.epoll, fd, None)
                except OSError:
                    pass  # closed with its thread, and so not in the epoll any more
        self._fds = task.fds
        for fd in task.fds:
            epoll_set(self.epoll, fd, select.EPOLLIN)
        self._sitter = weakref.ref(task)

    def leave(self, task: ThreadTask, nested: bool) -> None:
        """``task`` goes: wake another to lead, if nobody does. May be repeated.

        A follower, too: it may have been woken to lead, and have its token since, and go for good.
        ``nested``: its wait was on top of one of its own that still leads.
        """
        self.followers.pop(task, None)
        if not nested and self.leader.get(0) is task:
            self.leader.pop(0, None)
        if self.leader:
            return
        if self.over:
            self.epoll.close()
        for follower in tuple(self.followers):
            follower.wake()
            return

    def end(self) -> None:
        """Nobody leads any more. The epoll is closed by the last who sleeps in it.

        Not waited for: that may be the wait below the very handler that closes the port.
        """
        self.over = True
        leader = self.leader.get(0)
        if leader is None:
            self.epoll.close()
        else:
            leader.wake()  # it looks at its completion once more, and then sleeps elsewhere


class InlineChip(EpollChip):
    """Interrupts are taken by a task that sleeps in a wait: it leads, other sleepers follow.

    The leader sleeps in the chip's epoll together with its own fds; when it leaves, it wakes one
    follower to lead. Which task leads makes no difference to who is let through by a completion.
    """

    name = "inline"
    looks = True

    def __init__(self) -> None:
        super().__init__()
        self._seat: _Seat | None = None

    def _start(self) -> None:
        scheduler = sched.active()
        if not isinstance(scheduler, ThreadScheduler):
            raise UDriverError(
                f"inline interrupts are taken by sleeping threads, and {scheduler!r} has none; "
                "use the select irqchip"
            )
        self._seat = _Seat()
        self._epoll = self._seat.epoll
        self._scheduler = scheduler
        try:
            scheduler.set_idle(self)
        except BaseException:
            self._stop()
            raise

    def _stop(self) -> None:
        self._scheduler.idle = None
        if self._seat is not None:
            self._seat.end()
            self._seat = None

    def resample(self, irq: int) -> None:
        """Take what is raised already: a CPU that still runs takes an interrupt, idle or not.

        The device is often as fast as we are, and then nobody has to sleep at all.
        """
        self._raise(self._epoll.poll(0, AT_ONCE))

    def sleep(self, task: ThreadTask, timeout: float | None) -> Ready:
        """Sleep as the leader if there is none, else as a follower."""
        seat = self._seat
        if seat is None:
            return task.nap(timeout)
        nested = seat.leader.get(0) is task
        seat.followers[task] = None  # before the try, so that a leader that leaves sees us
        try:
            try:
                # a handler's wait, on top of the leader's, leads too: that one takes none meanwhile
                if seat.leader.setdefault(0, task) is task and not seat.over:
                    return self._lead(seat, task, timeout)
                return task.nap(timeout)
            finally:
                seat.leave(task, nested)
        except BaseException:
            seat.leave(task, nested)  # if a signal handler raised before it was done
            raise

    def _lead(self, seat: _Seat, task: ThreadTask, timeout: float | None) -> Ready:
        seat.followers.pop(task, None)
        seat.sit(task, self._by_fd)
        ready = task.block(seat.epoll, timeout)
        self._raise(ready)  # the task's own fds are no source's
        return ready
