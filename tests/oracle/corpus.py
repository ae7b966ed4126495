# SPDX-License-Identifier: MIT
"""The frozen logs: what the kernel did, script by script, checked in so that no VM is needed.

The file begins with the kernel's release; then, for each script, its line, its log, an empty line.
"""

from __future__ import annotations

import lzma
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.oracle.ours import Ours
from tests.oracle.script import Script, parsed, text
from tests.oracle.wrong import WRONG, mistaken

FROZEN = Path(__file__).with_name("kernel_logs.xz")


@dataclass(frozen=True, slots=True)
class Entry:
    """A script and what the kernel logged."""

    script: Script
    log: str


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two logs part."""

    script: Script
    step: int
    kernel: str
    ours: str

    def __str__(self) -> str:
        return (
            f"script:  {text(self.script)}\nstep {self.step + 1}:  "
            f"{' & '.join(map(str, self.script[self.step]))}\n"
            f"kernel:  {self.kernel}\nudriver: {self.ours}"
        )


def read(path: Path = FROZEN) -> tuple[str, list[Entry]]:
    """The kernel's release, and its logs."""
    release, _, rest = lzma.decompress(path.read_bytes()).decode("ascii").partition("\n\n")
    entries = []
    for part in rest.rstrip("\n").split("\n\n"):
        line, _, log = part.partition("\n")
        entries.append(Entry(parsed(line), log + "\n"))
    return release, entries


def write(release: str, entries: Iterable[Entry], path: Path = FROZEN) -> int:
    """Write the file; its size in bytes."""
    parts = [f"{release}\n", *(f"{text(entry.script)}\n{entry.log}" for entry in entries)]
    path.write_bytes(
        lzma.compress("\n".join(parts).encode("ascii"), preset=9 | lzma.PRESET_EXTREME)
    )
    return path.stat().st_size


def difference(script: Script, kernel: str, ours: str) -> Difference | None:
    """The first step whose line is another."""
    if kernel == ours:
        return None
    theirs, mine = kernel.splitlines(), ours.splitlines()
    for step in range(len(script)):
        pair = [lines[step] if step < len(lines) else "(nothing)" for lines in (theirs, mine)]
        if pair[0] != pair[1]:
            return Difference(script, step, *pair)
    raise AssertionError(f"logs of {text(script)} differ, and their lines do not")


def differences(entries: Iterable[Entry], ours: Ours) -> Iterator[Difference]:
    """Every entry that we play differently."""
    for entry in entries:
        if (found := difference(entry.script, entry.log, ours.play(entry.script))) is not None:
            yield found


def first_caught(name: str, entries: Iterable[Entry]) -> tuple[int, Difference] | None:
    """How many scripts it takes to catch the wrong core ``name``, and the difference."""
    with Ours() as ours, mistaken(WRONG[name]):
        for number, entry in enumerate(entries, 1):
            if (found := difference(entry.script, entry.log, ours.play(entry.script))) is not None:
                return number, found
    return None


def telling_first(entries: list[Entry], say: Callable[[str], object]) -> list[Entry]:
    """Reordered: in front the few entries, the shortest there are, that catch every wrong core."""
    candidates = sorted(entries, key=lambda entry: len(text(entry.script)))
    catchers: dict[str, set[int]] = {}
    for name, replacements in WRONG.items():
        with Ours() as ours, mistaken(replacements):
            catchers[name] = {
                number for number, entry in enumerate(candidates)
                if ours.play(entry.script) != entry.log
            }  # fmt: skip
        say(f"{len(catchers[name]):6} scripts catch: {name}")
    chosen: list[int] = []
    uncaught = {name for name, numbers in catchers.items() if numbers}
    while uncaught:
        best = max(range(len(candidates)), key=lambda n: sum(n in catchers[w] for w in uncaught))
        chosen.append(best)
        uncaught = {name for name in uncaught if best not in catchers[name]}
    front = [candidates[number] for number in chosen]
    return front + [entry for entry in entries if entry not in front]
