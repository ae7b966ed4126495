# SPDX-License-Identifier: MIT
"""Waits that sleep and end wrongly: who wins, who keeps his place, what is left."""

from __future__ import annotations

from tests.oracle.mistake import wake_head, wrong
from udriver.kernel import completion as kernel
from udriver.kernel.sched import (
    ERESTARTSYS,
    TASK_INTERRUPTIBLE,
    TASK_UNINTERRUPTIBLE,
    TASK_WAKEKILL,
    Scheduler,
)


class Waiter(kernel._Waiter):
    """The right algorithm, cut into the pieces that the wrong ones replace."""

    def sleep(self, scheduler: Scheduler, state: int) -> int:
        self.full = self.timeout
        while True:
            if scheduler.signal_pending_state(state, self.task):
                return self.signalled()
            self.task.state = state
            self.line_up()
            if not self.x._done.some:
                self.nap(scheduler)
            result = self.awake(scheduler, state)
            if result is not None:
                return result

    def line_up(self) -> None:
        """Before it sleeps."""
        self.enqueue()

    def nap(self, scheduler: Scheduler) -> None:
        """Sleep the rest of the timeout."""
        self.timeout = scheduler.schedule_timeout(self.timeout)

    def awake(self, scheduler: Scheduler, state: int) -> int | None:
        """What it returns, or None to go on."""
        if self.take():
            return self.left()
        return self.late() if self.timeout == 0 else None

    def left(self) -> int:
        """Its result with a token."""
        return self.timeout or 1

    def late(self) -> int:
        """Its result without one, when the time is up."""
        self.dequeue()
        return 0

    def signalled(self) -> int:
        """Its result when a signal ends it."""
        self.dequeue()
        return -ERESTARTSYS


@wrong("time beats the token", "_Waiter")
class _TimeFirst(Waiter):
    def awake(self, scheduler: Scheduler, state: int) -> int | None:
        return self.late() if self.timeout == 0 else super().awake(scheduler, state)


@wrong("a signal beats the token", "_Waiter")
class _SignalFirst(Waiter):
    def awake(self, scheduler: Scheduler, state: int) -> int | None:
        if scheduler.signal_pending_state(state, self.task):
            return self.signalled()
        return super().awake(scheduler, state)


@wrong("a signal beats the time", "_Waiter")
class _SignalThenTime(Waiter):
    def awake(self, scheduler: Scheduler, state: int) -> int | None:
        if not self.x.done and scheduler.signal_pending_state(state, self.task):
            return self.signalled()
        return super().awake(scheduler, state)


@wrong("the token is lost when the time is up", "_Waiter")
class _Lost(Waiter):
    def awake(self, scheduler: Scheduler, state: int) -> int | None:
        result = super().awake(scheduler, state)
        return 0 if self.timeout == 0 else result


@wrong("a timed wait returns what is left, 0 too", "_Waiter")
class _NotClamped(Waiter):
    def left(self) -> int:
        return self.timeout


@wrong("success after a sleep returns 1", "_Waiter")
class _JustTrue(Waiter):
    def left(self) -> int:
        return 1


@wrong("success after a sleep returns the whole timeout", "_Waiter")
class _Whole(Waiter):
    def left(self) -> int:
        return self.full or 1


@wrong("a token that is gone costs the deadline: the timeout starts again", "_Waiter")
class _StartsAgain(Waiter):
    def nap(self, scheduler: Scheduler) -> None:
        self.timeout = self.full
        super().nap(scheduler)


@wrong("who finds the token gone queues at the head", "_Waiter")
class _AtTheHead(Waiter):
    again = False

    def line_up(self) -> None:
        self.enqueue()
        if self.again:
            self.x.wait_queue.task_list.move_to_end(self.entry, last=False)
        self.again = True


@wrong("every wake-up costs the place in the queue", "_Waiter")
class _LosesPlace(Waiter):
    def line_up(self) -> None:
        self.dequeue()
        self.enqueue()


@wrong("a wake-up without a token ends the wait", "_Waiter")
class _Believes(Waiter):
    def awake(self, scheduler: Scheduler, state: int) -> int | None:
        result = super().awake(scheduler, state)
        return self.left() if result is None else result


@wrong("who was chosen and finds no token gives up", "_Waiter")
class _GivesUp(Waiter):
    def awake(self, scheduler: Scheduler, state: int) -> int | None:
        result = super().awake(scheduler, state)
        if result is None and self.entry not in self.x.wait_queue.task_list:
            return 0
        return result


@wrong("who is late passes the wake-up on", "_Waiter")
class _PassesOn(Waiter):
    def late(self) -> int:
        self.dequeue()
        wake_head(self.x)
        return 0


@wrong("who is late stays on the queue", "_Waiter")
class _Stays(Waiter):
    def late(self) -> int:
        return 0


@wrong("who is signalled stays on the queue", "_Waiter")
class _StaysSignalled(Waiter):
    def signalled(self) -> int:
        return -ERESTARTSYS


@wrong("a signal is noticed only before the first sleep", "_Waiter")
class _NoticesOnce(Waiter):
    def awake(self, scheduler: Scheduler, state: int) -> int | None:
        while (result := super().awake(scheduler, state)) is None:
            self.task.state = state & ~(TASK_INTERRUPTIBLE | TASK_WAKEKILL) or TASK_UNINTERRUPTIBLE
            self.line_up()
            self.nap(scheduler)
        return result


@wrong("the handled signal is not pending any more after success", "_Waiter")
class _EatsSignal(Waiter):
    def left(self) -> int:
        self.task.pending.clear()
        return super().left()
