# SPDX-License-Identifier: MIT
"""``checking()`` itself: what it takes, what it gives, and that hooks may interrupt each other."""

from __future__ import annotations

import itertools
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import udriver
import udriver.checker
from tests.checker.mistakes.case import LONG, TICK, WATCHDOG_S, Device, beside, line
from udriver.checker import CheckFailed, checking
from udriver.kernel.completion import (
    Completion,
    complete,
    complete_all,
    completion_done,
    reinit_completion,
    try_wait_for_completion,
    wait_for_completion_timeout,
)
from udriver.kernel.irq import (
    IRQ_HANDLED,
    IrqReturn,
    disable_irq,
    enable_irq,
    generic_handle_irq,
)

pytestmark = [
    pytest.mark.timeout(WATCHDOG_S * 2, method="thread"),
    pytest.mark.udriver_unchecked("it checks"),
]


def twice() -> None:
    """M13, at the same two places each time."""
    x = Completion("x")
    complete_all(x)
    complete_all(x)


def test_the_public_name() -> None:
    assert udriver.checking is checking


def test_a_mistake_is_reported_once_for_its_places_and_counted() -> None:
    with checking(stderr=False) as reports:
        for _ in range(3):
            twice()
    assert [(report.rule, report.count) for report in reports] == [("M13", 3)]
    assert bool(reports)
    assert "[M13]" in str(reports)


def test_a_report_goes_to_stderr_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    with checking() as reports:
        twice()
        assert capfd.readouterr().err == f"{reports[0]}\n"


def test_strict_raises_at_the_end() -> None:
    with (
        pytest.raises(CheckFailed, match="found M13") as caught,
        checking(stderr=False, strict=True),
    ):
        twice()
    assert caught.value.reports.rules == ["M13"]


def fail_after_a_mistake() -> None:
    twice()
    raise ZeroDivisionError


def test_strict_leaves_another_exception_alone() -> None:
    with pytest.raises(ZeroDivisionError), checking(stderr=False, strict=True):
        fail_after_a_mistake()


def test_a_rule_may_be_allowed_and_must_exist() -> None:
    with checking(stderr=False, strict=True, allow=["M13"]) as reports:
        twice()
    assert not reports
    with pytest.raises(ValueError, match="there is no rule M99"), checking(allow=["M99"]):
        pass


def test_a_block_inside_another_has_its_own_reports() -> None:
    with checking(stderr=False) as outer:
        with checking(stderr=False) as inner:
            twice()
        assert (inner.rules, outer.rules) == (["M13"], [])
        twice()
    assert (inner.rules, outer.rules) == (["M13"], ["M13"])


def test_shirq_fires_every_handler_out_of_turn() -> None:
    for shirq, rules in ((False, []), (True, ["I4"])):
        device = Device()
        with checking(stderr=False, shirq=shirq) as reports, line(device.isr, device):
            pass
        assert reports.rules == rules


def test_threading_lock_stays_what_it_is() -> None:
    is_class = isinstance(threading.Lock, type)
    with checking(stderr=False):
        lock = threading.Lock()
        assert lock.acquire(timeout=1)
        assert (lock.locked(), lock.acquire(blocking=False)) == (True, False)
        lock.release()
        if is_class:
            assert isinstance(lock, threading.Lock)
            assert not isinstance(1, threading.Lock)
            assert threading.Lock | None
    with lock:  # after the block, too
        assert lock.locked()


# hooks may interrupt each other

CHECKER = str(Path(udriver.checker.__file__).parent)


@contextmanager
def at_every_bytecode_of_the_checker(
    handler: Callable[[], object], stride: int = 1
) -> Iterator[list[int]]:
    """Call ``handler`` there, on the same thread, as a signal would: at more places than one can."""
    ran = [0]
    inside = False
    boundaries = itertools.count()

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal inside
        if not frame.f_code.co_filename.startswith(CHECKER) or inside:
            return None
        frame.f_trace_opcodes = True
        # 3.12 has the latter only
        if event in ("opcode", "line") and next(boundaries) % stride == 0:
            inside = True
            try:
                handler()
                ran[0] += 1
            finally:
                inside = False
        return trace

    outer = sys.gettrace()
    sys.settrace(trace)
    try:
        yield ran
    finally:
        sys.settrace(outer)


def test_a_handler_in_every_line_of_every_hook() -> None:
    x, y = Completion("x"), Completion("y")

    def isr(irq: int, dev_id: Any) -> IrqReturn:
        if not completion_done(y):
            complete(y)
        return IRQ_HANDLED

    def handler() -> None:
        generic_handle_irq(irq)
        assert try_wait_for_completion(y)

    with checking(stderr=False) as reports, line(isr, y) as irq:
        lock = threading.Lock()
        other = Device()
        with at_every_bytecode_of_the_checker(handler, stride=3) as ran:
            reinit_completion(x)
            complete(x)
            assert wait_for_completion_timeout(x, LONG) > 0
            assert wait_for_completion_timeout(x, TICK) == 0
            reinit_completion(x)
            with lock:
                complete_all(x)
            with Completion("scope") as scope, line(other.isr, other) as number:
                complete(scope)
                generic_handle_irq(number)
                disable_irq(number)
                enable_irq(number)
                assert scope.wait(1)
    assert ran[0] > 200
    assert not reports, str(reports)


def test_a_real_handler_at_random_moments() -> None:
    x = Completion("x")
    posted = [0]

    def handler(signum: int, frame: object) -> None:
        posted[0] += 1
        complete(x)

    outer = signal.signal(signal.SIGALRM, handler)
    try:
        with checking(stderr=False) as reports:
            taken = 0
            signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
            while taken < 300:
                if wait_for_completion_timeout(x, LONG) > 0:
                    taken += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, outer)
    assert not reports, str(reports)
    assert x.done == posted[0] - taken


def test_threads_that_take_turns_are_silent() -> None:
    ping, pong = Completion("ping"), Completion("pong")
    rounds = 500

    def other() -> None:
        for _ in range(rounds):
            assert wait_for_completion_timeout(ping, LONG) > 0
            complete(pong)

    with checking(stderr=False) as reports, beside(other):
        for _ in range(rounds):
            reinit_completion(pong)
            complete(ping)
            assert wait_for_completion_timeout(pong, LONG) > 0
    assert not reports, str(reports)


def test_a_completer_that_is_faster_than_the_waiter_returns() -> None:
    x = Completion("x")
    moment = last = 1

    def handler() -> None:
        if ran[0] == moment and not completion_done(x):
            complete(x)

    with checking(stderr=False) as reports:
        while moment <= last:
            reinit_completion(x)  # a one-shot event, so that M12 may speak
            complete(x)
            with at_every_bytecode_of_the_checker(handler) as ran:
                assert wait_for_completion_timeout(x, LONG) > 0
            moment, last = moment + 3, ran[0]  # each step of a hook is longer than that
    assert last > 50
    assert not reports, str(reports)
