# SPDX-License-Identifier: MIT
"""udriver.kernel under test: kfifos, and functions with no state of their own."""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Callable
from typing import cast

from tests.bytecode.ours import OnCompletion, program
from tests.bytecode.program import Program
from udriver.kernel import annotation, context, sched, tracepoint
from udriver.kernel.completion import complete
from udriver.kernel.kfifo import Kfifo
from udriver.kernel.threads import Idle, ThreadScheduler

__all__ = ["programs"]


class OnKfifo(OnCompletion):
    """The handler is the producer: a byte, and a token for it. act() is the consumer, or nobody."""

    group = "kfifo"

    def __init__(self) -> None:
        super().__init__()
        self.fifo = Kfifo(8)
        self.put: list[int] = []
        self.got: list[int] = []
        self.producing = False
        self.fifo.in_bytes(b"abcde")
        self.put += b"abcde"
        self.got += self.fifo.out_bytes(3)

    def complete(self) -> None:
        if not self.producing:  # one producer at a time: a handler in a handler is a second
            self.producing = True
            self.put += b"z"[: self.fifo.in_bytes(b"z")]
            self.producing = False
        super().complete()

    def check(self) -> str:
        rest = list(self.fifo.peek(8))
        if self.put != self.got + rest:
            return f"W put {self.put}, got {self.got}, left {rest}"
        return super().check()


class OnKfifoIn(OnKfifo):
    """act() is the producer, the handler the consumer."""

    def __init__(self) -> None:
        super().__init__()
        self.producing = True

    consuming = False

    def op(self, name: str) -> None:
        if name == "try" and not self.consuming:  # one consumer at a time
            self.consuming = True
            self.got += self.fifo.out_bytes(1)
            self.consuming = False
        super().op(name)


def _consume(self: OnKfifo) -> None:
    self.got += self.fifo.out_bytes(2)
    self.fifo.find(0x7A, 8)
    len(self.fifo)
    self.fifo.peek(8)
    self.got += self.fifo.out_bytes(8)


def _produce(self: OnKfifo) -> None:
    self.put += b"vwxyz"[: self.fifo.in_bytes(b"vwxyz")]


def _dma(self: OnKfifo) -> None:
    for segment in self.fifo.dma_in_prepare()[:1]:
        segment[:2] = b"uv"
        self.fifo.dma_in_finish(2)
        self.put += b"uv"


def _new_kfifo(self: OnKfifo) -> None:
    other = Kfifo(4)
    assert other.size == other.avail == 4


class Plain(OnCompletion):
    """Functions with no state of ours: x must come through."""

    group = "other"


def _contexts(self: OnCompletion) -> None:
    assert not context.in_hardirq()
    context.might_sleep("this")
    with context.hardirq("isr"):
        assert context.hardirq_name() == "isr"
    context.hardirq_exit(context.hardirq_enter("isr"))
    assert context.hardirq_name() is None


def _jiffies(self: OnCompletion) -> None:
    assert sched.jiffies_to_msecs(sched.msecs_to_jiffies(7)) == 7


def _syscall(self: OnCompletion) -> None:
    with sched.syscall() as task:
        sched.send_sig(signal.SIGUSR1, task)
        assert sched.signal_pending_state(sched.TASK_INTERRUPTIBLE, task)
    sched.resume_user_mode(task)
    assert not task.pending


def _using(self: OnCompletion) -> None:
    with sched.using(sched.active()):
        sched.active().current()


def _schedule_timeout(self: OnCompletion) -> None:
    assert sched.active().schedule_timeout(0) == 0


def _forked(self: OnCompletion) -> None:
    scheduler = ThreadScheduler()
    scheduler.current()
    scheduler.forked()
    scheduler.current()
    scheduler._local = threading.local()  # as in a child that another thread forked
    scheduler.forked()


def _set_idle(self: OnCompletion) -> None:
    scheduler = ThreadScheduler()
    sleeper = scheduler.current()
    sleeper.state = sched.TASK_UNINTERRUPTIBLE
    scheduler.set_idle(cast("Idle", self))  # nobody of this scheduler comes to sleep in it
    sleeper.state = sched.TASK_RUNNING
    assert sleeper.woken


def _queue(self: OnCompletion) -> None:
    list(self.x.wait_queue)
    len(self.x.wait_queue)


def _recorded(self: OnCompletion) -> None:
    with tracepoint.recording() as events:
        self.posted.append(1)
        complete(self.x)
    assert any(event.name == "complete" for event in events)


def _annotated(self: OnCompletion) -> None:
    annotation.completion_set_kind(self.x, "counted")
    annotation.completion_shares(self.x, self)
    annotation.lock_set_class(self, "self")
    with annotation.operation(self.x):
        pass


@functools.cache
def programs() -> list[type[Program]]:
    """All of them."""
    plain: dict[str, Callable[[OnCompletion], object]] = {
        "in_hardirq, hardirq, might_sleep": _contexts,
        "msecs_to_jiffies, jiffies_to_msecs": _jiffies,
        "syscall, send_sig, resume_user_mode": _syscall,
        "using, active": _using,
        "schedule_timeout": _schedule_timeout,
        "ThreadScheduler.forked": _forked,
        "ThreadScheduler.set_idle": _set_idle,
        "SwaitQueueHead.__iter__": _queue,
        "recording": _recorded,
        "annotations": _annotated,
    }
    return [
        program(OnKfifo, "kfifo: out_bytes, find, peek", cast("Callable[..., object]", _consume)),
        program(OnKfifoIn, "kfifo: in_bytes", cast("Callable[..., object]", _produce)),
        program(OnKfifoIn, "kfifo: dma_in_prepare, dma_in_finish", _dma),
        program(OnKfifo, "kfifo: new, size, avail", _new_kfifo),
        *(program(Plain, name, act) for name, act in plain.items()),
    ]
