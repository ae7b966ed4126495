# SPDX-License-Identifier: MIT
"""Mistakes, marked in the source where they are: ``# 1st`` is the report's first place, ``# 2nd`` its second."""

from __future__ import annotations

import inspect
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from udriver.kernel import sched
from udriver.kernel.completion import Completion
from udriver.kernel.irq import (
    IRQ_HANDLED,
    IrqReturn,
    free_irq,
    irq_alloc_desc,
    irq_free_desc,
    request_irq,
)
from udriver.kernel.threads import ThreadScheduler

WATCHDOG_S = 20.0  # reached only by a bug
TICK = sched.msecs_to_jiffies(1)
LONG = 20 * sched.HZ


class Case:
    """One rule's mistake, and the same code mended. The class's name begins with the rule's id."""

    def mistake(self) -> None:
        """Breaks the rule, once."""
        raise NotImplementedError

    def mended(self) -> None:
        """Breaks none."""
        raise NotImplementedError

    def afterwards(self) -> None:
        """When the mistake has been reported: what it left behind."""

    @classmethod
    def rule(cls) -> str:
        """The rule that it is about."""
        return cls.__name__.partition("_")[0]

    @classmethod
    def places(cls) -> list[int]:
        """The lines of the class that are marked, in the order of the report."""
        source, first = inspect.getsourcelines(cls)
        marks = {
            mark.strip(): first + offset
            for offset, line in enumerate(source)
            for mark in line.partition("  # ")[2].partition("  # ")[0].split(",")
        }
        return [marks["1st"], marks["2nd"]]


def spin(condition: Callable[[], object]) -> None:
    """Until it is true, bounded."""
    end = time.monotonic() + WATCHDOG_S
    while not condition():
        assert time.monotonic() < end
        os.sched_yield()


@contextmanager
def beside(
    function: Callable[..., Any], *args: Any, asleep: Completion | None = None
) -> Iterator[None]:
    """Another thread runs ``function`` meanwhile; it sleeps on ``asleep`` when the block begins."""
    thread = threading.Thread(
        target=function, args=args, name=getattr(function, "__name__", "other")
    )
    before = len(asleep.wait_queue) if asleep is not None else 0
    thread.start()
    if asleep is not None:
        spin(lambda: len(asleep.wait_queue) > before)
    try:
        yield
    finally:
        thread.join(WATCHDOG_S)
        assert not thread.is_alive()


def run(function: Callable[..., Any], *args: Any) -> None:
    """On another thread, to its end."""
    with beside(function, *args):
        pass


def signalled() -> None:
    """A signal is pending for this task."""
    sched.send_sig(signal.SIGUSR1, sched.active().current())


def handled(result: int) -> bool:
    """Whether there was a token, properly asked."""
    return result > 0


@contextmanager
def line(
    handler: Callable[[int, Any], IrqReturn], dev_id: Any = None, flags: int = 0
) -> Iterator[int]:
    """A software line with a handler."""
    irq = irq_alloc_desc("dev")
    request_irq(irq, handler, flags, "dev", dev_id)
    try:
        yield irq
    finally:
        free_irq(irq, dev_id)
        irq_free_desc(irq)


class Later(ThreadScheduler):
    """Whoever is woken does not run before ``gate`` is set: the cpu has other things to do."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def schedule_timeout(self, timeout: int) -> int:
        """As the default one's, and then later."""
        left = super().schedule_timeout(timeout)
        assert self.gate.wait(WATCHDOG_S)
        return left


class Device:
    """What a driver keeps of a device; its handler completes ``done``."""

    def __init__(self) -> None:
        self.done = Completion("done")

    def isr(self, irq: int, dev_id: Any) -> IrqReturn:
        """The event has come."""
        self.done.complete()
        return IRQ_HANDLED
