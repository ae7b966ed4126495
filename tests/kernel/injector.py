# SPDX-License-Identifier: MIT
"""Runs a signal handler at every bytecode boundary of the completion core, a fork for each.

A program of its own, so that what is forked is small and has one thread:

    python tests/kernel/injector.py SCENARIO     prints {"points": N, "failures": {point: why}}

A scenario is a class: ``act`` is traced, ``handle`` is the signal handler, ``check`` says what is
wrong afterwards, if anything. A child that hangs is ended by SIGALRM and counts as a deadlock.
A handler that raises is run where CPython looks for signals (after a call, at the start of a frame,
at a jump back), which are those where it can. One that returns is the business of tests/bytecode,
but for one that is to end the wait as a signal does: it is run at every boundary.
"""

from __future__ import annotations

import dis
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

from udriver.kernel import sched
from udriver.kernel.completion import (
    UINT_MAX,
    Completion,
    complete,
    complete_all,
    try_wait_for_completion,
    wait_for_completion,
    wait_for_completion_interruptible,
    wait_for_completion_timeout,
)

WATCHDOG_S = 6.0
SETTLE_S = 4.0
MAX_FAILURES = 2  # each may cost a watchdog
KERNEL = os.path.join("udriver", "kernel", "")
FIRED, NOT_REACHED = 0, 3


class Scenario:
    """What is traced, what interrupts it, and what must be true afterwards."""

    raises = False  # whether the handler raises KeyboardInterrupt when it is done
    handler_only = False  # whether nobody but the handler ends the wait

    def __init__(self) -> None:
        self.x = Completion("x")
        self.threads: list[threading.Thread] = []
        self.ended: list[str] = []
        self.posted = 0
        self.took: list[bool] = []
        self.raised = False

    def act(self) -> None:
        """The code under test."""

    def handle(self) -> None:
        """The signal handler."""

    def armed(self) -> bool:
        """Whether boundaries count already."""
        return True

    def check(self) -> str:
        """What is wrong, or the empty string."""
        return ""

    # words the scenarios share

    def post(self) -> None:
        """One token, counted."""
        self.posted += 1
        complete(self.x)

    def waiter(self, name: str) -> None:
        """A thread that waits for a token; queued when this returns."""
        queued = len(self.x.wait_queue)

        def body() -> None:
            wait_for_completion(self.x)
            self.ended.append(name)

        self.background(body)
        spin(lambda: len(self.x.wait_queue) > queued)

    def background(self, body: Callable[[], object]) -> None:
        """A thread that must have ended when all is over."""
        thread = threading.Thread(target=body, daemon=True)
        self.threads.append(thread)
        thread.start()

    def poster(self) -> None:
        """A thread that posts one token as soon as somebody is queued, or the act is over."""

        def body() -> None:
            spin(lambda: len(self.x.wait_queue) or self.over)
            complete(self.x)

        self.posted += 1
        self.background(body)

    over = False

    def at_rest(self) -> str:
        """Rule 5, once everybody who was woken has run: queued only if done is 0."""
        if not spin(lambda: not (len(self.x.wait_queue) and self.x.done)):
            return f"lost wake-up: {self.x!r}"
        return ""

    def usable(self) -> str:
        """Whether a token still goes through."""
        before = self.x.done
        complete(self.x)
        if wait_for_completion_timeout(self.x, 2000) < 1:
            return f"a token does not go through: {self.x!r}"
        return "" if self.x.done == before else f"count wrong afterwards: {self.x!r}"


def spin(condition: Callable[[], object], seconds: float = SETTLE_S) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        os.sched_yield()
    return True


# a wait, interrupted by a handler that returns


class WaitScenario(Scenario):
    """Checks of every wait: tokens counted, nobody queued, the wakeup fd given back."""

    wait: Callable[[Completion], object] = staticmethod(wait_for_completion)
    result: object = "nothing"

    def __init__(self) -> None:
        super().__init__()
        sched.active().current()
        _, self.wakeup = os.pipe2(os.O_NONBLOCK)
        signal.set_wakeup_fd(self.wakeup, warn_on_full_buffer=False)

    def act(self) -> None:
        self.result = type(self).wait(self.x)
        self.took.append(True)

    def check(self) -> str:
        spin(lambda: not any(thread.is_alive() for thread in self.threads))
        why = self.count() or self.left_behind()
        return why or self.usable()

    def count(self) -> str:
        balance = sum(self.took) + self.x.done
        return "" if balance == self.posted else f"{self.posted} posted, {balance} found"

    def left_behind(self) -> str:
        task = sched.active().current()
        wakeup = signal.set_wakeup_fd(-1)
        if wakeup != self.wakeup:
            return f"wakeup fd is {wakeup}, not {self.wakeup}"
        left = [waiter.comm for waiter in self.x.wait_queue if waiter is task]
        left += [f"{name}={value}" for name in ("state", "in_iowait", "syscall_depth")
                 if (value := getattr(task, name))]  # fmt: skip
        if task.pending:
            left.append(f"pending={task.pending}")
        return f"left behind: {left}" if left else ""


class SignalInInterruptibleWait(WaitScenario):
    """The signal itself ends the wait, from the moment on that it is queued."""

    handler_only = True

    def armed(self) -> bool:
        return len(self.x.wait_queue) > 0

    def act(self) -> None:
        self.result = wait_for_completion_interruptible(self.x)

    def check(self) -> str:
        if self.result != -sched.ERESTARTSYS:
            return f"result {self.result}: the signal did not end the wait"
        return super().check()


# exceptions: a handler that raises KeyboardInterrupt


class RaiseInComplete(Scenario):
    raises = True
    act = Scenario.post

    def __init__(self) -> None:
        super().__init__()
        self.waiter("a")

    def check(self) -> str:
        why = self.at_rest()
        if why:
            return why
        complete(self.x)  # the first one was posted or not; this one is
        if not spin(lambda: self.ended):
            return f"lost wake-up: {self.x!r}"
        return "" if self.x.done in (0, 1) else f"done is {self.x.done}"


class RaiseInCompleteWithoutWaiter(Scenario):
    raises = True
    act = Scenario.post

    def check(self) -> str:
        if self.x.done not in (0, 1):
            return f"done is {self.x.done}"
        return self.usable()


class RaiseInCompleteAll(RaiseInComplete):
    def act(self) -> None:
        complete_all(self.x)

    def check(self) -> str:
        why = self.at_rest()
        if not why and self.x.done not in (0, UINT_MAX):
            why = f"done is {self.x.done}"
        if not why:
            complete_all(self.x)
            why = "" if spin(lambda: self.ended) else f"lost wake-up: {self.x!r}"
        return why


class RaiseInFastWait(WaitScenario):
    """``taken`` says whose the token is: it and ``done`` add up, at every boundary."""

    raises = True

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[object] = []
        self.post()

    def act(self) -> None:
        self.x.wait_into(self.taken)

    def count(self) -> str:
        balance = (len(self.taken) > 0) + self.x.done + len(self.ended)
        return "" if balance == self.posted else f"{self.posted} posted, {balance} found"


class RaiseInWait(RaiseInFastWait):
    def __init__(self) -> None:
        super().__init__()
        assert try_wait_for_completion(self.x)
        self.posted = 0
        self.poster()


class RaiseInExpiringWait(RaiseInWait):
    def __init__(self) -> None:
        RaiseInFastWait.__init__(self)
        assert try_wait_for_completion(self.x)
        self.posted = 0

    def act(self) -> None:
        try:
            self.x.wait_into(self.taken, 0.001)
        except TimeoutError:
            pass


class RaiseInWaitAheadOfAnother(RaiseInFastWait):
    """The token of who left by an exception goes to the next in the queue."""

    def __init__(self) -> None:
        super().__init__()
        assert try_wait_for_completion(self.x)
        self.posted = 0

        def body() -> None:
            spin(lambda: len(self.x.wait_queue) or self.over)
            mine = Completion("mine")

            def behind() -> None:
                wait_for_completion(self.x)
                self.ended.append("behind")
                complete(mine)

            thread = threading.Thread(target=behind, daemon=True)
            thread.start()
            queued = 2 if not self.over else 1
            spin(lambda: len(self.x.wait_queue) >= queued or self.over)
            complete(self.x)
            spin(lambda: self.over)
            if self.taken:  # the one that waits behind needs one of its own
                self.posted += 1
                complete(self.x)
            if not wait_for_completion_timeout(mine, 3000):
                self.lost = True

        self.lost = False
        self.posted += 1
        self.background(body)

    def count(self) -> str:
        return f"lost wake-up: {self.x!r}" if self.lost else super().count()


class RaiseInUninterruptibleWait(WaitScenario):
    """Nothing but the token ends it; the exception follows, and may take the token with it."""

    raises = True
    wait = staticmethod(wait_for_completion)
    done_when_fired = 0

    def __init__(self) -> None:
        super().__init__()
        self.poster()

    def handle(self) -> None:
        self.done_when_fired = self.x.done
        self.over = True

    def count(self) -> str:
        if self.x.done not in (0, 1):
            return f"done is {self.x.done}"
        return "" if self.raised else f"no exception came out: {sched.active().current().pending}"


class RaiseInPythonicWait(RaiseInUninterruptibleWait):
    wait = staticmethod(lambda x: x.wait(60))


# the machinery


LOOKS = ("RESUME", "CALL", "JUMP_BACKWARD")  # the opcodes after which CPython runs handlers


class Tracer:
    """Counts bytecode boundaries in udriver/kernel, raises the signal at one of them."""

    def __init__(self, point: int, scenario: Scenario) -> None:
        self.point = point
        self.scenario = scenario
        self.previous: dict[FrameType, str] = {}
        self.count = 0
        self.where = ""

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        """sys.settrace()'s function: trace the frames of the core, each opcode."""
        self.entered(frame)
        if not in_core(frame.f_code):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self.step

    def entered(self, frame: FrameType) -> None:
        """A Python function starts: its caller does not look for signals when it returns."""
        if frame.f_back is not None:
            self.previous[frame.f_back] = "RETURN"

    def step(self, frame: FrameType, event: str, arg: Any) -> Any:
        """The function of a frame: one opcode is about to run."""
        if event == "opcode":
            self.boundary(frame)
        return self.step

    def boundary(self, frame: FrameType) -> None:
        """Count it; raise the signal if it is the one."""
        looks = self.previous.get(frame, "RESUME").startswith(LOOKS)
        self.previous[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
        if self.where or not self.scenario.armed() or (self.scenario.raises and not looks):
            return
        self.count += 1
        if self.count == self.point:
            self.where = f"{frame.f_code.co_qualname}:{frame.f_lineno} +{frame.f_lasti}"
            signal.raise_signal(signal.SIGUSR1)

    def start(self) -> None:
        """Trace this thread from here on."""
        if sys.version_info < (3, 13):
            sys._getframe().f_trace_opcodes = True  # 3.12: settrace() asks for opcodes only then
            sys.settrace(self)
            return
        # settrace() in 3.13 has opcodes only from the second call of a function on
        monitoring = sys.monitoring
        main = threading.get_ident()

        def entered(code: CodeType, offset: int) -> None:
            if threading.get_ident() == main:
                self.entered(sys._getframe(1))

        def instruction(code: CodeType, offset: int) -> object:
            if not in_core(code):
                return monitoring.DISABLE
            if threading.get_ident() == main:
                self.boundary(sys._getframe(1))
            return None

        monitoring.use_tool_id(monitoring.DEBUGGER_ID, "injector")
        monitoring.register_callback(
            monitoring.DEBUGGER_ID, monitoring.events.INSTRUCTION, instruction
        )
        monitoring.register_callback(monitoring.DEBUGGER_ID, monitoring.events.PY_START, entered)
        monitoring.set_events(
            monitoring.DEBUGGER_ID, monitoring.events.INSTRUCTION | monitoring.events.PY_START
        )

    def stop(self) -> None:
        """Trace no more."""
        if sys.version_info < (3, 13):
            sys.settrace(None)
        else:
            sys.monitoring.set_events(sys.monitoring.DEBUGGER_ID, 0)


def in_core(code: CodeType) -> bool:
    return KERNEL in code.co_filename and code.co_name != "__del__"


def run(make: type[Scenario], point: int, report: int) -> int:
    signal.setitimer(signal.ITIMER_REAL, WATCHDOG_S)
    scenario = make()
    tracer = Tracer(point, scenario)

    def handler(signum: int, frame: FrameType | None) -> None:
        os.write(report, f"{tracer.where}\0".encode())
        scenario.handle()
        if scenario.raises:
            raise KeyboardInterrupt

    signal.signal(signal.SIGUSR1, handler)
    if scenario.handler_only:
        threading.Thread(target=release_if_blocked, args=(scenario, tracer), daemon=True).start()
    try:
        tracer.start()
        scenario.act()
    except KeyboardInterrupt:
        scenario.raised = True
    finally:
        tracer.stop()
        scenario.over = True
    if not tracer.where:
        return NOT_REACHED
    os.write(report, scenario.check().encode())
    return FIRED


def release_if_blocked(scenario: Scenario, tracer: Tracer) -> None:
    """The last boundary was run: nobody would end this wait."""
    while not tracer.where and not scenario.over:
        before = tracer.count
        threading.Event().wait(0.3)
        if tracer.count == before and not tracer.where:
            os._exit(NOT_REACHED)


def one(make: type[Scenario], point: int) -> tuple[str, str] | None:
    """Run one boundary in a child; where it was and what went wrong, or None behind the last."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            status = run(make, point, writer)
        except BaseException:  # noqa: BLE001 - reported by the parent
            os.write(writer, traceback.format_exc().encode())
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader, "rb") as pipe:
        where, _, why = pipe.read().decode().partition("\0")
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status == NOT_REACHED:
        return None
    if status == -signal.SIGALRM:
        return where, "deadlock"
    return where, why or ("" if status == FIRED else f"exit status {status}: {where}")


def main(name: str) -> None:
    make: type[Scenario] = globals()[name]
    failures = {}
    point = 0
    while (outcome := one(make, point + 1)) is not None:
        point += 1
        where, why = outcome
        if why:
            failures[where or str(point)] = why
        if len(failures) == MAX_FAILURES:
            break
    print(json.dumps({"points": point, "failures": failures}))


if __name__ == "__main__":
    main(sys.argv[1])
