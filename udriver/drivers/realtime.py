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

import errno
import functools
import os
import struct
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from udriver.drivers.fds import close_once

__all__ = ["Realtime", "Recipe", "Step"]

DMA_LATENCY = "/dev/cpu_dma_latency"
MOST_CPUS = 8192  # NR_CPUS of a kernel is at most that
INT_MAX = 2**31 - 1

Undo = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How far to go; None leaves a step out.

    ``switch_interval`` seconds, a microsecond to a minute; ``priority`` 1 to 99 (sched(7)), below the
    kernel's own interrupt threads at 50; ``cpu`` a number, -1 is the last that the thread may run on;
    ``dma_latency`` microseconds. Raises ValueError for what no system could do.
    """

    switch_interval: float | None = 100e-6
    priority: int | None = 49
    cpu: int | None = -1
    dma_latency: int | None = 0

    def __post_init__(self) -> None:
        _check("switch_interval", self.switch_interval, 1e-6, 60, "seconds")
        _check("priority", self.priority, 1, 99, "a priority of SCHED_FIFO")
        _check("cpu", self.cpu, -1, MOST_CPUS - 1, "a CPU's number, or -1 for the last")
        _check("dma_latency", self.dma_latency, 0, INT_MAX, "microseconds")


def _check(name: str, value: float | None, least: float, most: float, what: str) -> None:
    if value is not None and not least <= value <= most:  # not: a NaN is below and above nothing
        raise ValueError(f"{name} is {what}, {least} to {most}, or None, not {value}")


@dataclass(frozen=True, slots=True)
class Step:
    """Whether it was taken; ``what`` was set, or the reason why not."""

    name: str
    taken: bool
    what: str


class Realtime:
    """Steps that were taken, until stop(). ``steps`` is the record, in the order of the module.

    An exception, Ctrl-C included, undoes what was taken before it.
    """

    def __init__(self, recipe: Recipe, thread: threading.Thread | None) -> None:
        _forget_in_children()
        tid = thread.native_id if thread is not None else None
        try:
            self.steps = (
                self._step("switch interval", recipe.switch_interval, _switch_interval, 0),
                self._step("SCHED_FIFO", recipe.priority, _fifo, tid),
                self._step("affinity", recipe.cpu, _affinity, tid),
                self._step("cpu_dma_latency", recipe.dma_latency, _dma_latency, 0),
            )
        except BaseException:
            self.stop()
            raise

    def _step(
        self, name: str, value: float | None, take: Callable[..., str], tid: int | None
    ) -> Step:
        if value is None:
            return Step(name, False, "not asked for")
        if tid is None:
            return Step(name, False, "this irqchip has no thread of its own")
        with _setup:
            key = (name, tid)
            if key in _held:
                _held[key].holders.add(self)
                return Step(name, True, _held[key].what)
            held = _Held({self})
            _held[key] = held  # before it is taken: stop() undoes half a step, too
            try:
                held.what = take(value, tid, held.undo)
            except OSError as exc:
                self._leave(key)
                return Step(name, False, f"{exc.strerror or exc}")
            return Step(name, True, held.what)

    def stop(self) -> None:
        """Undo what no other port holds. May be repeated. The chip's thread must still be there.

        Each step is undone, whatever becomes of another; RuntimeWarning for what could not be.
        """
        failed: list[str] = []
        with _setup:
            for key in reversed(tuple(_held)):
                failed += self._leave(key)
        for why in failed:
            warnings.warn(why, RuntimeWarning, stacklevel=2)

    def _leave(self, key: tuple[str, int]) -> list[str]:
        held = _held[key]
        if self not in held.holders:
            return []
        failed = held.undo_all(key[0]) if len(held.holders) == 1 else []
        held.holders.discard(self)
        if not held.holders:
            del _held[key]
        return failed

    def __str__(self) -> str:
        return "\n".join(
            f"{step.name}: {'' if step.taken else 'not taken: '}{step.what}" for step in self.steps
        )


@dataclass(slots=True)
class _Held:
    """A step is one for the process, or for the thread: the first port takes it, the last undoes it.

    ``undo`` may be done twice, if Ctrl-C came in the middle of it.
    """

    holders: set[Realtime]
    what: str = ""
    undo: list[Undo] = field(default_factory=list)

    def undo_all(self, name: str) -> list[str]:
        failed = []
        for undo in self.undo:
            try:
                undo()
            except OSError as exc:
                if exc.errno != errno.ESRCH:  # the thread is gone, and with it what was set
                    failed.append(f"{name} is not undone: {exc.strerror or exc}")
        return failed


_held: dict[tuple[str, int], _Held] = {}
_setup = threading.RLock()


# steps: each says how to undo it before it does anything


def _switch_interval(seconds: float, tid: int, undo: list[Undo]) -> str:
    undo.append(partial(_put_interval_back, sys.getswitchinterval(), seconds))
    sys.setswitchinterval(seconds)
    return f"{seconds * 1e6:g} us"


def _put_interval_back(found: float, ours: float) -> None:
    """Unless somebody has set another since; what Python keeps are whole microseconds."""
    if abs(sys.getswitchinterval() - ours) < 1e-6:
        sys.setswitchinterval(found)


def _fifo(priority: int, tid: int, undo: list[Undo]) -> str:
    # not SCHED_RESET_ON_FORK: who has RLIMIT_RTPRIO only may set it and may not take it back
    found = os.sched_getscheduler(tid), os.sched_getparam(tid)
    undo.append(partial(os.sched_setscheduler, tid, *found))
    os.sched_setscheduler(tid, os.SCHED_FIFO, os.sched_param(priority))
    return f"priority {priority}"


def _affinity(cpu: int, tid: int, undo: list[Undo]) -> str:
    found = os.sched_getaffinity(tid)
    chosen = max(found) if cpu == -1 else cpu
    undo.append(partial(os.sched_setaffinity, tid, found))
    os.sched_setaffinity(tid, {chosen})
    return f"CPU {chosen}"


def _dma_latency(microseconds: int, tid: int, undo: list[Undo]) -> str:
    fds: list[int] = []
    undo.append(partial(close_once, fds))
    # open and remember in one C call: a signal handler may raise between any two
    fds.extend(map(os.open, (DMA_LATENCY,), (os.O_WRONLY | os.O_CLOEXEC,)))
    os.write(fds[0], struct.pack("i", microseconds))
    return f"{microseconds} us"


@functools.cache
def _forget_in_children() -> None:
    os.register_at_fork(after_in_child=_forked)


def _forked() -> None:
    """The child has the interval and the file, but not the thread, which is its parent's.

    Nor the thread that may have held the lock.
    """
    global _setup
    _setup = threading.RLock()
    for (name, tid), held in _held.items():
        if not tid:
            held.undo_all(name)
    _held.clear()
