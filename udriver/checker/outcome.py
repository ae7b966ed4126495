# SPDX-License-Identifier: MIT
"""What the end of a wait shows: M3, M4, M14, M15, M21."""

from __future__ import annotations

from udriver.checker.evidence import Evidence
from udriver.checker.history import Post, Record, Wait
from udriver.checker.lines import Lines

__all__ = ["Outcome"]


class Outcome:
    """Judges a wait that has just ended; ``record.last`` is still the one before it."""

    def __init__(self, evidence: Evidence, lines: Lines) -> None:
        self._evidence = evidence
        self._add = evidence.reports.add
        self._lines = lines

    def token(self, record: Record, wait: Wait, post: Post) -> None:
        """It took ``post``: M3, M14."""
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
        if last is None or not record.given_up() or post is record.opened:
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

    def timeout(self, record: Record, wait: Wait) -> None:
        """Its time was up: M4, M14, M15, M21."""
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
            run, posted = line.silent, record.completers.get(id(line.action), 0)
            if not line.partial and run is not None and run > wait.tick > posted:
                self._add(
                    "M15", f"{line.action.name} handled an interrupt without complete()",
                    (f"{wait.function}() timed out on {record.name}", wait.place),
                    ("the handler that completes it ran meanwhile, and did not",
                     line.handler_place()),
                )  # fmt: skip

    def _judge_other_event(self, record: Record, wait: Wait) -> None:
        """M21: what this task started ended meanwhile, on a completion that nobody waits for."""
        if record.operation is not None or record.kind:
            return
        mine = self._evidence.cpu.started
        other = mine() if mine is not None else None
        if other is None or other is record or other.operation is None or other.waits:
            return
        if any(post.tick > wait.tick for post in list(other.operation.posts)):
            self._add(
                "M21", f"wait on {record.name} for an operation of {other.name}",
                (f"{wait.function}() timed out on {record.name}", wait.place),
                (f"the operation that ended meanwhile completes {other.name}",
                 other.operation.place),
            )  # fmt: skip
