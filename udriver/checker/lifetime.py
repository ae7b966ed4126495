# SPDX-License-Identifier: MIT
"""From init_completion() to the end of its scope.

M1, M2, M8, M9, M23, I5; and what is still open when the checker ends (M15, M17, M19).
"""

from __future__ import annotations

from typing import Any

from udriver.checker.birth import home_of
from udriver.checker.evidence import Evidence
from udriver.checker.history import SIGNAL, TIMEOUT, TOKEN, Post, Record
from udriver.checker.lines import Lines
from udriver.checker.patch import Hook
from udriver.checker.place import Place, Spot, here
from udriver.kernel.completion import Completion

__all__ = ["Lifetime"]


class Lifetime:
    """Hooks of whoever owns a completion."""

    def __init__(self, evidence: Evidence, lines: Lines) -> None:
        self._evidence = evidence
        self._add = evidence.reports.add
        self._lines = lines
        evidence.on_death = self._died

    def hooks(self) -> dict[Any, Hook]:
        """Function of the core: what is called instead."""
        return {
            Completion.__init__: self.init,
            Completion.__enter__: self.enter_scope,
            Completion.__exit__: self.leave_scope,
        }

    # the beginning

    def init(self, original: Hook, x: Completion, name: str = "completion") -> None:
        """Completion(), and init_completion(), which calls the same."""
        record = self._evidence.find(x)
        if record is None and hasattr(x, "_done"):
            record = self._evidence.of(x)  # older than the checker
        if record is None:
            original(x, name)
            self._late(self._evidence.born(x, name), x)
            return
        place = here()
        if not record.core and not record.virgin:
            self._again(record, place)
        original(x, name)
        record.posts.clear()
        record.virgin = False
        record.born = place

    def _again(self, record: Record, place: Place) -> None:
        waits = record.waiting()
        line = self._lines.armed(record)
        second = ("it was initialised", record.born or place)
        state = "which is initialised already"
        if waits:
            second = ("a waiter that is orphaned by it", waits[0].place)
            state = f"with {len(waits)} waiters"
        elif line is not None:
            second = ("the handler that completes it was requested", line.asked)
            state = f"while {line.action.name} may complete it"
        if waits and record.done_seen:
            self._nobody_waits(record, place, "init_completion()")
            return
        self._add(
            "M2", f"init_completion() of {record.name}, {state}",
            ("init_completion()", place), second,
        )  # fmt: skip

    def _late(self, record: Record, x: Completion) -> None:
        """M1: a handler may run already, and look where this one will be stored."""
        home = home_of(x)
        if home is None:
            return
        for line in self._lines.lines():
            if not home.looked_at_by(line.action):
                continue
            place = line.missing.get(home.name)
            if place is None:
                record.late[id(line.action)] = line.asked  # if it completes it, it could before
            else:
                self._add(
                    "M1", f"{record.name} is initialised after the irq of {line.action.name}",
                    ("it is initialised", record.born or place),
                    ("the handler looked for it and did not find it", place),
                )  # fmt: skip

    def initialised(self, x: Completion, call: str) -> bool:
        """Whether it is one at all; M1 if not."""
        if hasattr(x, "_done"):
            return True
        code = getattr(type(x).__init__, "__code__", None)
        place = here()
        made = Place("any task", "process", ())
        if code is not None and type(x) is not Completion:
            spot = Spot(code.co_filename, code.co_firstlineno, code.co_qualname)
            made = Place("any task", "process", (spot,))
        self._add(
            "M1", f"{call} on a {type(x).__name__} that was never initialised",
            (call, place), ("Completion.__init__() should have been called here", made),
        )  # fmt: skip
        return False

    # in between

    def posted(self, record: Record, post: Post) -> bool:
        """M1 and M8, which show when it is completed; false if there is nothing more to say."""
        section = self._evidence.section()
        if section is not None and (asked := record.late.get(id(section.action))) is not None:
            self._add(
                "M1", f"{record.name} is initialised after the irq that completes it",
                ("it is initialised", record.born or post.place),
                (f"the handler of {section.action.name} was requested before", asked),
            )  # fmt: skip
        ended = record.ended
        says = "its scope had ended"
        if ended is None and record.owner is not None and record.owner.over():
            ended, says = record.born, "declared on the stack of a function that has returned"
        if ended is not None:
            self._add(
                "M8", f"complete() of {record.name}, which is no more",
                ("complete()", post.place), (says, ended),
            )  # fmt: skip
        return ended is None

    def nobody_looked(self, record: Record) -> None:
        """M17, M19: a token came after its waiter had left, and it is used again, or ends."""
        overdue, record.overdue = record.overdue, None
        if overdue is None:
            return
        post, last = overdue
        self._add(
            "M19" if last.outcome == SIGNAL else "M17",
            f"{record.name} completed after its waiter had left",
            ("complete() comes late", post.place),
            (f"the wait ended by {last.outcome} and its function returned", last.wait.place),
        )  # fmt: skip

    # the end

    def enter_scope(self, original: Hook, x: Completion) -> Completion:
        """``with x:`` begins, be it for a second time."""
        self._evidence.of(x).ended = None
        return original(x)  # type: ignore[no-any-return]

    def leave_scope(self, original: Hook, x: Completion, *exc_info: object) -> None:
        """``with x:`` ends."""
        record = self._evidence.of(x)
        if not record.core:
            self.nobody_looked(record)
            self._judge_end(record, here())
        original(x, *exc_info)

    def _judge_end(self, record: Record, place: Place) -> None:
        waits = record.waiting()
        end = ("its scope ends", place)
        armed = self._armed(record)
        if waits and record.done_seen:
            self._nobody_waits(record, place, "end of its scope")
        elif waits:
            self._add(
                "M9", f"{record.name} goes out of scope with {len(waits)} waiters",
                end, ("a waiter that has not returned", waits[0].place),
            )  # fmt: skip
        elif record.polled is not None:
            self._add(
                "M9", f"{record.name} goes out of scope after a look at its `done`",
                end, ("`done` was read, which does not wait for complete() to end", record.polled),
            )  # fmt: skip
        elif armed is not None and record.last is not None and record.last.outcome != TOKEN:
            self._add(
                "M8", f"{record.name} goes out of scope after a {record.last.outcome}, {armed[0]}",
                end, (f"the wait ended by {record.last.outcome}", record.last.wait.place),
                ("what completes it began", armed[1]),
            )  # fmt: skip
        elif record.operation is None and (line := self._lines.reaching(record)) is not None:
            self._add(
                "I5", f"{record.name} is freed before the irq whose handler uses it",
                end, ("the handler was requested, and not freed", line.asked),
            )  # fmt: skip
        record.ended = place

    def _nobody_waits(self, record: Record, place: Place, what: str) -> None:
        waits = record.waiting()
        assert record.done_seen is not None
        self._add(
            "M23", f"{record.name} has {len(waits)} waiters, whatever completion_done() says",
            (what, place), ("completion_done() had said that it is done", record.done_seen),
            *[("a waiter that has not returned", wait.place) for wait in waits[:1]],
        )  # fmt: skip

    def _armed(self, record: Record) -> tuple[str, Place] | None:
        """Who may still complete it."""
        operation = record.operation
        if operation is not None:
            under_way = not operation.stopped and not operation.posts
            return ("with its operation under way", operation.place) if under_way else None
        line = self._lines.armed(record)
        return (f"with {line.action.name} armed", line.asked) if line is not None else None

    def _died(self, record: Record) -> None:
        """Nobody refers to it any more, and its operation is under way."""
        self.nobody_looked(record)
        operation, last = record.operation, record.last
        if operation is None or operation.stopped or operation.posts or record.ended is not None:
            return
        if last is not None and last.outcome != TOKEN and last.tick > operation.tick:
            self._add(
                "M8", f"{record.name} was freed after a {last.outcome} with its operation under way",
                (f"the wait ended by {last.outcome}, and it was freed", last.wait.place),
                ("the operation was started", operation.place),
            )  # fmt: skip

    def at_end(self) -> None:
        """Who still waits, and what was given up."""
        for record in self._evidence.records():
            if record.core or record.born is None:
                continue  # older than the block: whoever waits may have all the time in the world
            for wait in record.waiting()[:1]:
                self._add(
                    "M15", f"somebody still waits for {record.name}",
                    (f"{wait.function}()", wait.place),
                    ("what it waits for began", record.began() or wait.place),
                )  # fmt: skip
            self.nobody_looked(record)
            self._given_up(record)

    def _given_up(self, record: Record) -> None:
        operation, last = record.operation, record.last
        if last is None or not record.abandoned() or record.ended is not None:
            return
        armed = self._armed(record)
        if record.owner is not None and record.owner.over() and armed is not None:
            self._add(
                "M8", f"{record.name} was on a stack, and its completer is armed",
                (f"the wait ended by {last.outcome} and its function returned", last.wait.place),
                ("what completes it began", armed[1]),
            )  # fmt: skip
        elif operation is not None and not operation.stopped and last.tick > operation.tick:
            rule = {SIGNAL: "M19", TIMEOUT: "M17"}[last.outcome]
            self._add(
                rule, f"the operation of {record.name} was given up and not stopped",
                (f"the wait ended by {last.outcome} and its function returned", last.wait.place),
                ("the operation was started", operation.place),
            )  # fmt: skip
