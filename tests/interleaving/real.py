# SPDX-License-Identifier: MIT
"""The same programs on the real thing: real containers, real threads, a switch at any bytecode.

One thread runs at a time and hands on a baton; sys.settrace() stops it before each bytecode of
udriver/kernel, where the baton may go to another, by lot. It knows nothing of the explorer's scheduling
points. So if it ever ends in a way that the explorer has not found, a point is missing, or a port
does not do what the container does.
"""

from __future__ import annotations

import _thread
import random
import sys
import threading
from types import FrameType
from typing import Any

from tests.interleaving.operations import FUNCTIONS, SIGNALS, TIMED, _told
from tests.interleaving.ports import JIFFIES, LEFT
from tests.interleaving.program import Program
from udriver.kernel import completion as kernel
from udriver.kernel import sched
from udriver.kernel.sched import MAX_SCHEDULE_TIMEOUT, Task

Outcome = tuple[tuple[tuple[str, ...], ...], int, tuple[int, ...]]
FOLDER = kernel.__file__.removesuffix("completion.py")


class _Over(BaseException):
    """Ends a thread that sleeps when everything is at rest."""


class _Runner(Task):
    """A thread of the program."""

    __slots__ = ("baton", "flag", "number", "over", "results", "sleeps", "timed")

    def __init__(self, number: int) -> None:
        super().__init__(f"task {number}")
        self.number = number
        self.baton = _thread.allocate_lock()
        self.baton.acquire()
        self.flag = self.sleeps = self.timed = self.over = False
        self.results: list[str] = []

    @property
    def ready(self) -> bool:
        """Whether it can go on."""
        return not self.over and (not self.sleeps or self.flag or self.timed)


class Real:
    """One run of a program. ``often``: the odds of a switch at a bytecode."""

    def __init__(self, program: Program, lot: random.Random, often: float) -> None:
        self.x = kernel.Completion("x")
        for _ in range(program.tokens):
            kernel.complete(self.x)
        self.program = program
        self.tasks = [_Runner(number) for number in range(len(program.threads))]
        self._lot = lot
        self._often = often
        self._main = _thread.allocate_lock()
        self._main.acquire()
        self._now = self.tasks[0]
        self._parking = True
        self._closing = False

    def play(self) -> Outcome:
        """How it ends."""
        threads = [threading.Thread(target=self._live, args=(task,)) for task in self.tasks]
        for thread in threads:
            thread.start()
        with sched.using(self):
            for task in self.tasks[: self.program.parked]:
                self._give(task)
                self._main.acquire()
            self._parking = False
            while ready := [task for task in self.tasks if task.ready]:
                self._give(self._lot.choice(ready))
                self._main.acquire()
            queue = tuple(task.number for task in self.x.wait_queue)  # type: ignore[attr-defined]
            done = -1 if self.x.done == kernel.UINT_MAX else self.x.done
            ended = tuple(tuple(task.results) for task in self.tasks), done, queue
            self._closing = True
            for task, thread in zip(self.tasks, threads, strict=True):
                if not task.over:
                    self._give(task)
                thread.join()
        return ended

    def _give(self, task: _Runner) -> None:
        self._now = task
        task.baton.release()

    def _live(self, task: _Runner) -> None:
        task.baton.acquire()
        sys.settrace(self._call)
        try:
            for op in self.program.threads[task.number]:
                task.results.append(self._perform(op))
        except _Over:
            pass
        except Exception as error:  # noqa: BLE001 - a wrong core's; a result like another
            task.results.append(f"raised {error!r}")
        finally:
            sys.settrace(None)
        task.over = True
        if not self._closing:
            self._main.release()

    def _perform(self, op: str) -> str:
        if op[0] in SIGNALS:
            sched.send_sig(SIGNALS[op[0]], self.tasks[int(op[1:])])
            return "ok"
        arguments = (JIFFIES,) if op in TIMED else ()
        return _told(op, getattr(kernel, FUNCTIONS[op])(self.x, *arguments))

    # a switch

    def _call(self, frame: FrameType, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.startswith(FOLDER):
            return None
        frame.f_trace_opcodes = True
        return self._step

    def _step(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "opcode":
            self._perhaps()
        return self._step

    def _perhaps(self) -> None:
        if not (self._parking or self._closing) and self._lot.random() < self._often:
            self._away()

    def _away(self) -> None:
        task = self._now
        self._main.release()
        task.baton.acquire()

    # the seam

    def current(self) -> Task:
        return self._now

    signal_pending_state = staticmethod(sched.signal_pending_state)

    def wake_up_process(self, task: Task) -> None:
        self._perhaps()  # an eventfd's write lets others run before it
        assert isinstance(task, _Runner)
        task.flag = True
        self._perhaps()  # and after it

    def schedule_timeout(self, timeout: int) -> int:
        task = self._now
        task.sleeps, task.timed = True, timeout != MAX_SCHEDULE_TIMEOUT
        if not task.flag or self._lot.random() < 0.5:
            self._away()
        if self._closing:
            raise _Over
        task.sleeps = False
        late = task.timed and (not task.flag or self._lot.random() < 0.2)
        task.flag = False
        return 0 if late else LEFT if task.timed else timeout


def outcomes(program: Program, runs: int, seed: int) -> set[Outcome]:
    """The ends of so many runs."""
    lot = random.Random(seed)
    return {Real(program, lot, lot.choice((0.02, 0.1, 0.4))).play() for _ in range(runs)}
