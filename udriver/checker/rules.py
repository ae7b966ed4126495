# SPDX-License-Identifier: MIT
"""The 30 rules: the mistakes that fixes in the stable kernels show drivers really make.

M rules are about completions, I rules about interrupt lines. The numbers are stable.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["RULES", "Rule"]


class Rule(NamedTuple):
    """``title`` stands in a report's first line; ``harm`` is what goes wrong, ``fix`` the cure.

    ``unless`` is what to tell the checker where the code is right and its guess is not.
    """

    title: str
    harm: str
    fix: str
    unless: str = ""


_KIND = 'completion_set_kind(x, "condition") or "counted" where a token is not one event of one operation'


RULES: dict[str, Rule] = {
    "M1": Rule(
        "completion used before it was initialised",
        "an interrupt that comes early completes memory that is no completion yet",
        "initialise the completion before request_irq(), and before anybody can see it",
    ),
    "M2": Rule(
        "init_completion() on a completion in use",
        "its waiters are orphaned: no complete() finds them any more, and tokens are lost",
        "init_completion() once, when the object is made; reinit_completion() before each use",
    ),
    "M3": Rule(
        "stale token",
        "the wait returned at once, for an earlier operation; its data is not there yet",
        "reinit_completion() before the operation is started",
        _KIND,
    ),
    "M4": Rule(
        "reinit_completion() after the operation was started",
        "it throws away the token of a device that was quick, and the wait then times out",
        "keep the order: reinit_completion(), start the hardware, wait",
    ),
    "M5": Rule(
        "reinit_completion() with a waiter that has not returned",
        "a waiter that was woken and has not run yet finds no token and sleeps on",
        "reinit_completion() only when every waiter is back; count them, or give each its own",
    ),
    "M6": Rule(
        "wrong test of a wait's result",
        "a timeout, a signal and success are taken for one another",
        "timed: 0 is a timeout, >= 1 is not. interruptible or killable: < 0 is a signal. "
        "Both: test < 0 and == 0. Untimed: 0 is success",
    ),
    "M7": Rule(
        "result of a wait not used",
        "after a timeout or a signal the code goes on as if the event had happened",
        "test the result, and stop the operation if there was no token",
    ),
    "M8": Rule(
        "completion went out of scope with its completer armed",
        "the late complete() writes to a stack frame or an object that is somebody else's now",
        "after a timeout or a signal stop the completer (disable_irq(), cancel the work) first",
    ),
    "M9": Rule(
        "completion freed with waiters",
        "who still sleeps on it, or was woken and has not returned, uses freed memory",
        "wait for the waiters; before a free ask completion_done(), never `done` itself",
    ),
    "M10": Rule(
        "wait in atomic context",
        "sleeping function called from invalid context; the cpu never comes back",
        "complete() from the handler and wait in process context, without spinlocks",
    ),
    "M11": Rule(
        "possible circular dependency of a wait and a lock",
        "the waiter holds what the completer has to take before complete(): neither goes on",
        "release the lock before the wait, or complete() before the lock is taken",
    ),
    "M12": Rule(
        "tokens pile up on a one-shot event",
        "each token too many lets a later wait return before its own event",
        "complete() only for what was asked for; complete_all(), or ask completion_done() first",
        _KIND,
    ),
    "M13": Rule(
        "complete() or complete_all() after complete_all()",
        "it does nothing: the completion is open for good, and later waits do not wait",
        "reinit_completion() between two uses, when all waiters are back",
        _KIND,
    ),
    "M14": Rule(
        "complete() and complete_all() mixed up",
        "complete() lets one of several waiters through, complete_all() lets through later ones too",
        "complete_all() for an event that several wait for, complete() for an event of one request",
        _KIND,
    ),
    "M15": Rule(
        "operation ended without complete()",
        "somebody waits for an event that does not come any more",
        "complete() on every path: error, remove, reset; and wait for hardware with a timeout",
    ),
    "M16": Rule(
        "completer writes after its complete()",
        "the waiter runs already: it reads half of the result, or has freed the object",
        "make complete() the last thing the completer does with the object",
    ),
    "M17": Rule(
        "timeout without a second look",
        "the event came just after the timeout; a buffer is given back while it is written to",
        "after a timeout stop or synchronise the interrupt, then ask completion_done() once more",
        _KIND,
    ),
    "M18": Rule(
        "doubtful timeout",
        "0 is not a poll, a negative one is refused or returned as success, and a bare number "
        "means another time at another HZ",
        "msecs_to_jiffies(), at least 1; try_wait_for_completion() to poll",
    ),
    "M19": Rule(
        "interrupted wait abandoned with the operation under way",
        "the hardware goes on with a buffer that its owner has given back",
        "after -ERESTARTSYS cancel the operation, and wait for that uninterruptibly",
        _KIND,
    ),
    "M20": Rule(
        "DECLARE_COMPLETION() for a local variable",
        "lockdep: trying to register non-static key, and it turns itself off",
        "DECLARE_COMPLETION_ONSTACK() for automatic variables",
    ),
    "M21": Rule(
        "one completion for two events",
        "the waiter of the one is let through by the other, or waits for what does not come",
        "a completion for each kind of event",
    ),
    "M22": Rule(
        "one operation completed twice",
        "the second token belongs to nobody, and ends the next operation before it is done",
        "let one party own the end of an operation: take it off the list before complete()",
    ),
    "M23": Rule(
        "completion_done() taken for 'nobody waits any more'",
        "it says that a token is there; the waiters have been woken and have not returned",
        "count the waiters, or let them say that they are back",
    ),
    "M24": Rule(
        "done changed by more than one party",
        "concurrent completers and direct writes make `done` mean nothing",
        "one completer for each event; complete(), complete_all(), reinit_completion(), no write",
        _KIND,
    ),
    "I1": Rule(
        "interrupt handler waited for by itself",
        "the call waits for the handler, and the handler waits for the call: a deadlock",
        "disable_irq_nosync() in the handler; free_irq() and disable_irq() without its locks",
    ),
    "I2": Rule(
        "unbalanced enable and disable of an irq",
        "the depth counter is off: the line stays off, or comes on inside a critical section",
        "one enable_irq() for each disable_irq(), on every path",
    ),
    "I3": Rule(
        "irq source not quiesced before its handler was installed",
        "an interrupt of an earlier life completes the first operation at once",
        "acknowledge and mask the source, then request_irq() or enable_irq()",
    ),
    "I4": Rule(
        "interrupt handler not ready for an interrupt",
        "a shared or noisy line runs it at any moment between request_irq() and free_irq()",
        "set up all that it uses first, and return IRQ_NONE when the device has nothing",
    ),
    "I5": Rule(
        "irq freed in the wrong order",
        "the handler runs with what was freed before it, or the irq is freed a second time",
        "free_irq() first, its resources afterwards; never by hand what is freed by its owner",
    ),
    "I6": Rule(
        "interrupts that nobody handles",
        "99,900 unhandled interrupts of 100,000 make the core shut the line off",
        "return IRQ_HANDLED when the device had something, and clear its cause",
    ),
}
