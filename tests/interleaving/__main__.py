# SPDX-License-Identifier: MIT
"""Every interleaving of small programs on the completion core.

    python -m tests.interleaving                  what is listed in suite.py, in about four minutes
    python -m tests.interleaving --quick          a part, in seconds
    python -m tests.interleaving --deep           larger programs, preemption-bounded; takes long
    python -m tests.interleaving --wrong          the wrong cores, each until it is caught
    python -m tests.interleaving --replay SEED    a schedule step by step; with --core NAME on a wrong core

Exit status: 0 when nothing is wrong with the GIL, 1 when something is, 2 for a wrong argument. What is
wrong without the GIL is shown, and known: docs/interleaving.md.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from tests.interleaving.seed import listing, seed_of
from tests.interleaving.suite import DEEP, FULL, QUICK, WITHOUT_GIL, Part, Row, core, run
from tests.interleaving.wrong import WRONG, caught, mistaken


def explored(parts: Sequence[Part], console: Console) -> list[Row]:
    """Run the parts, with a line for each."""
    automaton = core()
    rows = []
    for part in parts:
        row = run(part, automaton)
        rows.append(row)
        for kind, (many, seed) in row.faults.items():
            console.print(f"{part.name}: {kind} in {many} programs: {seed}", markup=False)
        print(f"{part.name}: {row.programs} programs, {row.seconds:.1f} s", file=sys.stderr)
    return rows


def table(rows: Sequence[Row]) -> Table:
    """A line for each part."""
    result = Table()
    for name in (
        "programs of",
        "from",
        "bound",
        "programs",
        "interleavings",
        "states",
        "s",
        "wrong",
    ):
        result.add_column(name, justify="left" if name in ("programs of", "from") else "right")
    for row in rows:
        part = row.part
        bound = "exhaustive" if part.bound is None else f"{part.bound} preemptions"
        wrong = max((many for many, _ in row.faults.values()), default=0)
        result.add_row(part.name, part.letters, bound, f"{row.programs:,}", counted(row.interleavings),
                       f"{row.states:,}", f"{row.seconds:.1f}", str(wrong))  # fmt: skip
    return result


def counted(many: int) -> str:
    """All digits, or three when there are too many."""
    return f"{many:,}" if many < 10**12 else f"{many:.2e}"


def totals(rows: Sequence[Row]) -> str:
    """What was done, in a sentence."""
    whole = [row for row in rows if row.part.bound is None]
    rest = [row for row in rows if row.part.bound is not None]
    said = f"{_sum(whole)}, exhaustive"
    return said + (f"; {_sum(rest)}, all of those within their bound" if rest else "")


def _sum(rows: Sequence[Row]) -> str:
    programs, ways = sum(row.programs for row in rows), sum(row.interleavings for row in rows)
    return f"{programs:,} programs, {counted(ways)} interleavings"


def wrong_cores(console: Console) -> bool:
    """Whether each of them is caught."""
    all_caught = True
    for name in WRONG:
        found = caught(name)
        if found is None:
            all_caught = False
            console.print(f"NOT CAUGHT: {name}", markup=False)
            continue
        check, verdict = found
        with mistaken(WRONG[name]):
            seed = seed_of(check, next(iter(verdict.faults)))
        kinds = ", ".join(verdict.faults)
        console.print(f"{name}: {kinds}\n    --core '{name}' --replay '{seed}'", markup=False)
    return all_caught


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser("tests.interleaving", description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--deep", action="store_true")
    parser.add_argument("--wrong", action="store_true")
    parser.add_argument("--replay", metavar="SEED")
    parser.add_argument("--core", metavar="NAME", choices=sorted(WRONG))
    given = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 160)
    if given.wrong:
        return 0 if wrong_cores(console) else 1
    if given.replay:
        return replay(parser, given.replay, given.core)
    began = time.monotonic()
    rows = explored(QUICK if given.quick else DEEP if given.deep else FULL, console)
    free = explored(WITHOUT_GIL[:4] if given.quick or given.deep else WITHOUT_GIL, console)
    console.print(table(rows + free))
    console.print(f"With the GIL: {totals(rows)}.", markup=False)
    console.print(f"Without it:   {totals(free)}.", markup=False)
    console.print(f"{time.monotonic() - began:.0f} s")
    return 1 if any(row.faults for row in rows) else 0


def replay(parser: argparse.ArgumentParser, seed: str, name: str | None) -> int:
    """Print the listing; 1 if something is wrong at its end."""
    with mistaken(WRONG[name]) if name else contextlib.nullcontext():
        try:
            text, faults = listing(seed, core())
        except ValueError as error:
            parser.error(str(error))
    print(text)
    for kind, sentence in faults.items():
        print(f"{kind}: {sentence}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
