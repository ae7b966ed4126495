# SPDX-License-Identifier: MIT
"""The producer's side: complete(), complete_all(), reinit_completion(), writes to ``done``.

M4, M5, M12, M13, M14, M17, M19, M22, M23, M24; and M1, M8 where a post shows them.
"""

from __future__ import annotations

import sys
from typing import Any

from udriver.checker.evidence import Evidence
from udriver.checker.history import TOKEN, Post, Record
from udriver.checker.lifetime import Lifetime
from udriver.checker.locks import Locks
from udriver.checker.patch import Hook
from udriver.checker.place import Place, here, in_core
from udriver.kernel import completion
from udriver.kernel.completion import Completion

__all__ = ["Posting"]


class Posting:
    """Hooks of whoever completes."""

    def __init__(self, evidence: Evidence, lifetime: Lifetime, locks: Locks) -> None:
        self._evidence = evidence
        self._add = evidence.reports.add
        self._lifetime = lifetime
        self._locks = locks

    def hooks(self) -> dict[Any, Hook]:
        """Function of the core: what is called instead."""
        done: Any = completion.Completion.done
        return {
            completion.complete: self.complete,
            completion.complete_all: self.complete_all,
            completion.reinit_completion: self.reinit,
            Completion.put_back: self.put_back,
            done.fset: self.write_done,
        }

    def complete(self, original: Hook, x: Completion) -> None:
        """A token, kept in the record before it is in ``done``: a waiter may be faster than we."""
        if not self._lifetime.initialised(x, "complete()"):
            original(x)
            return
        record = self._evidence.of(x)
        if record.core:
            original(x)
            return
        post = self._evidence.post()
        self._before(record, x, post)
        if record.opened is not None:
            self._open_already(record, "complete()", post, record.opened)
        else:
            self._count(record, post)
            self._note_waiters(record, x, post)
            record.posts.append(post)
        try:
            original(x)
        except BaseException:  # a signal handler's: posted or not, nobody can tell
            record.unsure = True
            raise

    def complete_all(self, original: Hook, x: Completion) -> None:
        """Opens it for good."""
        if not self._lifetime.initialised(x, "complete_all()"):
            original(x)
            return
        record = self._evidence.of(x)
        if record.core:
            original(x)
            return
        post = self._evidence.post()
        self._before(record, x, post)
        if record.opened is not None:
            self._open_already(record, "complete_all()", post, record.opened)
        elif record.operation is not None:
            record.operation.posts.append(post)
        record.opened = post
        record.posts.clear()
        original(x)

    def _open_already(self, record: Record, call: str, post: Post, opened: Post) -> None:
        if record.kind:
            return  # who completes races with who ends it all, and one too many does no harm there
        self._add(
            "M13", f"{call} of {record.name}",
            (f"{call}, which does nothing", post.place),
            ("complete_all() had opened it for good, and no reinit_completion() since",
             opened.place),
        )  # fmt: skip

    def _before(self, record: Record, x: Completion, post: Post) -> None:
        """What holds for both: the object, the locks, the wait that was given up."""
        record.virgin = False
        alive = self._lifetime.posted(record, post)
        self._locks.completing(record, post)
        section = self._evidence.section()
        record.latest = post
        if section is not None:
            record.completers[id(section.action)] = post.tick
            section.posts.append(record)
        if not alive or record.quiet or section is None or not record.abandoned():
            return
        assert record.last is not None
        record.overdue = (post, record.last)  # unless who gave up, or who called it, looks again
        record.settled = True

    def _count(self, record: Record, post: Post) -> None:
        """M12, M22, M24: a second token for one event."""
        if record.quiet or record.waits:
            if record.operation is not None:
                record.operation.posts.append(post)
            return
        operation = record.operation
        if operation is not None:
            earlier = operation.posts[-1] if operation.posts else None
            operation.posts.append(post)
            if earlier is None:
                return
            if operation.ident is not None:
                rule, which = "M22", f"operation {operation.ident!r} of {record.name}"
            else:
                rule, which = _second_party(earlier, post), f"the operation of {record.name}"
        elif record.reinits and (earlier := record.newest()) is not None:
            rule, which = _second_party(earlier, post), record.name
        else:
            return
        self._add(
            rule, f"a second complete() for {which}",
            ("complete() once more", post.place), ("the first one", earlier.place),
        )  # fmt: skip

    def _note_waiters(self, record: Record, x: Completion, post: Post) -> None:
        """M14 shows when one of several waiters is left behind: see Waiting."""
        waiting = len(x.wait_queue)
        if waiting > 1 and not record.kind:
            record.alone = (post, waiting)

    def put_back(self, original: Hook, x: Completion, taken: list[object]) -> None:
        """A waiter gives its token back; the core does so for a wait that has not ended yet."""
        record = self._evidence.of(x)
        if taken and not in_core(sys._getframe(2)) and record.opened is None:
            record.posts.append(self._evidence.post())
        original(x, taken)

    def write_done(self, original: Hook, x: Completion, count: int) -> None:
        """M24, the plain case."""
        record = self._evidence.of(x)
        if not record.core:
            self._add(
                "M24", f"done of {record.name} is written to",
                ("the write", here()),
                ("the completion was initialised", record.born or _unknown()),
            )  # fmt: skip
            record.unsure = True
        original(x, count)

    # re-arming

    def reinit(self, original: Hook, x: Completion) -> None:
        """``done = 0``."""
        if not self._lifetime.initialised(x, "reinit_completion()"):
            original(x)
            return
        record = self._evidence.of(x)
        if not record.core:
            self._lifetime.nobody_looked(record)
            self._judge_reinit(record, here())
        original(x)
        record.posts.clear()
        record.opened = record.last = record.alone = record.done_seen = record.polled = None
        record.settled = record.failed = record.unsure = record.virgin = False
        record.reinits += 1

    def _judge_reinit(self, record: Record, place: Place) -> None:
        waits = record.waiting()
        if waits:
            rule = "M23" if record.done_seen else "M5"
            second = (
                ("completion_done() had said that it is done", record.done_seen)
                if record.done_seen
                else ("a waiter has not returned from here", waits[0].place)
            )
            self._add(
                rule, f"reinit of {record.name} with {len(waits)} waiters",
                ("reinit_completion()", place), second,
            )  # fmt: skip
        operation = record.operation
        if operation is not None and operation.ended is None and not operation.stopped:
            lost = " and threw its token away" if operation.posts else ""
            self._add(
                "M4", f"reinit of {record.name} after its operation was started{lost}",
                ("reinit_completion()", place), ("the operation was started", operation.place),
            )  # fmt: skip
        elif not record.quiet and (post := record.newest()) is not None:
            self._note_dropped(record, place, post)

    def _note_dropped(self, record: Record, place: Place, post: Post) -> None:
        """A fresh token of another party's is thrown away: M4, if the next wait times out."""
        fresh = record.last is None or record.last.outcome == TOKEN
        if fresh and (post.section or post.place.task != place.task):
            record.dropped = (post, place)


def _second_party(earlier: Post, post: Post) -> str:
    same = (earlier.place.task, earlier.place.context) == (post.place.task, post.place.context)
    return "M12" if same else "M24"


def _unknown() -> Place:
    return Place("?", "process", ())
