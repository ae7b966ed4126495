# SPDX-License-Identifier: MIT
"""The waiter's side: all waits, try_wait_for_completion(), completion_done(), reading ``done``.

M3, M6, M7, M10, M14, M15, M18, M21; and M4 where a timeout shows it.
"""

from __future__ import annotations

import sys
from typing import Any

from udriver.checker import bytecode
from udriver.checker.evidence import SIGNAL, TIMEOUT, TOKEN, End, Evidence, Post, Record, Wait
from udriver.checker.lifetime import Lifetime
from udriver.checker.lines import Lines
from udriver.checker.locks import Locks
from udriver.checker.patch import Hook
from udriver.checker.place import Place, activation, here, in_core, user_frame
from udriver.checker.result import Status, TimeLeft
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

    def hooks(self) -> dict[Any, Hook]:
        """Function of the core: what is called instead."""
        hooks: dict[Any, Hook] = dict.fromkeys(_TIMED, self._timed)
        hooks |= dict.fromkeys(_UNTIMED, self._untimed)
        hooks[Completion.wait_into] = self.wait_into
        hooks[completion._wait_in_loop] = self.wait_in_loop
        hooks[completion.try_wait_for_completion] = self.try_wait
        hooks[completion.completion_done] = self.completion_done
        hooks[Completion.done.fget] = self.read_done  # type: ignore[attr-defined]
        hooks[context.might_sleep] = self.might_sleep
        return hooks

    def _timed(self, original: Hook, x: Completion, timeout: int) -> int:
        caller = sys._getframe(2)
        self._judge_timeout(original.__name__, x, timeout, None if in_core(caller) else caller)
        left: int = self._wait(original, x, timeout)
        if in_core(caller):
            return left
        signals = "interruptible" in original.__name__ or "killable" in original.__name__
        place = here()
        self._judge_use(original.__name__, x, place)
        return TimeLeft.of(left, self._evidence.reports, original.__name__, place, signals)

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
        return Status.of(result, self._evidence.reports, name, place)

    def wait_into(
        self, original: Hook, x: Completion, taken: list[object], timeout: float | None = None
    ) -> Any:
        """The Pythonic wait: its outcome is an exception, so M6 and M7 cannot happen."""
        return self._wait(original, x, taken, timeout)

    async def wait_in_loop(self, original: Hook, x: Completion) -> None:
        """``await x``."""
        record = self._evidence.of(x)
        wait = Wait("await", here(), self._evidence.tick(), None)
        record.waits[id(wait)] = wait
        try:
            await original(x)
        finally:
            record.waits.pop(id(wait), None)
        self._ended(record, wait, TOKEN)

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
        record.waits[id(wait)] = wait
        outcome = SIGNAL
        try:
            result = original(x, *args)
            if result is None or result is True or result > 0:
                outcome = TOKEN
            elif result == 0:
                outcome = TIMEOUT if name.endswith("_timeout") else TOKEN
        except TimeoutError:
            outcome = TIMEOUT
            raise
        finally:
            record.waits.pop(id(wait), None)
            if not context.in_hardirq():
                self._ended(record, wait, outcome)
        return result

    def _before(self, record: Record, wait: Wait) -> None:
        record.virgin = False
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
                self._judge_token(record, wait, post)
            record.dropped = None
        elif outcome == TIMEOUT:
            self._judge_end_of_time(record, wait)
        end = End(outcome, wait, self._evidence.tick())
        operation = record.operation
        if operation is not None and wait.tick > operation.tick:
            operation.ended = end
        record.settled = False
        record.last = end
        self._locks.waited()

    def _judge_token(self, record: Record, wait: Wait, post: Post) -> None:
        operation, last = record.operation, record.last
        if record.quiet:
            return
        if operation is not None:
            if post.tick < operation.tick and not operation.stopped:
                rule = "M14" if post is record.opened else "M3"
                self._add(
                    rule, f"token of {record.name} from before its operation",
                    (f"{wait.function}() was satisfied", wait.place),
                    ("by a token posted before the operation was started", post.place),
                    ("the operation was started", operation.place),
                )  # fmt: skip
            return
        if last is None or last.outcome == TOKEN or post is record.opened:
            return
        mine = last.wait.place.task == wait.place.task
        if mine and last.tick < post.tick < wait.tick:
            self._add(
                "M3", f"late token of {record.name}",
                (f"{wait.function}() was satisfied, without reinit_completion() since", wait.place),
                (f"by a token that came after an earlier wait had ended by {last.outcome}",
                 post.place),
                ("the earlier wait", last.wait.place),
            )  # fmt: skip

    def _judge_end_of_time(self, record: Record, wait: Wait) -> None:
        if record.dropped is not None and not record.quiet:
            post, place = record.dropped
            record.dropped = None
            self._add(
                "M4", f"{record.name} timed out after reinit_completion() dropped its token",
                ("reinit_completion()", place), ("the token was posted", post.place),
                ("the wait that timed out", wait.place),
            )  # fmt: skip
        if record.alone is not None and record.alone[0].tick > wait.tick:
            post, waiting = record.alone
            record.alone = None
            self._add(
                "M14", f"{waiting} waited for {record.name}, complete() let one through",
                ("complete()", post.place), ("a waiter that was left behind", wait.place),
            )  # fmt: skip
        self._judge_handlers(record, wait)
        self._judge_other_event(record, wait)

    def _judge_handlers(self, record: Record, wait: Wait) -> None:
        """M15: the line's handler ran during the wait, said HANDLED, and completed nothing."""
        if record.quiet:
            return
        for line in self._lines.completing(record):
            run = line.last_handled
            posted = record.completers.get(id(line.action), 0)
            if run is not None and run[0] > wait.tick > posted:
                self._add(
                    "M15", f"{line.action.name} handled an interrupt without complete()",
                    (f"{wait.function}() timed out on {record.name}", wait.place),
                    ("the handler that completes it ran meanwhile, and did not", run[1]),
                )  # fmt: skip

    def _judge_other_event(self, record: Record, wait: Wait) -> None:
        """M21: what this task started ended meanwhile, on a completion that nobody waits for."""
        if record.operation is not None or record.kind:
            return
        mine = self._evidence.cpu.started
        other = mine() if mine is not None else None
        if other is None or other is record or other.operation is None or other.waits:
            return
        if any(post.tick > wait.tick for post in other.operation.posts):
            self._add(
                "M21", f"wait on {record.name} for an operation of {other.name}",
                (f"{wait.function}() timed out on {record.name}", wait.place),
                (f"the operation that ended meanwhile completes {other.name}",
                 other.operation.place),
            )  # fmt: skip

    # the call and its result

    def _judge_timeout(self, name: str, x: Completion, timeout: int, caller: Any) -> None:
        literal = caller is not None and bytecode.literal_argument(caller)
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
        caller = user_frame()
        if caller is None or caller is not sys._getframe(3) or not bytecode.result_unused(caller):
            return
        record = self._evidence.find(x)
        began = record.began() if record is not None else None
        self._add(
            "M7", f"{name}() on {getattr(x, 'name', '?')}",
            ("the result is thrown away", place),
            ("what it waits for began", began or place),
        )  # fmt: skip

    # looking without sleeping

    def try_wait(self, original: Hook, x: Completion) -> bool:
        """Takes a token or says that there is none; both are a second look (M17)."""
        if not self._lifetime.initialised(x, "try_wait_for_completion()"):
            return bool(original(x))
        record = self._evidence.of(x)
        found = bool(original(x))
        record.settled = True
        if found and record.opened is None and record.posts:
            try:
                record.posts.popleft()
            except IndexError:
                pass
        if found:
            record.last = record.polled = None
        return found

    def completion_done(self, original: Hook, x: Completion) -> bool:
        """Remembered if it says yes, for what is made of that (M23)."""
        if not self._lifetime.initialised(x, "completion_done()"):
            return bool(original(x))
        record = self._evidence.of(x)
        done = bool(original(x))
        if not in_core(sys._getframe(2)):
            record.settled = True
            if done:
                record.done_seen, record.polled = here(), None
        return done

    def read_done(self, original: Hook, x: Completion) -> int:
        """``x.done`` orders nothing: remembered if it is not 0, for a free that follows (M9)."""
        done = int(original(x))
        if done and not in_core(sys._getframe(2)):
            record = self._evidence.find(x)
            if record is not None:
                record.polled = here()
        return done

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
