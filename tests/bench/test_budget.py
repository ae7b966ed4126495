# SPDX-License-Identifier: MIT
"""``udriver bench --budget``: counts, so what a count must be can be said; times are not looked at."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from udriver.bench import budget, trip
from udriver.bench.roundtrip import BY_HAND
from udriver_hw.spawned import spawn_counterpart

pytestmark = pytest.mark.slow
COUNT = 8


@pytest.fixture(scope="module")
def late() -> dict[str, budget.Budget]:
    """The answer late: the reader sleeps, so the way is the same each time."""
    found = budget.take_stock(COUNT, who=["bare", "inline"], answers=["late"])
    return {each.who: each for each in found}


@pytest.mark.skipif(budget.missing() is not None, reason=str(budget.missing()))
def test_the_floor_is_one_write_and_one_read(late: dict[str, budget.Budget]) -> None:
    assert late["bare"].note == ""
    assert late["bare"].syscalls == {"write": 1.0, "read": 1.0}
    assert late["bare"].signals == {}


@pytest.mark.skipif(budget.missing() is not None, reason=str(budget.missing()))
def test_the_driver_writes_once_and_reads_once_and_sleeps(late: dict[str, budget.Budget]) -> None:
    calls = late["inline"].syscalls
    assert calls["write"] == 1.0
    assert calls["readv"] == 1.0
    assert calls["epoll_wait"] >= 1.0


def test_bytecodes_are_counted_by_function_and_the_clockwork_is_not(
    late: dict[str, budget.Budget],
) -> None:
    driver, floor = late["inline"].bytecodes, late["bare"].bytecodes
    isr = driver["udriver.drivers.usbserial.UsbSerial.isr"]
    assert isr == int(isr) > 10  # once a round trip, the same way each time
    assert list(floor) == ["udriver.bench.floor.bare_trips.<locals>.trip"]
    assert sum(driver.values()) > 5 * sum(floor.values())


def test_the_locks_of_an_event_are_counted() -> None:
    with spawn_counterpart("late") as device:
        found = budget._count(BY_HAND, "late", device.path, COUNT, None)
    # wait() takes the condition's and, to sleep, a new one twice; set() and clear() the condition's
    assert found.locks["acquire"] >= 5
    assert found.locks["release"] >= 4
    assert found.plain["voluntary"] >= 1  # each of the two threads sleeps


@pytest.mark.skipif(budget.missing() is not None, reason=str(budget.missing()))
@pytest.mark.parametrize("chip", ["inline", "select", "signal"])
def test_an_idle_port_makes_no_system_call(chip: str) -> None:
    with spawn_counterpart("echo") as device:
        assert budget.idle_calls(device.path, chip, 300) == 0


def test_another_checkout_is_counted_with_the_same_tool(tmp_path: Path) -> None:
    """Its driver is imported, not ours."""
    package = tmp_path / "udriver" / "bench"
    package.mkdir(parents=True)
    (tmp_path / "udriver" / "__init__.py").touch()
    (package / "__init__.py").touch()
    for name in ("completions", "floor", "peers"):
        (package / f"{name}.py").touch()
    (package / "roundtrip.py").write_text(
        "import contextlib\nCHIPS = ['inline']\nFRAME = b''\n"
        "def count_me(): pass\n"
        "count_me.__globals__['__name__'] = 'elsewhere'\n"
        "def driver_trips(*_):\n"
        "    return contextlib.nullcontext(lambda count: [count_me() for _ in range(count)])\n"
    )
    (found,) = (
        each
        for each in budget.take_stock(4, tmp_path, ["inline"], ["at once"])
        if each.who == "inline"
    )
    assert "elsewhere.count_me" in found.bytecodes


def test_without_strace_the_rest_is_counted_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with spawn_counterpart("echo") as device:
        found = budget._count("bare", "at once", device.path, COUNT, None)
        with pytest.raises(OSError, match="apt install strace"):
            budget.idle_calls(device.path, "inline")
    assert found.syscalls == {}
    assert "apt install strace" in found.note
    assert sum(found.bytecodes.values()) > 0


def test_only_what_lies_between_the_markers_counts() -> None:
    log = [
        "7 1.0 read(3, ...) = 1",
        f'7 1.1 access("{trip.BEGIN}", F_OK) = -1',
        "7 1.2 write(3, ...) = 1",
        "8 1.3 --- SIGURG {si_signo=SIGURG} ---",
        f'7 1.4 access("{trip.END}", F_OK) = -1',
        "7 1.5 close(3) = 0",
    ]
    assert list(budget._between(log)) == log[2:4]
    with pytest.raises(OSError, match="no end"):
        list(budget._between(log[:4]))


def test_before_goes_with_budget(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "udriver", "bench", "--before", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
    assert result.returncode == 2
    assert "--budget" in result.stderr
