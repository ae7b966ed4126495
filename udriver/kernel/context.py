# SPDX-License-Identifier: MIT
"""Which context a line of code runs in: hardirq or process context.

A context belongs to a thread, and nests as it does in the kernel: a signal can interrupt a
handler, and finishes before the handler goes on. Saving the outer value in the frame that
enters, instead of in a stack of our own, makes that nesting right at every bytecode.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from udriver.errors import ContextError

__all__ = ["hardirq", "hardirq_enter", "hardirq_exit", "hardirq_name", "in_hardirq", "might_sleep"]


class _Context(threading.local):
    handler: str | None = None  # a class attribute: the value a thread has that never set one


CONTEXT = _Context()


def in_hardirq() -> bool:
    """Whether this thread is running an interrupt handler (``in_hardirq()``, linux/preempt.h).

    Context: Any context.
    """
    return CONTEXT.handler is not None


def hardirq_name() -> str | None:
    """The handler this thread is running, as ``"isr of ttyUSB0"``, or None.

    Context: Any context.
    """
    return CONTEXT.handler


def hardirq_enter(handler: str) -> str | None:
    """Enter hardirq context as ``handler``; give what hardirq_exit() wants back.

    Context: Any context.
    """
    outer = CONTEXT.handler
    CONTEXT.handler = handler
    return outer


def hardirq_exit(outer: str | None) -> None:
    """Leave hardirq context for the one that hardirq_enter() found.

    The IRQ core stores ``CONTEXT.handler`` itself: a signal handler may raise at the entry of any
    Python function, and this one must not be skipped.

    Context: Hardirq context.
    """
    CONTEXT.handler = outer


@contextmanager
def hardirq(handler: str) -> Iterator[None]:
    """Run the block as the interrupt handler ``handler``: for tests and for handlers of one's own.

    Context: Any context.
    """
    outer = hardirq_enter(handler)
    try:
        yield
    finally:
        hardirq_exit(outer)


def might_sleep(function: str) -> None:
    """Refuse to go on in hardirq context (``might_sleep()``, linux/kernel.h).

    Checked even where the call would not sleep this time, so that the mistake shows at once
    and not only when the timing is bad. Raises ContextError, naming the handler.

    Context: Any context.
    """
    handler = CONTEXT.handler
    if handler is not None:
        raise ContextError(
            f"sleeping function called from hardirq context: {function}() in {handler}; "
            "complete() from the handler and wait in process context, or use a threaded handler"
        )
