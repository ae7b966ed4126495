# SPDX-License-Identifier: MIT
"""Runs cases in forked children: each case a fresh object, each hang a count and a new child."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import time
import traceback
from collections.abc import Iterator, Sequence

from tests.bytecode.asleep import KNOWN_MACHINE, Sleeps, at_rest
from tests.bytecode.case import Case, Failure, Tally
from tests.bytecode.child import Child, Shared
from tests.bytecode.program import Program

__all__ = ["run_cases"]

HANG_S = 20.0  # only where /proc does not tell, or something spins


def run_cases(make: type[Program], cases: Sequence[Case]) -> Tally:
    """Run them all; a child that dies or hangs costs one case."""
    tally = Tally()
    first = 0
    shared = Shared()
    while first < len(cases):
        shared.case = first
        outcome = _one_child(make, cases, shared, first)
        tally.add_cases(outcome.get("ran", {}))
        tally.seen.update(map(tuple, outcome.get("seen", ())))
        if "kind" not in outcome:
            tally.points = max(tally.points, outcome.get("points", 0))
            tally.inner_points = outcome.get("inner_points", {})
            return tally
        at = shared.case
        if "ran" not in outcome:
            tally.add_cases({cases[at].way: 1})
        tally.failures.append(
            Failure(outcome["kind"], cases[at], outcome.get("where", ""), outcome["why"])
        )
        first = at + 1
    return tally


def _one_child(make: type[Program], cases: Sequence[Case], shared: Shared, first: int) -> dict:  # type: ignore[type-arg]
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            Child(make, cases, shared, writer).run_from(first)
        except BaseException:  # noqa: BLE001 - the parent sees the status
            traceback.print_exc()
        finally:
            os._exit(70)
    os.close(writer)
    try:
        with open(reader, "rb", 0) as pipe:
            text = b"".join(_until_end(pipe.fileno(), child, shared))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not text:
        why = f"it hung, and was killed after {HANG_S:g} s" if status == -9 else f"status {status}"
        return {"kind": "D" if status == -9 else "E", "why": why}
    return json.loads(text)  # type: ignore[no-any-return]


def _until_end(fd: int, child: int, shared: Shared) -> Iterator[bytes]:
    """What the child says; ends early if it will never say anything any more."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    progress: object = None
    last: Sleeps | None = None
    since = time.monotonic()
    while True:
        if poll.poll(20):
            chunk = os.read(fd, 65536)
            if not chunk:
                return
            yield chunk
            since = time.monotonic()
            continue
        now = at_rest(child) if KNOWN_MACHINE else None
        at = shared.case
        if at != progress:
            progress, since, last = at, time.monotonic(), None
        elif (now is not None and now == last) or time.monotonic() - since > HANG_S:
            return
        last = now
