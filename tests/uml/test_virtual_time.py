# SPDX-License-Identifier: MIT
"""In virtual time a latency timer, a baud rate and a timeout are exact, and a run is like the other.

Exact is: to a few steps of the guest's clock. It stands still while programs run, but for a step of 256 ns
each time that somebody reads it (arch/um/kernel/time.c), which the server of the chip does on every turn.
"""

from __future__ import annotations

import json
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from vm.uml import Uml

PROGRAM = Path(__file__).with_name("timing.py")
RUNS = 10
STEP = 256  # ns
MS = 1_000_000
SLACK = 50_000  # ns; a task's timers may be that late (prctl(2), PR_SET_TIMERSLACK)
TICK = 10 * MS  # the guest's kernel has HZ=100
JIFFY = MS  # of udriver, which has HZ=1000
FRAME, PACKET, LONGEST_TIMER = 10, 62, 255 * MS  # bits of 8N1; characters; ns

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def log(machine: Uml, seed: int) -> str:
    """What timing.py prints."""
    done = machine.run([sys.executable, str(PROGRAM), str(seed)], timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def first(virtual: Uml) -> str:
    """One run, which all but one test here look at."""
    return log(virtual, 1)


def measured(text: str, what: str) -> dict[int, list[int]]:
    """What was asked for, and how long it took each time; the line's own instant is not in it."""
    rows = [line.split() for line in text.splitlines()]
    return {int(row[2]): [int(value) for value in row[3:]] for row in rows if row[1] == what}


def test_ten_runs_with_one_seed_print_the_same(virtual: Uml, first: str) -> None:
    assert len(first.splitlines()) == 14
    assert {log(virtual, 1) for _ in range(RUNS - 1)} == {first}


def test_a_byte_goes_round_in_the_time_of_the_latency_timer(first: str) -> None:
    """Exactly is to four steps of the clock, a microsecond, either way; and of whole steps none is lost.

    The chip's timer runs from its last packet, and we from when we read the clock after that, a few steps
    later or earlier each time. At 16 and 8 ms, which are whole steps, that does not add up; 2 and 1 ms are
    half and a quarter of a step beside one, and each packet then leaves on the next.
    """
    trips = measured(first, "latency_timer")
    assert list(trips) == [16 * MS, 8 * MS, 2 * MS, 1 * MS]
    for timer, took in trips.items():
        assert all(trip % STEP == 0 for trip in took), "the clock has other steps"
        assert all(abs(trip - timer) <= 4 * STEP for trip in took), (timer, took)
        if timer % STEP == 0:
            assert abs(sum(took) - len(took) * timer) <= 4 * STEP, (timer, took)


def run_with_timer(machine: Uml, *arguments: str) -> tuple[int, dict[str, Any], str, int]:
    """What came of `udriver run`: its status, report and stderr, and the timer afterwards."""
    program = str(PROGRAM.with_name("run_with_timer.py"))
    done = machine.run([sys.executable, program, *arguments], timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    status, report, stderr, after = json.loads(done.stdout)
    return status, report, stderr, after


@pytest.mark.parametrize("milliseconds", [16, 8, 2, 1])
def test_udriver_run_explains_what_the_latency_timer_costs(virtual: Uml, milliseconds: int) -> None:
    options = ("--keep-latency", "--size", "1", "--frames", "50")
    status, report, stderr, after = run_with_timer(virtual, str(milliseconds), *options)
    assert (status, after) == (0, milliseconds)
    assert report["latency_timer_ms"] == milliseconds
    # of a histogram of three digits, and a few readings of the clock
    assert report["latency_us"]["p50"] == pytest.approx(1000 * milliseconds, rel=2e-3)
    (told,) = [line for line in stderr.splitlines() if "latency timer" in line]
    assert f"{milliseconds} ms in /sys/bus/usb-serial/devices/ttyUSB0/latency_timer" in told
    assert f"round trips took {milliseconds}.0 ms; run `udriver udev install`" in told


def test_udriver_run_sets_it_to_a_millisecond_and_says_what_it_was(virtual: Uml) -> None:
    status, report, stderr, after = run_with_timer(virtual, "16", "--size", "1", "--frames", "50")
    assert (status, after) == (0, 16)
    assert report["latency_us"]["p50"] == pytest.approx(1000, rel=2e-3)
    (told,) = [line for line in stderr.splitlines() if "latency timer" in line]
    assert "1 ms in /sys/bus/usb-serial/devices/ttyUSB0/latency_timer" in told
    assert "set for this run by ASYNC_LOW_LATENCY, 16 ms before and after" in told
    assert "round trips took 1.0 ms; run `udriver udev install`" in told


@pytest.mark.parametrize(
    ("asked", "rate"),
    [(9600, Fraction(9600)), (19200, Fraction(19200)), (115200, Fraction(3_000_000, 26))],
)
def test_characters_take_as_long_as_the_rate_says(first: str, asked: int, rate: Fraction) -> None:
    """62 of them fill a packet, and so end no URB: the host hears of them when the timer runs out."""
    line = Fraction(PACKET * FRAME * 1000 * MS) / rate
    for took in measured(first, "pacing")[asked]:
        assert 0 <= took - (line + LONGEST_TIMER) <= 10 * STEP


@pytest.mark.parametrize("call", ["select", "poll"])
def test_a_time_out_is_late_by_the_timer_slack(first: str, call: str) -> None:
    ((asked, (took,)),) = measured(first, call).items()
    assert 0 <= took - (asked + SLACK) <= 5 * STEP


def test_vtime_ends_on_a_tick(first: str) -> None:
    """It counts in ticks of the kernel, from the next one on."""
    ((asked, (took,)),) = measured(first, "vtime").items()
    assert asked < took <= asked + TICK
    (ended,) = (int(line.split()[0]) for line in first.splitlines() if " vtime " in line)
    assert ended % TICK <= 4 * STEP


@pytest.mark.parametrize("irqchip", ["signal", "select", "inline"])
def test_the_driver_s_time_out_is_late_by_a_jiffy(first: str, irqchip: str) -> None:
    """A time-out is rounded up to whole jiffies, and never begins on the edge of one."""
    ((asked, (took,)),) = measured(first, f"read_{irqchip}").items()
    assert asked <= took <= asked + 2 * JIFFY
