# SPDX-License-Identifier: MIT
"""The same scripts on the real kernel and on udriver; the first that differs is shrunk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.oracle.corpus import Difference, Entry, difference
from tests.oracle.coverage import Coverage
from tests.oracle.ours import Ours
from tests.oracle.script import Script, encoded
from tests.oracle.strategy import explored
from vm.oracle.stage import DISTURBED, Stage


class Differs(Exception):
    """Carries the difference out of Hypothesis."""

    def __init__(self, difference: Difference) -> None:
        super().__init__(str(difference))
        self.difference = difference


@dataclass(slots=True)
class Report:
    """What became of a number of scripts."""

    entries: list[Entry] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    disturbed: int = 0  # real time got in the way sixty times running: no verdict
    coverage: Coverage = field(default_factory=Coverage)


class Kernel:
    """A stage that remembers: what was asked once is not played again."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._logs: dict[Script, str] = {}

    def logs(self, scripts: Sequence[Script]) -> list[str]:
        """The kernel's log of each, all new ones in one go."""
        new = [script for script in dict.fromkeys(scripts) if script not in self._logs]
        if new:
            played = self._stage.play([encoded(script) for script in new])
            self._logs.update(zip(new, played, strict=True))
        return [self._logs[script] for script in scripts]

    def steady(self, scripts: Sequence[Script]) -> bool:
        """Whether the kernel does the same again."""
        return self._stage.play([encoded(script) for script in scripts]) == self.logs(scripts)

    def compared(self, scripts: Iterable[Script]) -> Report:
        """Every script once, on both."""
        distinct = list(dict.fromkeys(scripts))
        report = Report()
        with Ours(report.coverage) as ours:
            for script, log in zip(distinct, self.logs(distinct), strict=True):
                if log == DISTURBED:
                    report.disturbed += 1
                    continue
                report.entries.append(Entry(script, log))
                found = difference(script, log, ours.play(script))
                if found is not None:
                    report.differences.append(found)
        return report

    def shrunk(self, count: int, seed: int) -> Difference | None:
        """The smallest script that differs, of those that Hypothesis makes of this seed."""
        with Ours() as ours:

            def check(script: Script) -> None:
                (log,) = self.logs([script])
                found = None if log == DISTURBED else difference(script, log, ours.play(script))
                if found is not None:
                    raise Differs(found)

            try:
                explored(check, count, seed, shrink=True)
            except Differs as differs:
                return self._trimmed(differs.difference, ours)
        return None

    def _trimmed(self, found: Difference, ours: Ours) -> Difference:
        """Not an operation too many: Hypothesis gives up after 200 tries in vain, this does not."""
        while True:
            shorter = list(_shorter(found.script))
            for script, log in zip(shorter, self.logs(shorter), strict=True):
                smaller = difference(script, log, ours.play(script))
                if log != DISTURBED and smaller is not None:
                    found = smaller
                    break
            else:
                return found


def _shorter(script: Script) -> Iterator[Script]:
    """The same without a step, or without an operation."""
    for index, step in enumerate(script):
        before, after = script[:index], script[index + 1 :]
        if before or after:
            yield (*before, *after)
        if len(step) > 1:
            yield from (
                (*before, (*step[:skipped], *step[skipped + 1 :]), *after)
                for skipped in range(len(step))
            )
