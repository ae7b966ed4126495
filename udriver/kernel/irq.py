# SPDX-License-Identifier: MIT
"""Interrupt lines: who asked for them, who runs when one is raised, and the counts.

1. A handler never waits, and never runs twice at the same time: an interrupt that arrives while
   its line is busy or disabled leaves one pending bit and is replayed once.
2. A handler finds its work by state, not by count, since interrupts coalesce.
3. What a handler raises is reported and counted; the other handlers of the line still run.
4. What a *signal* handler raises on top of an interrupt handler (Ctrl-C) waits until the
   interrupt is over; the line is then run once more, because the handler was cut short.
5. free_irq() returns when no handler of that action runs or ever will again.

An irqchip calls generic_handle_irq() when its hardware says so. Names and integers of
linux/interrupt.h and kernel/irq, 6.12.
"""

from __future__ import annotations

import itertools
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntFlag
from typing import Any, Protocol

from udriver.errors import ContextError
from udriver.kernel import tracepoint
from udriver.kernel.completion import Completion, complete, wait_for_completion
from udriver.kernel.context import hardirq_enter, hardirq_exit, might_sleep

__all__ = [
    "IRQF_NO_AUTOEN",
    "IRQF_ONESHOT",
    "IRQF_SHARED",
    "IRQ_HANDLED",
    "IRQ_NONE",
    "IRQ_WAKE_THREAD",
    "Handler",
    "IrqChip",
    "IrqReturn",
    "IrqStat",
    "disable_irq",
    "disable_irq_nosync",
    "enable_irq",
    "free_irq",
    "generic_handle_irq",
    "irq_alloc_desc",
    "irq_free_desc",
    "irq_stat",
    "request_irq",
    "request_threaded_irq",
    "synchronize_hardirq",
    "synchronize_irq",
]


class IrqReturn(IntFlag):
    """``irqreturn_t``: whose interrupt it was, and whether the thread has to run."""

    NONE = 0
    HANDLED = 1
    WAKE_THREAD = 2


IRQ_NONE = IrqReturn.NONE
IRQ_HANDLED = IrqReturn.HANDLED
IRQ_WAKE_THREAD = IrqReturn.WAKE_THREAD

IRQF_SHARED = 0x00000080
IRQF_ONESHOT = 0x00002000
IRQF_NO_AUTOEN = 0x00080000

NOBODY_CARED_OF = 100_000  # kernel/irq/spurious.c: of so many interrupts
NOBODY_CARED = 99_900  # more than so many unhandled shut the line off

Handler = Callable[[int, Any], IrqReturn]


class IrqChip(Protocol):
    """``struct irq_chip``: what the core asks of whoever raises the line."""

    @property
    def name(self) -> str:
        """What irq_stat() calls it."""
        ...

    def irq_mask(self, irq: int) -> None:
        """Raise this line no more. Any context."""
        ...

    def irq_unmask(self, irq: int) -> None:
        """Raise it again, at once if its level is still asserted. Any context."""
        ...


@dataclass(frozen=True, slots=True)
class IrqStat:
    """A line's counts. ``missed`` were raised while the line was busy, disabled or pending."""

    irq: int
    name: str
    chip: str
    count: int
    missed: int
    spurious: int
    exceptions: int
    depth: int


@dataclass(eq=False, slots=True)
class _Action:
    """``struct irqaction``: one handler on a line."""

    handler: Handler | None
    thread_fn: Handler | None
    flags: int
    name: str
    dev_id: Any
    reported: bool = False
    wake_thread: Completion = field(default_factory=lambda: Completion("irq_thread"))
    thread: threading.Thread | None = None
    stop: bool = False
    raised: int = 0  # by the handler
    served: int = 0  # by the thread


class _Desc:
    """``struct irq_desc``: one line."""

    def __init__(self, irq: int, name: str, chip: IrqChip | None) -> None:
        self.irq = irq
        self.name = name
        self.chip = chip
        self.actions: tuple[_Action, ...] = ()  # replaced as a whole: handlers run at any time
        self.disables: deque[None] = (
            deque()
        )  # its length is the kernel's depth; one call changes it
        self.busy = threading.Lock()  # only ever tried, never waited for
        self.runner: int | None = None  # the thread that holds it
        self.pending = False
        self.idle_waiters: deque[Completion] = deque()
        self.raises = itertools.count()
        self.replays = 0
        self.count = 0
        self.spurious = 0
        self.exceptions = 0
        self.recent = 0
        self.recent_unhandled = 0
        self.shut_off = False

    def raised(self) -> int:
        return int(self.raises.__reduce__()[1][0])


_descs: dict[int, _Desc] = {}
_numbers = itertools.count(16)  # 0..15 are the ISA lines, in a learner's head at least
_setup_mutex = threading.RLock()  # request and free only: process context, never under a handler


def irq_alloc_desc(name: str, chip: IrqChip | None = None) -> int:
    """Make a new line, with no handler on it; give its number. ``chip`` may be None for software.

    Context: Process context.
    """
    irq = next(_numbers)
    _descs[irq] = _Desc(irq, name, chip)
    return irq


def irq_free_desc(irq: int) -> None:
    """Forget a line. Raises ValueError while a handler is on it.

    Context: Process context.
    """
    desc = _desc(irq)
    if desc.actions:
        raise ValueError(f"irq {irq} ({desc.name}) still has a handler; call free_irq() first")
    del _descs[irq]


def _desc(irq: int) -> _Desc:
    try:
        return _descs[irq]
    except KeyError:
        raise ValueError(f"there is no irq {irq}; irq_alloc_desc() gives numbers") from None


def irq_stat(irq: int) -> IrqStat:
    """The counts of a line, as /proc/interrupts and /proc/irq/N/spurious give them.

    Context: Any context.
    """
    desc = _desc(irq)
    return IrqStat(
        irq=irq,
        name=", ".join(action.name for action in desc.actions) or desc.name,
        chip=desc.chip.name if desc.chip else "software",
        count=desc.count,
        missed=max(0, desc.raised() - desc.count + desc.replays),
        spurious=desc.spurious,
        exceptions=desc.exceptions,
        depth=len(desc.disables),
    )


def request_irq(irq: int, handler: Handler, flags: int, name: str, dev_id: Any) -> None:
    """Put ``handler(irq, dev_id)`` on the line; it may run before this returns.

    Raises ValueError (-EINVAL) and OSError (-EBUSY) where the kernel does.

    Context: Process context. May sleep.
    """
    request_threaded_irq(irq, handler, None, flags, name, dev_id)


def request_threaded_irq(
    irq: int,
    handler: Handler | None,
    thread_fn: Handler | None,
    flags: int,
    name: str,
    dev_id: Any,
) -> None:
    """As request_irq(), with ``thread_fn`` in a thread of its own for IRQ_WAKE_THREAD.

    Without ``handler`` the line must be IRQF_ONESHOT: it stays masked until the thread is done.

    Context: Process context. May sleep.
    """
    might_sleep("request_threaded_irq")
    desc = _desc(irq)
    if handler is None and thread_fn is None:
        raise ValueError(f"irq {irq} ({name}): a handler or a thread_fn is needed")
    if handler is None and not flags & IRQF_ONESHOT:
        raise ValueError(f"irq {irq} ({name}): a thread_fn without a handler needs IRQF_ONESHOT")
    if flags & IRQF_SHARED and (dev_id is None or flags & IRQF_NO_AUTOEN):
        raise ValueError(f"irq {irq} ({name}): IRQF_SHARED needs a dev_id and no IRQF_NO_AUTOEN")
    action = _Action(handler, thread_fn, flags, name, dev_id)
    with _setup_mutex:
        _check_sharing(desc, action)
        if thread_fn is not None:
            action.thread = threading.Thread(
                target=_irq_thread, args=(desc, action), name=f"irq/{irq}-{name}", daemon=True
            )
            action.thread.start()
        if flags & IRQF_NO_AUTOEN:
            desc.disables.append(None)
        desc.actions += (action,)
    if desc.chip is not None and not desc.disables:
        desc.chip.irq_unmask(irq)


def _check_sharing(desc: _Desc, action: _Action) -> None:
    for other in desc.actions:
        both = other.flags & action.flags & IRQF_SHARED
        if not both or (other.flags ^ action.flags) & IRQF_ONESHOT:
            raise OSError(
                16, f"irq {desc.irq} belongs to {other.name}; both must ask for IRQF_SHARED alike"
            )


def free_irq(irq: int, dev_id: Any) -> str | None:
    """Take the handler of ``dev_id`` off the line and wait until it runs nowhere; give its name.

    Context: Process context. May sleep.
    """
    might_sleep("free_irq")
    desc = _desc(irq)
    with _setup_mutex:
        for action in desc.actions:
            if action.dev_id is dev_id:
                break
        else:
            warnings.warn(f"trying to free already-free irq {irq} ({desc.name})", stacklevel=2)
            return None
        if threading.current_thread() is action.thread:
            raise ContextError(f"free_irq({irq}) from its own thread_fn would wait for itself")
        desc.actions = tuple(other for other in desc.actions if other is not action)
        if not desc.actions:
            if desc.chip is not None:
                desc.chip.irq_mask(irq)
            desc.disables.clear()
            desc.shut_off = False
    synchronize_hardirq(irq)
    if action.thread is not None:
        action.stop = True
        complete(action.wake_thread)
        action.thread.join()
    return action.name


# raising


def generic_handle_irq(irq: int) -> None:
    """The hardware raised this line: run its handlers, here and now, in hardirq context.

    Context: Any context.
    """
    desc = _descs.get(irq)
    if desc is None:
        return  # freed meanwhile: nobody's any more
    next(desc.raises)
    desc.pending = True
    _run(desc)


def _run(desc: _Desc) -> None:
    """Run the line while it is pending. Whoever comes while it is busy leaves the pending bit."""
    held: BaseException | None = None
    while desc.pending and not desc.disables and desc.actions:
        if not desc.busy.acquire(blocking=False):
            return  # its runner looks at pending again after it let go
        try:
            desc.runner = threading.get_ident()
            desc.pending = False
            _handle_irq_event(desc)
        except BaseException as exc:  # noqa: BLE001 - a signal handler's: see rule 4
            held = exc
            desc.pending = True
            desc.replays += 1
        finally:
            desc.runner = None
            desc.busy.release()
            _wake_idle_waiters(desc)
    if desc.pending and desc.disables and desc.chip is not None:
        desc.chip.irq_mask(desc.irq)  # lazily, as the kernel does
    if held is not None:
        raise held


def _handle_irq_event(desc: _Desc) -> None:
    result = IRQ_NONE
    for action in desc.actions:
        result |= _handle_action(desc, action)
    desc.count += 1
    if not result:
        desc.spurious += 1
    _note_interrupt(desc, result)


def _handle_action(desc: _Desc, action: _Action) -> IrqReturn:
    where = f"{getattr(action.handler, '__name__', 'handler')} of {action.name}"
    trace = tracepoint.ring
    if trace is not None:
        trace("irq_handler_entry", action.name, desc.irq)
    result = IRQ_WAKE_THREAD
    if action.handler is not None:
        outer = hardirq_enter(where)
        try:
            result = IrqReturn(action.handler(desc.irq, action.dev_id))
            action.reported = False
        except Exception as exc:  # noqa: BLE001 - see rule 3
            _report(desc, action, exc, where)
            result = IRQ_NONE
        finally:
            hardirq_exit(outer)
    if trace is not None:
        trace("irq_handler_exit", action.name, result.name)
    if result & IRQ_WAKE_THREAD:
        _wake_thread(desc, action)
    return result


def _report(desc: _Desc, action: _Action, exc: BaseException, where: str) -> None:
    """Once for each failing spell of a handler: a broken one fails at every interrupt."""
    desc.exceptions += 1
    if action.reported:
        return
    action.reported = True
    message = f"Exception in {where} on irq {desc.irq}; the line stays on, further ones are counted"
    what = (type(exc), exc, exc.__traceback__, message, action.handler or action.thread_fn)
    sys.unraisablehook(sys.UnraisableHookArgs(what))  # type: ignore[misc,call-arg]  # a structseq


def _note_interrupt(desc: _Desc, result: IrqReturn) -> None:
    desc.recent += 1
    if not result:
        desc.recent_unhandled += 1
    if desc.recent < NOBODY_CARED_OF:
        return
    unhandled, desc.recent, desc.recent_unhandled = desc.recent_unhandled, 0, 0
    if unhandled > NOBODY_CARED:
        desc.shut_off = True
        desc.disables.append(None)
        if desc.chip is not None:
            desc.chip.irq_mask(desc.irq)
        handlers = ", ".join(action.name for action in desc.actions)
        warnings.warn(
            f"irq {desc.irq}: nobody cared: {unhandled} of {NOBODY_CARED_OF} interrupts were not "
            f"handled by {handlers}; the line is off, enable_irq({desc.irq}) turns it on",
            RuntimeWarning,
            stacklevel=2,
        )


# the threaded half


def _wake_thread(desc: _Desc, action: _Action) -> None:
    if action.thread_fn is None:
        warnings.warn(f"irq {desc.irq}: {action.name} has no thread_fn to wake", stacklevel=2)
        return
    if action.flags & IRQF_ONESHOT and action.raised == action.served:
        disable_irq_nosync(desc.irq)
    action.raised += 1
    complete(action.wake_thread)


def _irq_thread(desc: _Desc, action: _Action) -> None:
    assert action.thread_fn is not None
    while True:
        wait_for_completion(action.wake_thread)
        seen = action.raised
        if action.served == seen:
            if action.stop:
                return
            continue  # several wake-ups, served by one run
        try:
            action.thread_fn(desc.irq, action.dev_id)
            action.reported = False
        except Exception as exc:  # noqa: BLE001 - see rule 3
            _report(desc, action, exc, f"thread_fn of {action.name}")
        action.served = seen
        if action.flags & IRQF_ONESHOT and action.served == action.raised:
            enable_irq(desc.irq)
        _wake_idle_waiters(desc)


# masking and waiting


def disable_irq_nosync(irq: int) -> None:
    """Let no handler start any more; nests. What arrives meanwhile leaves one pending bit.

    Context: Any context.
    """
    _desc(irq).disables.append(None)


def disable_irq(irq: int) -> None:
    """disable_irq_nosync(), and wait for running handlers, threads included.

    Context: Process context. May sleep.
    """
    might_sleep("disable_irq")
    disable_irq_nosync(irq)
    synchronize_irq(irq)


def enable_irq(irq: int) -> None:
    """Undo one disable; the last one replays what is pending, once.

    Context: Any context.
    """
    desc = _desc(irq)
    try:
        desc.disables.pop()
    except IndexError:
        warnings.warn(f"unbalanced enable for irq {irq} ({desc.name})", stacklevel=2)
        return
    if desc.disables:
        return
    desc.shut_off = False
    if desc.chip is not None:
        desc.chip.irq_unmask(irq)
    _run(desc)


def synchronize_hardirq(irq: int) -> bool:
    """Wait until no handler of the line runs; False if one of its threads still does.

    Context: Process context. May sleep.
    """
    desc = _desc(irq)
    _wait_idle(desc, lambda: desc.busy.locked())
    return not _threads_active(desc)


def synchronize_irq(irq: int) -> None:
    """Wait until no handler of the line runs, threads included.

    Context: Process context. May sleep.
    """
    desc = _desc(irq)
    for action in desc.actions:
        if threading.current_thread() is action.thread:
            raise ContextError(f"synchronize_irq({irq}) from its own thread_fn waits for itself")
    _wait_idle(desc, lambda: desc.busy.locked() or _threads_active(desc))


def _threads_active(desc: _Desc) -> bool:
    return any(action.raised != action.served for action in desc.actions)


def _wait_idle(desc: _Desc, active: Callable[[], bool]) -> None:
    might_sleep("synchronize_irq")
    if desc.runner == threading.get_ident():
        raise ContextError(f"waiting for irq {desc.irq} on top of its own handler never ends")
    while active():
        idle = Completion(f"irq {desc.irq} idle")
        desc.idle_waiters.append(idle)
        if not active():
            return
        wait_for_completion(idle)


def _wake_idle_waiters(desc: _Desc) -> None:
    while desc.idle_waiters:
        try:
            complete(desc.idle_waiters.popleft())
        except IndexError:
            return
