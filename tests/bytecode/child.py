# SPDX-License-Identifier: MIT
"""The forked child: runs one case after the other until one goes wrong, says so and exits.

A warden thread watches the thread under test. When all sleep for good it knows why (a handler waits
for what it interrupted: deadlock; what is slept for is there: lost wake-up), or it ends the sleep
itself, because nothing else was meant to.
"""

from __future__ import annotations

import gc
import json
import mmap
import os
import random
import signal
import struct
import threading
import time
import traceback
from collections.abc import Callable, Sequence

from tests.bytecode.asleep import Sleeps, at_rest
from tests.bytecode.boundary import INNER, OUTER, Boundaries
from tests.bytecode.case import Case
from tests.bytecode.program import Program

__all__ = ["Child", "Shared"]

COLLECT_EVERY = 256  # cases; in between the collector would run what it finds at chance boundaries
IDLE, ACT, HANDLER, INNER_HANDLER, CHECK = range(5)


class Shared:
    """A page that survives the child: the number of the case it is at."""

    def __init__(self) -> None:
        self.page = mmap.mmap(-1, mmap.PAGESIZE)

    @property
    def case(self) -> int:
        """As said."""
        number: int = struct.unpack_from("I", self.page)[0]
        return number

    @case.setter
    def case(self, number: int) -> None:
        struct.pack_into("I", self.page, 0, number)


class Child:
    """The program that runs in it; ``report`` is a pipe that takes one JSON line."""

    def __init__(
        self, make: type[Program], cases: Sequence[Case], shared: Shared, report: int
    ) -> None:
        self.make = make
        self.cases = cases
        self.shared = shared
        self.report = report
        self.bounds = Boundaries(make.files, make.act.__code__)
        self.lock = threading.Lock()
        self.program: Program | None = None
        self.case = Case("", "", 0)
        self.phase = IDLE
        self.began: list[int] = []
        self.went_off: list[int] = []  # the timer
        self.over = False
        self.inner_points: dict[str, int] = {}
        self.ran: dict[str, int] = {}
        self.errors: list[str] = []
        self.lasted = 1e-3
        self.counted = False  # whether the case is in ran

    # handlers

    def outer(self, *_: object) -> None:
        """The handler of the code under test."""
        self.handler(self.case.op, HANDLER)

    def inner(self, *_: object) -> None:
        """The handler of the handler."""
        self.handler(self.case.inner_op, INNER_HANDLER)

    def handler(self, op: str, phase: int) -> None:
        before, self.phase = self.phase, phase
        assert self.program is not None
        self.began.append(phase)
        self.bounds.in_handler = True
        try:
            self.program.op(op)
        except Exception:  # noqa: BLE001 - counted
            self.errors.append(traceback.format_exc(limit=-3))
        self.bounds.in_handler = phase == INNER_HANDLER
        self.phase = before

    # cases

    def run_from(self, first: int) -> None:
        """Run the cases from ``first`` on; ends the process when one goes wrong."""
        signal.signal(OUTER, self.outer)
        signal.signal(INNER, self.inner)
        signal.signal(signal.SIGALRM, self.on_timer)
        gc.freeze()  # no collection first: it goes over, and so copies, all that the parent has
        gc.disable()
        warden = Warden(self)
        warden.start()
        for index in range(first, len(self.cases)):
            self.shared.case = index
            self.run_one(self.cases[index], frozenset({warden.native_id or 0, os.getpid()}))
            if index % COLLECT_EVERY == 0:
                gc.collect()
        self.say(ran=self.ran, seen=sorted(self.bounds.seen), points=self.bounds.count,
                 inner_points=self.inner_points)  # fmt: skip
        os._exit(0)

    def run_one(self, case: Case, helpers: frozenset[int]) -> None:
        self.case = case
        self.counted = False
        self.began.clear()
        self.went_off.clear()
        self.over = False
        self.bounds.arm(case.mode, case.at, case.inner_at, [self.outer, self.inner])
        try:
            self.program = program = self.make()
            program.helpers = helpers
            run = self.run_timed if case.mode == "timer" else self.bounds.run
            self.phase = ACT
            try:
                run(program.act)
            except Exception:  # noqa: BLE001 - counted
                self.errors.append(traceback.format_exc(limit=-3))
            self.phase = IDLE
            expected = bool(self.bounds.where) + bool(self.bounds.inner_where)
            while len(self.began) < expected:
                time.sleep(0)  # pending: CPython has not looked yet
            self.phase = CHECK
            why = program.check() if not self.errors else ""
            program.cleanup()
            self.phase = IDLE
        except Exception:  # noqa: BLE001 - counted
            why, self.errors = "", [*self.errors, traceback.format_exc(limit=-3)]
        reached = len(self.began) == 1 + bool(case.inner_op)
        self.ran[case.way] = self.ran.get(case.way, 0) + reached
        most = self.inner_points.get(case.op, 0)
        self.inner_points[case.op] = max(most, self.bounds.inner_count)
        self.counted = True
        if self.errors:
            self.fail("E", "; ".join(self.errors))
        elif why:
            self.fail(why[0], why[1:].strip())

    def run_timed(self, act: Callable[[], object]) -> None:
        """Run ``act`` with a timer that goes off at any time of it; it takes as long as the last did."""
        chance = random.Random(self.case.seed)
        started = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, 1e-6 + chance.random() * self.lasted)
        try:
            act()
        finally:
            self.over = True  # a signal may be on its way still
            signal.setitimer(signal.ITIMER_REAL, 0)
        if not self.began:  # else it lasted longer, by what the handler took
            self.lasted = time.perf_counter() - started

    def on_timer(self, *_: object) -> None:
        """The first is the handler, the second the handler's handler."""
        if self.over:
            return
        self.went_off.append(1)
        if len(self.went_off) > 1:
            self.inner()
            return
        if self.case.inner_op:
            signal.setitimer(signal.ITIMER_REAL, 1e-6 + (self.case.seed % 32) * 1e-6)
        self.outer()

    def fail(self, kind: str, why: str) -> None:
        """Report the case and end the process. From either thread, once."""
        self.lock.acquire()
        where = " > ".join(filter(None, (self.bounds.where, self.bounds.inner_where)))
        if not self.counted:
            self.ran[self.case.way] = self.ran.get(self.case.way, 0) + 1
        self.say(ran=self.ran, seen=sorted(self.bounds.seen), kind=kind, where=where, why=why)
        os._exit(1)

    def say(self, **words: object) -> None:
        os.write(self.report, json.dumps(words).encode() + b"\n")


class Warden(threading.Thread):
    """Watches the thread under test, and ends its sleep if it is one that nobody else will end."""

    def __init__(self, child: Child) -> None:
        super().__init__(daemon=True, name="warden")
        self.child = child

    def run(self) -> None:
        """Look at it ten thousand times a second."""
        last: Sleeps | None = None
        since = 0.0
        while True:
            time.sleep(5e-5)  # and as much again is the kernel's timer slack
            child = self.child
            program = child.program
            to_come = signal.getitimer(signal.ITIMER_REAL)[0]  # first: it may go off between
            if child.phase == IDLE or program is None or to_come:
                last = None
                continue
            now = at_rest("self", frozenset({self.native_id or 0}))
            if now is None or now != last:
                last, since = now, time.monotonic()
            elif self.judge(program, time.monotonic() - since >= program.patience):
                last = None

    def judge(self, program: Program, believed: bool) -> bool:
        """Everybody sleeps for good; true if that was ended. What is wrong must be ``believed``."""
        child = self.child
        bounds = child.bounds
        timed = child.case.mode == "timer"
        waiting = [op for at, op in ((bounds.where or timed, child.case.op),
                                     (bounds.inner_where, child.case.inner_op)) if at]  # fmt: skip
        if child.phase in (HANDLER, INNER_HANDLER):
            verdict = "D", ""
        elif child.phase == CHECK:
            verdict = "L", "somebody who should have been woken never came back"
        elif any(op in program.posts for op in waiting[len(child.began) :]):
            verdict = "S", ""
        elif program.available():
            verdict = "L", "it sleeps although what it waits for is there"
        else:
            program.post()
            return True
        if believed:
            child.fail(*verdict)
        return False
