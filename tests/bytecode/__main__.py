# SPDX-License-Identifier: MIT
"""A signal handler at every bytecode boundary: of udriver, and of the standard library beside it.

    python -m tests.bytecode                   this interpreter, everything: about a quarter of an hour
    python -m tests.bytecode --quick           a sample, in half a minute
    python -m tests.bytecode --all             each interpreter found: PATH, pyenv, this one
    python -m tests.bytecode --python 3.12,/opt/python3.13/bin/python3 --groups completion,driver

Run it from the repository's root. Other interpreters need nothing installed: they are shown this one's
pyserial, which is pure Python, through PYTHONPATH.

Exit status: 0 when all of udriver's columns are 0, 1 when one is not, 2 for a wrong argument.
"""

from __future__ import annotations

import argparse
import glob
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from tests.bytecode.public import EXEMPT, public_functions
from tests.bytecode.sweep import GROUPS, Plan, Row

__all__ = ["main"]

ROOT = Path(__file__).parents[2]
OURS = ("completion", "irq", "kfifo", "other", "driver")
SUPPORTED = ("3.11", "3.12", "3.13")
WAYS = {
    "call": "called",
    "raise": "signal",
    "pend": "signal pending",
    "two deep": "two deep",
    "timer": "timer",
}
KINDS = ("D", "L", "S", "W", "E")
LEGEND = (
    "Cases, and how many of them went wrong: D deadlock, L lost wake-up, S the handler ran only after the "
    "sleep it was to end, W wrong count or state, E exception. called: as a function at the boundary; "
    "signal: a real one, handled there; signal pending: a real one, handled when CPython looks; "
    "two deep: a handler interrupts the handler; timer: at random times, untraced."
)


def interpreters() -> dict[str, str]:
    """Version and path of each supported one: this, those on PATH, pyenv's."""
    found = {platform.python_version().rpartition(".")[0]: sys.executable}
    for version in SUPPORTED:
        pyenv = sorted(glob.glob(os.path.expanduser(f"~/.pyenv/versions/{version}*/bin/python")))
        path = shutil.which(f"python{version}")
        for candidate in [*filter(None, [path]), *reversed(pyenv)]:
            if version not in found and _version(candidate) == version:
                found[version] = candidate
    return {version: found[version] for version in sorted(found)}


def _version(path: str) -> str:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    ran = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
    return ran.stdout.strip()  # nothing from a pyenv shim without that version


def environment() -> dict[str, str]:
    """For any interpreter: this repository, and the folder that pyserial is in."""
    spec = importlib.util.find_spec("serial")
    assert spec is not None
    assert spec.origin is not None
    path = [ROOT, ROOT / "hw", Path(spec.origin).parents[1]]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}


def rows(python: str, plan: Plan) -> Iterator[Row]:
    """Run the sweep under ``python``; the rows as they come."""
    command = [python, "-m", "tests.bytecode.sweep", json.dumps(plan)]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                yield json.loads(line)
        finally:
            process.terminate()
    if process.returncode:
        raise SystemExit(f"{python} -m tests.bytecode.sweep ended with {process.returncode}")


def never_interrupted(found: Sequence[Row], which: Literal["seen", "reachable"]) -> list[str]:
    """Public functions of udriver.kernel that no case has interrupted, or could have."""
    seen = {(os.path.basename(file), name) for row in found for file, name in row[which]}
    public = {(os.path.basename(file), name) for file, name in public_functions()}
    return sorted(f"{file}:{name}" for file, name in public - seen if name not in EXEMPT)


def bad(found: Sequence[Row]) -> list[str]:
    """What went wrong with ours."""
    return [
        f"{row['program']}: {failure}"
        for row in found
        if row["group"] in OURS
        for failure in row["failures"]
    ]


def table(title: str, found: Sequence[Row]) -> Table:
    """One line for each object."""
    result = Table(title=title)
    for name in ("object", "boundaries", *WAYS.values()):
        result.add_column(name, justify="left" if name == "object" else "right")
    for group in GROUPS:
        mine = [row for row in found if row["group"] == group]
        if mine:
            label = f"udriver {group}" if group in OURS else group
            boundaries = sum(row["points"] for row in mine)
            cells = [_cell(mine, way) for way in WAYS]
            result.add_row(label, f"{boundaries:,}", *cells, end_section=group == OURS[-1])
    return result


def _cell(found: Sequence[Row], way: str) -> str:
    ways = [row["ways"].get(way, {}) for row in found]
    wrong = {kind: sum(counts.get(kind, 0) for counts in ways) for kind in KINDS}
    cases = sum(counts.get("cases", 0) for counts in ways)
    return f"{cases:,}: " + (" ".join(f"{k}{n:,}" for k, n in wrong.items() if n) or "0")


def machine() -> str:
    """Where and when: a table without it says nothing."""
    return f"{platform.machine()}, {os.cpu_count()} CPUs, Linux {platform.release().split('-')[0]}"


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    text = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m tests.bytecode", description=text[0], epilog=text[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--python", default="", help="versions or paths, with commas")
    parser.add_argument("--all", action="store_true", help="each supported interpreter found")
    parser.add_argument("--quick", action="store_true", help="a sample of the boundaries")
    parser.add_argument("--json", action="store_true", help="one JSON object a program")
    parser.add_argument("--groups", default=",".join(g for g in GROUPS if g != "broken"))
    parser.add_argument("--only", default=[], action="append", help="this program; repeatable")
    parser.add_argument("--pairs", type=int, default=60,
                        help="cases two deep for each pair of handlers and program; -1: all")  # fmt: skip
    parser.add_argument("--timers", type=int, default=25, help="timers for each pair of handlers")
    parser.add_argument("--stride", type=int, default=1, help="each n-th boundary only")
    parser.add_argument("--driver-stride", type=int, default=1, help="the same for the driver's")
    parser.add_argument("--seed", type=int, default=1, help="of what is sampled")
    arguments = parser.parse_args(argv)
    unknown = set(arguments.groups.split(",")) - set(GROUPS)
    if unknown:
        parser.error(f"no group {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    return arguments


def _chosen(arguments: argparse.Namespace) -> dict[str, str]:
    there = interpreters()
    if not arguments.python:
        mine = platform.python_version().rpartition(".")[0]
        return there if arguments.all else {mine: sys.executable}
    chosen = {}
    for wanted in arguments.python.split(","):
        path = there.get(wanted) or shutil.which(wanted)
        if path is None:
            raise SystemExit(f"bytecode: no Python {wanted}; found {', '.join(there)}")
        chosen[_version(path)] = path
    return chosen


def plan_of(arguments: argparse.Namespace) -> Plan:
    """The sampling that the options ask for."""
    quick = arguments.quick
    return Plan(
        groups=arguments.groups.split(","),
        only=arguments.only,
        stride=23 if quick else arguments.stride,
        driver_stride=251 if quick else arguments.driver_stride,
        pairs=2 if quick else arguments.pairs,
        timers=1 if quick else arguments.timers,
        seed=arguments.seed,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run it; see the module's text for the exit status."""
    arguments = _arguments(argv)
    plan = plan_of(arguments)
    console = Console(width=160 if not sys.stdout.isatty() else None)
    status = 0
    for version, python in _chosen(arguments).items():
        started = time.monotonic()
        found = []
        for row in rows(python, plan):
            found.append(row)
            if arguments.json:
                print(
                    json.dumps({"schema": "udriver.bytecode/1", "python": version, **row}),
                    flush=True,
                )
            else:
                print(f"\r{version} {row['program']:<60.60}", end="", file=sys.stderr, flush=True)
        faults = bad(found)
        if (
            plan["stride"] == 1
            and {"completion", "irq", "kfifo", "other"} <= set(plan["groups"])
            and not plan["only"]
        ):
            faults += [f"never interrupted: {name}" for name in never_interrupted(found, "seen")]
        status = 1 if faults else status
        if not arguments.json:
            pairs = sum(row["pairs"] for row in found)
            print(file=sys.stderr)
            day = time.strftime("%Y-%m-%d")
            console.print(table(f"Python {version}, {machine()}, {day}", found))
            console.print(
                f"{time.monotonic() - started:.0f} s; every {plan['stride']}. boundary, the driver's every "
                f"{plan['driver_stride']}.; of {pairs:,} cases two deep a sample, seed {plan['seed']}."
            )
        for fault in faults:
            print(f"bytecode: {fault}", file=sys.stderr)
    if not arguments.json:
        console.print(LEGEND)
    return status


if __name__ == "__main__":
    sys.exit(main())
