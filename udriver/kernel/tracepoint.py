# SPDX-License-Identifier: MIT
"""The one list of events, and the ring buffer they go to.

An event is a name, the object it is about and a few small values; the kernel's names where
the kernel has the event (include/trace/events/irq.h, sched.h). Off is one false test at the
call site, ``if tracepoint.ring is not None``, so that nothing is even put together.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from udriver.kernel.context import hardirq_name

__all__ = ["EVENTS", "Event", "recording"]

EVENTS = {
    "irq_handler_entry": "a handler starts on this line",
    "irq_handler_exit": "the handler returned; values: its irqreturn",
    "kfifo_in": "bytes went from the tty into the kfifo; values: how many, how many are in it",
    "complete": "a token was posted; values: done after it",
    "sched_switch": "a task goes to sleep; values: its state",
    "sched_waking": "a task runs again; values: jiffies it had left",
    "kfifo_out": "a reader took bytes out of the kfifo; values: how many",
    "tty_write": "bytes were handed to the tty; values: how many",
    "modem_edge": "a modem line changed; values: rising or falling, its number, ns it may be late",
    "line_error": "a byte came broken, or none did; values: what, where in the stream",
    "hangup": "the device is gone",
}


class Event(NamedTuple):
    """One event: CLOCK_MONOTONIC nanoseconds, what, about whom, on which thread, where."""

    timestamp_ns: int
    name: str
    subject: str
    values: tuple[object, ...]
    thread: str
    context: str


class Ring:
    """The last ``size`` events; appending is one C call, so any context may trace."""

    def __init__(self, size: int) -> None:
        self.events: deque[Event] = deque(maxlen=size)

    def __call__(self, name: str, subject: str, *values: object) -> None:
        """Record one event.

        Context: Any context.
        """
        self.events.append(
            Event(
                time.monotonic_ns(),
                name,
                subject,
                values,
                threading.current_thread().name,
                hardirq_name() or "process",
            )
        )


ring: Ring | None = None


@contextmanager
def recording(size: int = 4096) -> Iterator[deque[Event]]:
    """Record events while the block runs and give the deque they go to, newest last.

    Context: Process context.
    """
    global ring
    outer, ring = ring, Ring(size)
    try:
        yield ring.events
    finally:
        ring = outer
