# SPDX-License-Identifier: MIT
"""A line and what happens when it is raised: kernel/irq/irqdesc.c, handle.c, chip.c, spurious.c.

Rules 1 to 4 of irq.py are kept here.
"""

from __future__ import annotations

import itertools
import sys
import threading
import traceback
import warnings
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntFlag
from operator import call
from types import TracebackType
from typing import Any, NamedTuple, Protocol

from udriver.kernel import tracepoint
from udriver.kernel.completion import Completion, complete
from udriver.kernel.context import CONTEXT

__all__ = [
    "IRQF_NO_AUTOEN",
    "IRQF_ONESHOT",
    "IRQF_SHARED",
    "IRQF_TRIGGER_FALLING",
    "IRQF_TRIGGER_HIGH",
    "IRQF_TRIGGER_LOW",
    "IRQF_TRIGGER_MASK",
    "IRQF_TRIGGER_RISING",
    "IRQ_HANDLED",
    "IRQ_NONE",
    "IRQ_WAKE_THREAD",
    "Handler",
    "IrqChip",
    "IrqReturn",
    "IrqStat",
    "generic_handle_irq",
    "irq_alloc_desc",
    "irq_free_desc",
    "irq_stat",
]


class IrqReturn(IntFlag):
    """``irqreturn_t``: whose interrupt it was, and whether the thread has to run."""

    NONE = 0
    HANDLED = 1
    WAKE_THREAD = 2


IRQ_NONE = IrqReturn.NONE
IRQ_HANDLED = IrqReturn.HANDLED
IRQ_WAKE_THREAD = IrqReturn.WAKE_THREAD
_WAKE_THREAD = int(IRQ_WAKE_THREAD)

IRQF_TRIGGER_RISING = 0x00000001
IRQF_TRIGGER_FALLING = 0x00000002
IRQF_TRIGGER_HIGH = 0x00000004
IRQF_TRIGGER_LOW = 0x00000008
IRQF_TRIGGER_MASK = 0x0000000F
IRQF_SHARED = 0x00000080
IRQF_ONESHOT = 0x00002000
IRQF_NO_AUTOEN = 0x00080000

MOST_CUT_SHORT = 100  # runs of a line for one interrupt: what raises so often is the handler itself
NOBODY_CARED_OF = 100_000  # kernel/irq/spurious.c: of so many interrupts
NOBODY_CARED = 99_900  # more than so many unhandled shut the line off

Handler = Callable[[int, Any], IrqReturn]


class IrqChip(Protocol):
    """``struct irq_chip``: what the core asks of whoever raises the line.

    A chip may have three more, which the kernel may leave NULL. All are called in process context
    and may sleep and raise: ``irq_request_resources(irq)`` before the line's first handler,
    ``irq_release_resources(irq)`` after its last is gone, and ``irq_set_type(irq, flow_type)`` with the
    IRQF_TRIGGER_* bits of a request that has any.
    """

    @property
    def name(self) -> str:
        """What irq_stat() calls it.

        Context: Any context.
        """
        ...

    def irq_mask(self, irq: int) -> None:
        """Raise this line no more.

        Context: Any context.
        """
        ...

    def irq_unmask(self, irq: int) -> None:
        """Raise it again, at once if its level is still asserted.

        Context: Any context.
        """
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


class Unraisable(NamedTuple):
    """What sys.unraisablehook gets."""

    exc_type: type[BaseException]
    exc_value: BaseException
    exc_traceback: TracebackType | None
    err_msg: str
    object: Any


@dataclass(eq=False, slots=True)
class IrqAction:
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
    masked: bool = False  # IRQF_ONESHOT: the line is off until the thread is done
    where: str = ""  # for messages

    def __post_init__(self) -> None:
        self.where = f"{getattr(self.handler, '__name__', 'handler')} of {self.name}"


class IrqDesc:
    """``struct irq_desc``: one line."""

    def __init__(self, irq: int, name: str, chip: IrqChip | None) -> None:
        self.irq = irq
        self.name = name
        self.chip = chip
        self.actions: tuple[IrqAction, ...] = ()  # replaced as a whole: handlers run at any time
        # of request and free, process context only. One for each line and not one for all: a chip that
        # is asked for resources may itself request the line it hangs on, under a lock of its own
        self.request_mutex = threading.RLock()
        self.disables: deque[None] = (
            deque()
        )  # its length is the kernel's depth; one call changes it
        self.busy = threading.Lock()  # only ever tried, never waited for
        self.runner: int | None = None  # the thread that holds it
        self.pending = False
        self.resources: list[None] = []  # one item while the chip has given them
        self.idle_waiters: deque[Completion] = deque()
        self.raises = itertools.count()
        self.replays = 0
        self.count = 0
        self.spurious = 0
        self.exceptions = 0
        self.recent = 0
        self.recent_unhandled = 0

    def raised(self) -> int:
        return int(repr(self.raises)[len("count(") : -1])  # there is no other way to look at it


_descs: dict[int, IrqDesc] = {}
_numbers = itertools.count(16)  # 0..15 are the ISA lines, in a learner's head at least


def irq_alloc_desc(name: str, chip: IrqChip | None = None) -> int:
    """Make a new line, with no handler on it; give its number. ``chip`` may be None for software.

    Context: Process context.
    """
    irq = next(_numbers)
    _descs[irq] = IrqDesc(irq, name, chip)
    return irq


def irq_free_desc(irq: int) -> None:
    """Forget a line. Raises ValueError while a handler is on it.

    Context: Process context.
    """
    desc = irq_to_desc(irq)
    if desc.actions:
        raise ValueError(f"irq {irq} ({desc.name}) still has a handler; call free_irq() first")
    del _descs[irq]


def irq_to_desc(irq: int) -> IrqDesc:
    try:
        return _descs[irq]
    except KeyError:
        raise ValueError(f"there is no irq {irq}; irq_alloc_desc() gives numbers") from None


def irq_stat(irq: int) -> IrqStat:
    """The counts of a line, as /proc/interrupts and /proc/irq/N/spurious give them.

    Context: Any context.
    """
    desc = irq_to_desc(irq)
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
    run_pending(desc)


def run_pending(desc: IrqDesc) -> None:
    """Run the line while it is pending. Whoever comes while it is busy leaves the pending bit."""
    held: BaseException | None = None
    for _ in range(MOST_CUT_SHORT):
        try:
            _run_while_pending(desc)
            break
        except BaseException as exc:  # noqa: BLE001 - a signal handler's: see rule 4
            held = exc  # and look again: what came while the line was busy is still to be replayed
    if desc.pending and desc.disables and desc.chip is not None:
        desc.chip.irq_mask(desc.irq)  # lazily, as the kernel does
    if held is not None:
        raise held


def _run_while_pending(desc: IrqDesc) -> None:
    while desc.pending and not desc.disables and desc.actions:
        busy: list[bool] = []
        try:
            # take and remember in one C call: a signal handler may raise between any two
            busy.extend(map(desc.busy.acquire, (False,)))
            if not busy[0]:
                return  # its runner looks at pending again after it let go
            desc.runner = threading.get_ident()
            desc.pending = False
            _handle_irq_event(desc)
        except BaseException:
            desc.pending = True
            desc.replays += 1
            raise
        finally:
            if busy and busy[0]:
                desc.runner = None
                try:
                    desc.busy.release()
                    if desc.idle_waiters:
                        wake_idle_waiters(desc)
                except (
                    BaseException
                ):  # a signal handler's, after the release: CPython looks behind it
                    wake_idle_waiters(desc)
                    raise


def _handle_irq_event(desc: IrqDesc) -> None:
    desc.count += 1  # first, as kstat_incr_irqs_this_cpu(): a run that is cut short counts too
    result = 0  # an int: the operators of an IntFlag take a microsecond each
    for action in desc.actions:
        result |= _handle_action(desc, action)
    desc.recent += 1
    if not result:
        desc.spurious += 1
        desc.recent_unhandled += 1
    if desc.recent >= NOBODY_CARED_OF:
        _judge(desc)


def _handle_action(desc: IrqDesc, action: IrqAction) -> int:
    trace = tracepoint.ring
    if trace is not None:
        trace("irq_handler_entry", action.name, desc.irq)
    result = _WAKE_THREAD
    if action.handler is not None:
        outer = CONTEXT.handler
        try:
            CONTEXT.handler = action.where
            returned = action.handler(desc.irq, action.dev_id)
            # IrqReturn() takes as long as the rest of this function
            result = int(returned if type(returned) is IrqReturn else IrqReturn(returned))
            action.reported = False
        except Exception as exc:  # noqa: BLE001 - see rule 3
            report_exception(desc, action, exc, action.where)
            result = 0
        finally:
            CONTEXT.handler = outer  # see hardirq_exit()
    if trace is not None:
        trace("irq_handler_exit", action.name, IrqReturn(result).name)
    if result & _WAKE_THREAD:
        _wake_thread(desc, action)
    return result


def report_exception(desc: IrqDesc, action: IrqAction, exc: BaseException, where: str) -> None:
    """Once for each failing spell of a handler: a broken one fails at every interrupt."""
    desc.exceptions += 1
    if action.reported:
        return
    action.reported = True
    message = f"Exception in {where} on irq {desc.irq}; the line stays on, further ones are counted"
    try:
        if sys.unraisablehook is sys.__unraisablehook__:  # wants a C type that Python cannot make
            print(f"{message}:", file=sys.stderr)
            traceback.print_exception(exc)
        else:
            handler = action.handler or action.thread_fn
            args = Unraisable(type(exc), exc, exc.__traceback__, message, handler)
            sys.unraisablehook(args)  # type: ignore[arg-type]  # hooks read its five attributes
    except Exception:  # noqa: BLE001, S110 - no stderr, or a broken hook: delivery goes on
        pass


def _judge(desc: IrqDesc) -> None:
    unhandled, desc.recent, desc.recent_unhandled = desc.recent_unhandled, 0, 0
    if unhandled > NOBODY_CARED:
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


def _wake_thread(desc: IrqDesc, action: IrqAction) -> None:
    if action.thread_fn is None:
        warnings.warn(f"irq {desc.irq}: {action.name} has no thread_fn to wake", stacklevel=2)
        return
    if action.flags & IRQF_ONESHOT and not action.masked:
        action.masked = True
        desc.disables.append(None)
    action.raised += 1
    complete(action.wake_thread)


def wake_idle_waiters(desc: IrqDesc) -> None:
    while desc.idle_waiters:
        idle: list[Completion] = []
        try:
            idle.extend(map(call, (desc.idle_waiters.popleft,)))
            complete(idle[0])
        except IndexError:
            return
        except (
            BaseException
        ):  # a signal handler's, perhaps before complete() began: twice does no harm
            if idle:
                complete(idle[0])
            raise
