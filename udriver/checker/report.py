# SPDX-License-Identifier: MIT
"""A report in the shape of a lockdep splat, and the list that reports are kept in.

Reports are made in any context, a signal handler included: keeping one is one C call on a dict
or a deque, printing it one write(2). No lock, no buffered stream.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from udriver.checker.place import Place, Spot
from udriver.checker.rules import RULES

__all__ = ["Report", "Reports"]

RULER = "=" * 60
Stack = tuple[str, Place]


class Report:
    """One mistake. ``stacks`` are its two places, each with what was done there.

    ``count`` says how often it was made; it is reported the first time only, as WARN_ON_ONCE().
    """

    __slots__ = ("_repeats", "rule", "stacks", "subject")

    def __init__(self, rule: str, subject: str, stacks: Sequence[Stack]) -> None:
        self.rule = rule
        self.subject = subject
        self.stacks = tuple(stacks)
        self._repeats: deque[None] = deque([None])

    @property
    def title(self) -> str:
        """What the rule is called."""
        return RULES[self.rule].title

    @property
    def places(self) -> tuple[Spot, ...]:
        """The lines of code, the mistake's own first."""
        return tuple(place.top for _, place in self.stacks)

    @property
    def count(self) -> int:
        """How often it was made at these places."""
        return len(self._repeats)

    def again(self) -> None:
        """It was made once more. Any context."""
        self._repeats.append(None)

    def __str__(self) -> str:
        rule = RULES[self.rule]
        task = self.stacks[0][1]
        where = "" if task.context == "process" else f", in hardirq context: {task.context}"
        lines = [
            RULER,
            f"WARNING: {rule.title} [{self.rule}]",
            f"{task.task}/{os.getpid()}{where}: {self.subject}",
            "-" * len(RULER),
        ]
        for done, place in self.stacks:
            context = "" if place.context == "process" else f" [{place.context}]"
            lines.append(f"{done}, {place.task}{context}:")
            lines += [f"  {_short(spot)}" for spot in place.spots] or ["  (before the checker)"]
            lines.append("")
        lines += [f"what goes wrong: {rule.harm}.", f"to fix it: {rule.fix}."]
        lines += [f"if it is right as it is: {rule.unless}."] if rule.unless else []
        lines.append(RULER)
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Report {self.rule} {', '.join(f'{s.file}:{s.line}' for s in self.places)}>"


def _short(spot: Spot) -> str:
    """The path from the current directory, where it is below it."""
    path = Path(spot.file)
    try:
        path = path.relative_to(Path.cwd())
    except (ValueError, OSError):
        pass
    return f"{path}:{spot.line} {spot.function}()"


class Reports:
    """What ``checking()`` gives: a sequence of Report, the oldest first; true if there is one."""

    def __init__(self, allow: Collection[str] = (), *, stderr: bool = True) -> None:
        unknown = set(allow) - set(RULES)
        if unknown:
            raise ValueError(f"there is no rule {', '.join(sorted(unknown))}; M1..M24, I1..I6")
        self.allowed = frozenset(allow)
        self._stderr = stderr
        self._all: deque[Report] = deque()
        self._known: dict[tuple[object, ...], Report] = {}
        self._closed = False

    def add(self, rule: str, subject: str, *stacks: Stack) -> None:
        """Keep and print a report, unless its rule is allowed or its places are known.

        Any context.
        """
        if rule in self.allowed or self._closed:
            return
        report = Report(rule, subject, stacks)
        known = self._known.setdefault((rule, *report.places), report)
        if known is not report:
            known.again()
            return
        self._all.append(report)
        if self._stderr:
            try:
                os.write(2, f"{report}\n".encode(errors="replace"))
            except OSError:
                pass  # stderr is closed or full; the report is kept

    def close(self) -> None:
        """The block is over: what dies later is not reported any more."""
        self._closed = True

    def __iter__(self) -> Iterator[Report]:
        return iter(tuple(self._all))

    def __len__(self) -> int:
        return len(self._all)

    def __getitem__(self, index: int) -> Report:
        return self._all[index]

    @property
    def rules(self) -> list[str]:
        """The ids of the rules that were broken, in the order of the reports."""
        return [report.rule for report in self]

    def __str__(self) -> str:
        return "\n".join(map(str, self))
