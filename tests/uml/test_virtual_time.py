# SPDX-License-Identifier: MIT
"""In virtual time a latency timer, a baud rate and a timeout are exact, and a run is like the other.

Exact is: to a few steps of the guest's clock. It stands still while programs run, but for a step of 256 ns
each time that somebody reads it (arch/um/kernel/time.c), which the server of the chip does on every turn.
"""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

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
    trips = measured(first, "latency_timer")
    assert list(trips) == [16 * MS, 8 * MS, 2 * MS, 1 * MS]
    for timer, took in trips.items():
        assert all(0 <= trip - timer <= 4 * STEP for trip in took), (timer, took)
    # where the timer is whole steps nothing is lost to rounding, and none but the first has any to add
    assert trips[16 * MS][1:] == [16 * MS] * 4
    assert trips[8 * MS][1:] == [8 * MS] * 4


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
