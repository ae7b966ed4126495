# SPDX-License-Identifier: MIT
"""Process context. ``realtime=``: four known steps against latency, when asked, and undone at close.

``switch interval``  how long a thread that wants the GIL lets another one keep it; Python's own is 5 ms.
``SCHED_FIFO``       the irqchip's thread runs before every thread that has no such priority.
``affinity``         it stays on one CPU, with what it has in that CPU's caches.
``cpu_dma_latency``  no CPU goes to an idle state that takes longer to leave (Documentation/power/
                     pm_qos_interface.rst); the kernel keeps the request while the file is open.

None is fatal: who may not take a step gets the others, and the record says which and why. The
thread is the chip's own. Where a chip has none (signal, inline), interrupts land on a thread that is the
caller's, and a caller that computes under SCHED_FIFO starves everybody else: that is his to decide.
"""

from __future__ import annotations

import functools
import os
import struct
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

__all__ = ["Realtime", "Recipe", "Step"]

DMA_LATENCY = "/dev/cpu_dma_latency"

Undo = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How far to go; None leaves a step out.

    ``switch_interval`` seconds; ``priority`` 1 to 99 (sched(7)), below the kernel's own interrupt
    threads at 50; ``cpu`` a number, -1 is the last that the thread may run on; ``dma_latency``
    microseconds.
    """

    switch_interval: float | None = 100e-6
    priority: int | None = 49
    cpu: int | None = -1
    dma_latency: int | None = 0


@dataclass(frozen=True, slots=True)
class Step:
    """Whether it was taken; ``what`` was set, or the reason why not."""

    name: str
    taken: bool
    what: str


class Realtime:
    """Steps that were taken, until stop(). ``steps`` is the record, in the order of the module."""

    def __init__(self, recipe: Recipe, thread: threading.Thread | None) -> None:
        _forget_in_children()
        tid = thread.native_id if thread is not None else None
        self._keys: list[tuple[str, int]] = []
        self.steps = (
            self._step("switch interval", recipe.switch_interval, _switch_interval, 0),
            self._step("SCHED_FIFO", recipe.priority, _fifo, tid),
            self._step("affinity", recipe.cpu, _affinity, tid),
            self._step("cpu_dma_latency", recipe.dma_latency, _dma_latency, 0),
        )

    def _step(
        self, name: str, value: float | None, take: Callable[..., tuple[str, Undo]], tid: int | None
    ) -> Step:
        if value is None:
            return Step(name, False, "not asked for")
        if tid is None:
            return Step(name, False, "this irqchip has no thread of its own")
        with _setup:
            key = (name, tid)
            held = _held.get(key)
            if held is None:
                try:
                    what, undo = take(value, tid)
                except OSError as exc:
                    return Step(name, False, f"{exc.strerror or exc}")
                held = _held[key] = _Held(what, undo)
            held.holders += 1
            self._keys.append(key)
            return Step(name, True, held.what)

    def stop(self) -> None:
        """Undo what no other port holds. May be repeated. The chip's thread must still be there."""
        with _setup:
            while self._keys:
                key = self._keys.pop()
                if key not in _held:
                    continue  # of before a fork
                held = _held[key]
                held.holders -= 1
                if not held.holders:
                    del _held[key]
                    held.undo()

    def __str__(self) -> str:
        return "\n".join(
            f"{step.name}: {'' if step.taken else 'not taken: '}{step.what}" for step in self.steps
        )


@dataclass(slots=True)
class _Held:
    """A step is one for the process, or for the thread: the first port takes it, the last undoes it."""

    what: str
    undo: Undo
    holders: int = 0


_held: dict[tuple[str, int], _Held] = {}
_setup = threading.RLock()


def _switch_interval(seconds: float, tid: int) -> tuple[str, Undo]:
    undo = partial(sys.setswitchinterval, sys.getswitchinterval())
    sys.setswitchinterval(seconds)
    return f"{seconds * 1e6:g} us", undo


def _fifo(priority: int, tid: int) -> tuple[str, Undo]:
    # not SCHED_RESET_ON_FORK: who has RLIMIT_RTPRIO only may set it and may not take it back
    found = os.sched_getscheduler(tid), os.sched_getparam(tid)
    os.sched_setscheduler(tid, os.SCHED_FIFO, os.sched_param(priority))
    return f"priority {priority}", partial(os.sched_setscheduler, tid, *found)


def _affinity(cpu: int, tid: int) -> tuple[str, Undo]:
    found = os.sched_getaffinity(tid)
    chosen = max(found) if cpu == -1 else cpu
    os.sched_setaffinity(tid, {chosen})
    return f"CPU {chosen}", partial(os.sched_setaffinity, tid, found)


def _dma_latency(microseconds: int, tid: int) -> tuple[str, Undo]:
    fd = os.open(DMA_LATENCY, os.O_WRONLY | os.O_CLOEXEC)
    os.write(fd, struct.pack("i", microseconds))
    return f"{microseconds} us", partial(os.close, fd)


@functools.cache
def _forget_in_children() -> None:
    os.register_at_fork(after_in_child=_forked)


def _forked() -> None:
    """The child has the interval and the file, but not the thread, which is its parent's."""
    for (_, tid), held in _held.items():
        if not tid:
            held.undo()
    _held.clear()
