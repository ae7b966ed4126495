# SPDX-License-Identifier: MIT
"""The waiter's side: all waits. M6, M7, M10, M11, M15, M18; and what outcome.py judges."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

from udriver.checker import bytecode
from udriver.checker.evidence import Evidence
from udriver.checker.history import SIGNAL, TIMEOUT, TOKEN, End, Record, Wait
from udriver.checker.lifetime import Lifetime
from udriver.checker.lines import Lines
from udriver.checker.locks import Locks
from udriver.checker.outcome import Outcome
from udriver.checker.patch import Hook
from udriver.checker.place import Place, activation, here, in_core, is_user, user_frame
from udriver.checker.result import Call, Status, TimeLeft
from udriver.errors import ContextError
from udriver.kernel import completion, context
from udriver.kernel.completion import Completion
from udriver.kernel.sched import LONG_MAX, TASK_INTERRUPTIBLE, TASK_WAKEKILL

__all__ = ["Waiting"]

_TIMED = (
    completion.wait_for_completion_timeout,
    completion.wait_for_completion_io_timeout,
    completion.wait_for_completion_interruptible_timeout,
    completion.wait_for_completion_killable_timeout,
)
_UNTIMED = (
    completion.wait_for_completion,
    completion.wait_for_completion_io,
    completion.wait_for_completion_interruptible,
    completion.wait_for_completion_killable,
    completion.wait_for_completion_state,
)
_IRQ_FUNCTIONS = ("disable_irq", "free_irq", "synchronize_irq", "request_threaded_irq")


class Waiting:
    """Hooks of whoever waits."""

    def __init__(self, evidence: Evidence, lifetime: Lifetime, lines: Lines, locks: Locks) -> None:
        self._evidence = evidence
        self._lines = lines
        self._add = evidence.reports.add
        self._lifetime = lifetime
        self._locks = locks
        self._outcome = Outcome(evidence, lines)

    def hooks(self) -> dict[Any, Hook]:
        """Function of the core: what is called instead."""
        hooks: dict[Any, Hook] = dict.fromkeys(_TIMED, self._timed)
        hooks |= dict.fromkeys(_UNTIMED, self._untimed)
        hooks[Completion.wait_into] = self.wait_into
        hooks[completion._wait_in_loop] = self.wait_in_loop
        hooks[context.might_sleep] = self.might_sleep
        return hooks

    def _timed(self, original: Hook, x: Completion, timeout: int) -> int:
        caller = sys._getframe(2)
        self._judge_timeout(original.__name__, x, timeout, None if in_core(caller) else caller)
        left: int = self._wait(original, x, timeout)
        if in_core(caller):
            return left
        place = here()
        self._judge_use(original.__name__, x, place)
        return TimeLeft.of(left, self._call(original.__name__, place, x))

    def _untimed(self, original: Hook, x: Completion, *state: int) -> int | None:
        caller = sys._getframe(2)
        name = original.__name__
        result: int | None = self._wait(original, x, *state)
        endless = name.removeprefix("wait_for_completion") in ("", "_io")
        if endless or in_core(caller):
            return result
        place = here()
        if not state or state[0] & (TASK_INTERRUPTIBLE | TASK_WAKEKILL):
            self._judge_use(name, x, place)
        assert result is not None
        return Status.of(result, self._call(name, place, x))

    def _call(self, name: str, place: Place, x: Completion) -> Call:
        record = self._evidence.of(x)
        last = record.last

        def failing() -> None:
            record.failed = record.last is last

        return Call(name, place, self._evidence.reports, failing)

    def wait_into(
        self, original: Hook, x: Completion, taken: list[object], timeout: float | None = None
    ) -> Any:
        """The Pythonic wait: its outcome is an exception, so M6 and M7 cannot happen."""
        return self._wait(original, x, taken, timeout)

    async def wait_in_loop(self, original: Hook, x: Completion) -> None:
        """``await x``."""
        record = self._evidence.of(x)
        wait = Wait("await", here(), self._evidence.tick(), None)
        try:
            record.waits[id(wait)] = wait
            await original(x)
            self._ended(record, wait, TOKEN)
        finally:
            record.waits.pop(id(wait), None)

    # one wait

    def _wait(self, original: Hook, x: Completion, *args: Any) -> Any:
        name = original.__name__
        if not self._lifetime.initialised(x, f"{name}()"):
            return original(x, *args)
        record = self._evidence.of(x)
        if record.core:
            return original(x, *args)
        wait = Wait(name, here(), self._evidence.tick(), activation(user_frame()))
        if not context.in_hardirq():
            self._before(record, wait)
        outcome = SIGNAL
        try:
            record.waits[id(wait)] = wait
            result = original(x, *args)
            if result is None or result is True or result > 0:
                outcome = TOKEN
            elif result == 0:
                outcome = TIMEOUT if name.endswith("_timeout") else TOKEN
        except TimeoutError:
            outcome = TIMEOUT
            raise
        except (TypeError, ValueError, ContextError):
            outcome = ""  # refused: it has not waited
            raise
        except InterruptedError:
            raise
        except BaseException:  # a signal handler's: with a token or without, nobody can tell
            record.unsure = True
            raise
        finally:
            if outcome:
                self._ended(record, wait, outcome)
            record.waits.pop(id(wait), None)  # last: until then it has not returned
        return result

    def _before(self, record: Record, wait: Wait) -> None:
        record.virgin = False
        self._lifetime.nobody_looked(record)
        self._locks.waiting(record, wait)
        off = self._lines.disabled_here(record)
        if off is not None:
            self._add(
                "M11", f"wait on {record.name} with the irq off that completes it",
                (f"{wait.function}()", wait.place), ("disable_irq()", off),
            )  # fmt: skip
        lines = self._lines.completing(record)
        if wait.function in ("wait_for_completion", "wait_for_completion_io") and lines:
            self._add(
                "M15", f"untimed wait for hardware on {record.name}",
                (f"{wait.function}(), which nothing but a token ends", wait.place),
                (f"the line of {lines[0].action.name} completes it", lines[0].asked),
            )  # fmt: skip

    def _ended(self, record: Record, wait: Wait, outcome: str) -> None:
        if outcome == TOKEN:
            post = record.opened
            if post is None and record.posts:
                try:
                    post = record.posts.popleft()
                except IndexError:
                    pass  # another waiter was faster
            if post is not None:
                self._locks.taking_token(record, post)
                self._outcome.token(record, wait, post)
            record.dropped = record.polled = None
        elif outcome == TIMEOUT:
            self._outcome.timeout(record, wait)
        end = End(outcome, wait, self._evidence.tick())
        operation = record.operation
        if operation is not None and wait.tick > operation.tick:
            operation.ended = end
        record.settled = record.failed = False
        record.last = end
        self._locks.waited()

    # the call and its result

    def _judge_timeout(self, name: str, x: Completion, timeout: int, caller: Any) -> None:
        literal = caller is not None and bytecode.literal_argument(caller, timeout)
        if timeout == 0:
            what = "0 jiffies" if literal else "a timeout that was computed to 0 jiffies"
        elif not 0 < timeout <= LONG_MAX:
            what = f"{timeout} jiffies, which is no unsigned long below LONG_MAX"
        elif literal:
            what = f"{timeout} jiffies as a bare number"
        else:
            return
        record = self._evidence.find(x)
        began = record.began() if record is not None else None
        self._add(
            "M18", f"{name}() with {what}",
            ("the wait", here()),
            ("what it waits for began" if began else "(not seen to begin)", began or here()),
        )  # fmt: skip

    def _judge_use(self, name: str, x: Completion, place: Place) -> None:
        caller: FrameType | None = sys._getframe(3)
        if caller is not user_frame():
            return
        while caller is not None and is_user(caller) and bytecode.result_returned(caller):
            caller = caller.f_back  # a function of the user's own around the wait
        if caller is None or not is_user(caller) or not bytecode.result_unused(caller):
            return
        record = self._evidence.find(x)
        began = record.began() if record is not None else None
        self._add(
            "M7", f"{name}() on {getattr(x, 'name', '?')}",
            ("the result is thrown away", place),
            ("what it waits for began", began or place),
        )  # fmt: skip

    def might_sleep(self, original: Hook, function: str) -> None:
        """M10; the call that the core is about to refuse."""
        if context.CONTEXT.handler is not None and not self._evidence.cpu.excused:
            section = self._evidence.section()
            asked = self._lines.requested(section.action) if section else None
            entered = asked or self._evidence.cpu.hardirq or here()
            self._add(
                "M10", f"{function}() in {context.CONTEXT.handler}",
                (f"{function}()", here()),
                ("the handler was requested" if asked else "hardirq context was entered", entered),
            )  # fmt: skip
        elif (spin := self._locks.spinning()) is not None and function not in _IRQ_FUNCTIONS:
            self._add(
                "M10", f"{function}() under a spinlock",
                (f"{function}()", here()), ("the spinlock was taken", spin),
            )  # fmt: skip
        original(function)
