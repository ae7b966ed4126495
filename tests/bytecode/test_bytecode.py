# SPDX-License-Identifier: MIT
"""A sample of `python -m tests.bytecode`, and proof that it finds what is wrong."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest

from tests.bytecode.__main__ import ROOT, bad, environment, main, never_interrupted, rows
from tests.bytecode.asleep import KNOWN_MACHINE, at_rest
from tests.bytecode.sweep import REFERENCE, Plan, Row

pytestmark = pytest.mark.udriver_unchecked("it is about the core's own bytecode")

DRIVER = [
    f"{irq}: {what}" for irq in ("signal", "select", "inline") for what in ("transact", "read")
]
KNOWN = [
    ("threading.Condition(Lock)", "notify", "D"),
    ("threading.Condition", "wait that sleeps", "L"),
    ("queue.Queue", "put", "D"),
    ("queue.SimpleQueue", "put, get", ""),
]
NESTED = [
    "complete with waiters",
    "complete_all",
    "wait_for_completion_interruptible that sleeps",
    "wait_for_completion_timeout that expires",
    "try_wait_for_completion with a token",
    "disable_irq, enable_irq, oneshot",
    "kfifo: in_bytes",
]
ASLEEP = "wait_for_completion that sleeps"
KERNEL = ["completion", "irq", "kfifo", "other"]


def swept(groups: Sequence[str], only: Sequence[str] = (), *, stride: int, pairs: int = 0,
          driver_stride: int = 1, timers: int = 0) -> list[Row]:  # fmt: skip
    """What a sweep of these finds, in a process of its own: it forks, and this one has threads."""
    plan = Plan(groups=list(groups), only=list(only), stride=stride, driver_stride=driver_stride,
                pairs=pairs, timers=timers, seed=os.getpid())  # fmt: skip
    return list(rows(sys.executable, plan))


kernel = functools.cache(lambda: swept(KERNEL, stride=251))
asleep = functools.cache(lambda: swept(KERNEL, [ASLEEP], stride=1))
nested = functools.cache(lambda: swept(KERNEL, NESTED, stride=97, pairs=1, timers=1))
broken = functools.cache(lambda: swept(["broken"], stride=1))
driver = functools.cache(lambda: swept(["driver"], DRIVER, stride=1, driver_stride=251, timers=1))
stdlib = functools.cache(lambda: swept(REFERENCE, [f"{a}.{b}" for a, b, _ in KNOWN], stride=13))


def kinds(found: Sequence[Row], way: str) -> dict[str, int]:
    """Cases of ``way``, and how many of them went wrong, by kind."""
    total: dict[str, int] = {}
    for row in found:
        for kind, count in row["ways"].get(way, {}).items():
            total[kind] = total.get(kind, 0) + count
    return total


@pytest.mark.slow
@pytest.mark.parametrize("way", ["call", "raise", "pend"])
def test_nothing_goes_wrong_in_the_kernel(way: str) -> None:
    assert bad(kernel()) == []
    assert kinds(kernel(), way).keys() == {"cases"}
    assert kinds(kernel(), way)["cases"] > 300


@pytest.mark.slow
def test_a_wait_may_be_interrupted_at_each_of_its_bytecodes() -> None:
    """All of them here, where the others are sampled."""
    assert bad(asleep()) == []
    ops = 4
    assert kinds(asleep(), "pend")["cases"] > 0.9 * ops * asleep()[0]["points"]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["two deep", "timer"])
def test_nothing_goes_wrong_two_deep_and_at_random_times(way: str) -> None:
    assert bad(nested()) == []
    assert kinds(nested(), way).keys() == {"cases"}
    assert kinds(nested(), way)["cases"] > 30


def test_each_public_function_of_the_kernel_is_interrupted() -> None:
    assert never_interrupted(kernel(), "reachable") == []


@pytest.mark.slow
@pytest.mark.parametrize("irq", ["signal", "select", "inline"])
def test_nothing_goes_wrong_in_the_driver(irq: str) -> None:
    found = [row for row in driver() if row["program"].startswith(irq)]
    assert bad(found) == []
    assert kinds(found, "raise")["cases"] > 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "kind"),
    [
        ("broken: done += 1", "W"),
        ("broken: look, then leap", "W"),
        ("broken: queues after the look", "L"),
        ("broken: a lock around it", "D"),
    ],
)
def test_a_wrong_completion_is_found(program: str, kind: str) -> None:
    found = [row for row in broken() if row["program"] == program]
    for way in ("call", "raise"):
        assert kinds(found, way)[kind] > 0


def test_a_wait_that_does_not_sleep_on_the_wakeup_fd_stalls() -> None:
    assert kinds(broken(), "pend")["S"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("group", "program", "kind"),
    KNOWN,
)
def test_what_is_known_of_the_standard_library_shows(group: str, program: str, kind: str) -> None:
    counts = kinds([row for row in stdlib() if row["program"] == f"{group}.{program}"], "raise")
    assert counts.pop("cases") > 2
    assert kind in counts if kind else not counts


@pytest.mark.skipif(not KNOWN_MACHINE, reason="system call numbers of x86_64 and aarch64 only")
@pytest.mark.parametrize("sleep", ["lock.acquire()", "sys.stdin.read()", "select.poll().poll()"])
def test_a_process_that_sleeps_for_good_is_at_rest(sleep: str) -> None:
    with process_that(sleep) as process:
        end = time.monotonic() + 20
        while at_rest(process.pid) is None:
            assert time.monotonic() < end
            os.sched_yield()
        process.kill()


@pytest.mark.parametrize(
    "sleep", ["lock.acquire(timeout=60)", "time.sleep(60)", "sum(iter(int, 1))"]
)
def test_a_process_that_goes_on_is_not_at_rest(sleep: str) -> None:
    with process_that(sleep) as process:
        assert [at_rest(process.pid) for _ in range(100)] == [None] * 100
        process.kill()


def process_that(sleeps: str) -> subprocess.Popen[bytes]:
    """An interpreter that is about to do that."""
    code = f"import select, sys, threading, time; lock = threading.Lock(); lock.acquire(); print(); {sleeps}"
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_a_wrong_argument_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["--groups", "completion,nonsense"])
    assert refused.value.code == 2
    assert "no group nonsense" in capsys.readouterr().err


def test_other_interpreters_get_what_they_need_from_the_environment() -> None:
    code = "import serial, udriver.drivers.usbserial, udriver_hw.loopback"
    ran = subprocess.run(
        [sys.executable, "-S", "-c", code], env=environment(), cwd=ROOT, check=False
    )
    assert ran.returncode == 0
