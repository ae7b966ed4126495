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

import threading
import warnings
from collections.abc import Callable
from typing import Any

from udriver.errors import ContextError
from udriver.kernel.completion import Completion, complete, wait_for_completion
from udriver.kernel.context import might_sleep
from udriver.kernel.irqdesc import (
    IRQ_HANDLED,
    IRQ_NONE,
    IRQ_WAKE_THREAD,
    IRQF_NO_AUTOEN,
    IRQF_ONESHOT,
    IRQF_SHARED,
    IRQF_TRIGGER_FALLING,
    IRQF_TRIGGER_HIGH,
    IRQF_TRIGGER_LOW,
    IRQF_TRIGGER_MASK,
    IRQF_TRIGGER_RISING,
    Handler,
    IrqAction,
    IrqChip,
    IrqDesc,
    IrqReturn,
    IrqStat,
    generic_handle_irq,
    irq_alloc_desc,
    irq_free_desc,
    irq_stat,
    irq_to_desc,
    report_exception,
    run_pending,
    wake_idle_waiters,
)

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


def request_irq(irq: int, handler: Handler, flags: int, name: str, dev_id: Any) -> None:
    """Put ``handler(irq, dev_id)`` on the line; it may run before this returns.

    Raises ValueError (-EINVAL) and OSError (-EBUSY) where the kernel does. On any exception,
    Ctrl-C included, the handler is not on the line.

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
    desc = irq_to_desc(irq)
    if handler is None and thread_fn is None:
        raise ValueError(f"irq {irq} ({name}): a handler or a thread_fn is needed")
    if handler is None and not flags & IRQF_ONESHOT:
        raise ValueError(f"irq {irq} ({name}): a thread_fn without a handler needs IRQF_ONESHOT")
    if flags & IRQF_SHARED and (dev_id is None or flags & IRQF_NO_AUTOEN):
        raise ValueError(f"irq {irq} ({name}): IRQF_SHARED needs a dev_id and no IRQF_NO_AUTOEN")
    action = IrqAction(handler, thread_fn, flags, name, dev_id)
    try:
        with desc.request_mutex:
            _check_sharing(desc, action)
            _prepare_line(desc, flags & IRQF_TRIGGER_MASK)
            if thread_fn is not None:
                action.thread = threading.Thread(
                    target=_irq_thread, args=(desc, action), name=f"irq/{irq}-{name}", daemon=True
                )
                action.thread.start()
            if flags & IRQF_NO_AUTOEN:
                desc.disables += (None,)  # not append(): no Ctrl-C between this and the next line
            desc.actions += (action,)
            # held to here, as in __setup_irq(): who frees it meanwhile masks it after this
            if desc.chip is not None and not desc.disables:
                desc.chip.irq_unmask(irq)
    except BaseException:
        with desc.request_mutex:
            _end(desc, action, _take_off(desc, action))
        raise


def _check_sharing(desc: IrqDesc, action: IrqAction) -> None:
    for other in desc.actions:
        both = other.flags & action.flags & IRQF_SHARED
        alike = IRQF_ONESHOT
        if action.flags & IRQF_TRIGGER_MASK:  # who asks for none takes what the line has
            alike |= IRQF_TRIGGER_MASK
        if not both or (other.flags ^ action.flags) & alike:
            raise OSError(
                16, f"irq {desc.irq} belongs to {other.name}; both must ask for IRQF_SHARED alike"
            )


def _prepare_line(desc: IrqDesc, trigger: int) -> None:
    if desc.actions:
        return
    ask = getattr(desc.chip, "irq_request_resources", None)
    if ask is not None and not desc.resources:
        # ask and remember in one C call: a signal handler may raise between any two
        desc.resources.extend(map(ask, (desc.irq,)))
    if trigger:
        _ask_chip(desc, "irq_set_type", trigger)


def _release_line(desc: IrqDesc) -> None:
    if not desc.actions and desc.resources:
        desc.resources = []  # not clear(): no Ctrl-C between this and the next line
        _ask_chip(desc, "irq_release_resources")


def _ask_chip(desc: IrqDesc, operation: str, *arguments: int) -> None:
    """What a chip need not have: see IrqChip."""
    function = getattr(desc.chip, operation, None)
    if function is not None:
        function(desc.irq, *arguments)


def free_irq(irq: int, dev_id: Any) -> str | None:
    """Take the handler of ``dev_id`` off the line and wait until it runs nowhere; give its name.

    Who else requests or frees this line waits until it is done. So no thread_fn of the line may do either:
    when its own action is freed, each would wait for the other for ever, as in the kernel.

    Context: Process context. May sleep.
    """
    might_sleep("free_irq")
    desc = irq_to_desc(irq)
    with desc.request_mutex:
        for action in desc.actions:
            if action.dev_id is dev_id:
                break
        else:
            warnings.warn(f"trying to free already-free irq {irq} ({desc.name})", stacklevel=2)
            return None
        if threading.current_thread() is action.thread:
            raise ContextError(f"free_irq({irq}) from its own thread_fn would wait for itself")
        # held to the end, as __free_irq() does: whoever requests the line meanwhile would find it with
        # the trigger and the depth of the one who goes
        _end(desc, action, _take_off(desc, action))
    return action.name


def _take_off(desc: IrqDesc, action: IrqAction) -> bool:
    """Whether it was on the line."""
    if action not in desc.actions:
        return False
    desc.actions = tuple(other for other in desc.actions if other is not action)
    if not desc.actions and desc.chip is not None:
        desc.chip.irq_mask(desc.irq)
    return True


def _end(desc: IrqDesc, action: IrqAction, was_on: bool) -> None:
    """Wait until ``action``, which is off the line, runs nowhere; then let go of what it had."""
    synchronize_hardirq(desc.irq)
    if action.thread is not None:
        action.stop = True
        complete(action.wake_thread)
        try:
            action.thread.join()
        except RuntimeError:
            pass  # its start was cut short: if it begins at all, it finds that it is to stop
    if was_on and not desc.actions:
        desc.disables.clear()
    _release_line(desc)


def _irq_thread(desc: IrqDesc, action: IrqAction) -> None:
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
            report_exception(desc, action, exc, f"thread_fn of {action.name}")
        finally:
            action.served = seen
        if action.masked and action.served == action.raised:
            action.masked = False
            enable_irq(desc.irq)
        wake_idle_waiters(desc)


# masking and waiting


def disable_irq_nosync(irq: int) -> None:
    """Let no handler start any more; nests. What arrives meanwhile leaves one pending bit.

    Context: Any context.
    """
    irq_to_desc(irq).disables.append(None)


def disable_irq(irq: int) -> None:
    """disable_irq_nosync(), and wait for running handlers, threads included.

    Context: Process context. May sleep.
    """
    might_sleep("disable_irq")
    _refuse_own_thread(irq, "disable_irq")
    disable_irq_nosync(irq)
    synchronize_irq(irq)


def enable_irq(irq: int) -> None:
    """Undo one disable; the last one replays what is pending, once.

    Context: Any context.
    """
    desc = irq_to_desc(irq)
    try:
        desc.disables.pop()
    except IndexError:
        warnings.warn(f"unbalanced enable for irq {irq} ({desc.name})", stacklevel=2)
        return
    if desc.disables:
        return
    if desc.chip is not None:
        desc.chip.irq_unmask(irq)
    run_pending(desc)


def synchronize_hardirq(irq: int) -> bool:
    """Wait until no handler of the line runs; False if one of its threads still does.

    Context: Process context. May sleep.
    """
    desc = irq_to_desc(irq)
    _wait_idle(desc, lambda: desc.busy.locked())
    return not _threads_active(desc)


def synchronize_irq(irq: int) -> None:
    """Wait until no handler of the line runs, threads included.

    Context: Process context. May sleep.
    """
    desc = irq_to_desc(irq)
    _refuse_own_thread(irq, "synchronize_irq")
    _wait_idle(desc, lambda: desc.busy.locked() or _threads_active(desc))


def _refuse_own_thread(irq: int, function: str) -> None:
    for action in irq_to_desc(irq).actions:
        if threading.current_thread() is action.thread:
            raise ContextError(f"{function}({irq}) from its own thread_fn would wait for itself")


def _threads_active(desc: IrqDesc) -> bool:
    return any(action.raised != action.served for action in desc.actions)


def _wait_idle(desc: IrqDesc, active: Callable[[], bool]) -> None:
    might_sleep("synchronize_irq")
    if desc.runner == threading.get_ident():
        raise ContextError(f"waiting for irq {desc.irq} on top of its own handler never ends")
    while active():
        idle = Completion(f"irq {desc.irq} idle")
        desc.idle_waiters.append(idle)
        if not active():
            return
        wait_for_completion(idle)
