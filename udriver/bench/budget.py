# SPDX-License-Identifier: MIT
"""Composition. Where the time goes: what one round trip is made of, counted and not timed.

System calls and signals by strace, context switches and CPU time by getrusage(2), bytecodes and lock
operations from the inside (trip.py). Each contestant is counted twice: with an answer that is there
at once (strace and the tracer slow us and not the far end, so it always is), and with one that is
``late``, so that the reader sleeps.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from udriver.bench import trip
from udriver.bench.peers import missing as missing_peer
from udriver.bench.roundtrip import BY_HAND, CHIPS

__all__ = ["ANSWERS", "Budget", "contestants", "idle_calls", "missing", "take_stock"]

ANSWERS = {"at once": "echo", "late": "late"}
"""When the answer comes, and the counterpart's mode that has it so."""

STRACE = "strace is not installed, so no system calls are counted; `apt install strace`"
CALL = re.compile(r"^\d+ +(?P<at>[\d.]+) (?P<name>\w+)\(")
SIGNAL = re.compile(r"^\d+ +[\d.]+ --- (?P<name>SIG\w+) ")


@dataclass(slots=True)
class Budget:
    """What one round trip of ``who`` takes, each figure a mean over many."""

    who: str
    answer: str
    syscalls: dict[str, float] = field(default_factory=dict)
    signals: dict[str, float] = field(default_factory=dict)
    plain: dict[str, float] = field(default_factory=dict)
    bytecodes: dict[str, float] = field(default_factory=dict)
    locks: dict[str, float] = field(default_factory=dict)
    note: str = ""

    @property
    def cpu(self) -> float:
        """Microseconds of CPU, all threads, user and system."""
        return self.plain.get("user_us", 0.0) + self.plain.get("system_us", 0.0)

    def as_json(self) -> dict[str, Any]:
        """Its fields; what happens less than once in ten round trips is nobody's way."""
        fields = asdict(self)
        for name in ("syscalls", "signals", "bytecodes", "locks"):
            fields[name] = {key: round(n, 2) for key, n in fields[name].items() if n >= 0.1}
        return fields


def missing() -> str | None:
    """Why no system calls are counted, with the command that changes it."""
    return None if shutil.which("strace") else STRACE


def contestants() -> list[str]:
    """The floor, the irqchips, the thread by hand, and the blocking peers that are installed."""
    peers = [name for name in ("pySerial", "serialx") if not missing_peer(name)]
    return ["bare", *CHIPS, BY_HAND, *peers]


def take_stock(
    count: int,
    root: Path | None = None,
    who: Sequence[str] | None = None,
    answers: Sequence[str] = tuple(ANSWERS),
) -> list[Budget]:
    """Count ``count`` round trips of everybody; of the checkout in ``root``, if not of this one."""
    from udriver_hw.spawned import spawn_counterpart

    budgets = []
    for answer in answers:
        with spawn_counterpart(ANSWERS[answer]) as device:
            for name in who or contestants():
                budgets.append(_count(name, answer, device.path, count, root))
    return budgets


def _count(who: str, answer: str, path: str, count: int, root: Path | None) -> Budget:
    budget = Budget(who, answer)
    for how in trip.HOW:
        setattr(budget, how, json.loads(_run([], how, who, path, count, root)))
    try:
        log = _traced("plain", who, path, count, root)
    except OSError as exc:
        budget.note = str(exc)
        return budget
    for field_name, pattern in (("syscalls", CALL), ("signals", SIGNAL)):
        found = Counter(match["name"] for match in map(pattern.match, log) if match)
        setattr(budget, field_name, {name: n / count for name, n in found.most_common()})
    return budget


def idle_calls(path: str, irqchip: str, milliseconds: int = 1000) -> int:
    """System calls of all our threads in the middle 0.7 of so long an idle time. Raises OSError.

    The middle: the waiter goes to sleep at its beginning and is woken by the clock at its end.
    """
    log = _traced("idle", irqchip, path, milliseconds, None)
    times = [float(match["at"]) for match in map(CALL.match, log) if match]
    begin, length = min(times, default=0.0), milliseconds / 1000
    return sum(length * 0.2 < at - begin < length * 0.9 for at in times)


def _traced(how: str, who: str, path: str, count: int, root: Path | None) -> list[str]:
    """strace's log between the two markers."""
    if why := missing():
        raise OSError(why)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "log")
        tracer = ["strace", "-f", "-ttt", "-qq", "-s", "16", "-o", str(file)]
        _run(tracer, how, who, path, count, root)
        return list(_between(file.read_text(errors="replace").splitlines()))


def _between(log: list[str]) -> Iterator[str]:
    inside = False
    for line in log:
        if trip.END in line:
            return
        if inside:
            yield line
        inside = inside or trip.BEGIN in line
    raise OSError("strace's log has no end; run it by hand to see why")


def _run(tracer: list[str], how: str, who: str, path: str, count: int, root: Path | None) -> str:
    here = Path(__file__).parents[2]
    tree = root or here
    # -P: trip.py's own folder has modules of everyday names
    command = [*tracer, sys.executable, "-P", trip.__file__, how, who, path, str(count)]
    result = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tree), str(tree / "hw")])},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise OSError(f"{command[0]} ... {who}: {last}")
    return result.stdout
