# SPDX-License-Identifier: MIT
"""Modem-line interrupts and line errors on the real ftdi_sio, by a chip model on the guest's own USB/IP."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from udriver.drivers.edges import LINES
from vm.machine import Machine

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {"PYTHONPATH": f"{ROOT}:{ROOT / 'hw'}"}
TIMES = 60  # waits that free_irq() ends; a quarter as many an unplug
BOUND_MS = 100.0  # what is promised
LATE = 0.1  # of them may be later, in a guest without KVM on a shared machine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

_reports: dict[str, dict[str, Any]] = {}


@pytest.fixture(params=["signal", "select", "inline"])
def report(request: pytest.FixtureRequest, vm: Machine) -> dict[str, Any]:
    """What modem_lines.py saw with this irqchip; it runs once for each."""
    irq = request.param
    if irq not in _reports:
        script = Path(__file__).with_name("modem_lines.py")
        command = [sys.executable, str(script), irq, str(TIMES)]
        ran = vm.run(command, env=ENVIRONMENT, timeout=400)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        _reports[irq] = json.loads(ran.stdout.splitlines()[-1])
    return _reports[irq]


def test_both_edges_of_each_line_wake_a_waiter(report: dict[str, Any]) -> None:
    edges = report["edges"]
    assert edges["method"] == "TIOCMIWAIT"
    numbers = range(1, 9)
    expected = [(line, edge) for line in LINES for edge in ("rising", "falling")]
    told = [(record["line"], record["edge"]) for record in edges["single"]]
    assert told == expected
    assert [record["seqno"] for record in edges["single"]] == list(numbers)
    assert [record["line_seqno"] for record in edges["single"]] == [1, 2] * 4
    assert [record["missed"] for record in edges["single"]] == [0] * 8
    stamps = [record["timestamp_ns"] for record in edges["single"]]
    assert stamps == sorted(stamps)
    assert report["waits"] == [f"{line} {level}" for line in LINES for level in ("on", "off")]


def test_they_land_where_the_irqchip_s_interrupts_land(report: dict[str, Any]) -> None:
    where = {"signal": "MainThread", "select": "irq/select", "inline": "MainThread"}
    assert report["edges"]["threads"] == [where[report["irq"]]]


def test_of_a_hundred_edges_in_a_row_none_is_lost(
    report: dict[str, Any], tell: Callable[[str], None]
) -> None:
    edges = report["edges"]
    assert edges["counted"] == {"cts": 102, "dsr": 2, "dcd": 2, "rng": 2}
    storm = edges["storm"]
    assert len(storm) + sum(record["missed"] for record in storm) == 100
    assert storm[-1]["line_seqno"] == 102
    for earlier, later in pairwise(storm):
        assert (earlier["edge"] != later["edge"]) == (later["missed"] % 2 == 0)
        assert later["line_seqno"] == earlier["line_seqno"] + 1 + later["missed"]
        assert earlier["timestamp_ns"] <= later["timestamp_ns"]
    tell(
        f"rung qemu, {report['irq']}: 100 edges in a row, {len(storm)} with a record of their own, "
        f"a record's time at most {edges['error_ns'] / 1e6:.2f} ms late by the wake-ups measured"
    )


def test_each_error_is_counted_once_and_told_once_in_order(report: dict[str, Any]) -> None:
    errors = report["errors"]
    assert errors["kernel"] == {"brk": 3, "parity": 3, "frame": 3, "overrun": 3}
    assert errors["counted"] == {"break": 3, "parity": 3, "framing": 3, "overrun": 3}
    assert errors["seen"] == {**errors["counted"], "parity or framing": 0}
    assert [error["kind"] for error in errors["told"]] == [
        "break", "parity", "framing", "overrun",
    ] * 3  # fmt: skip
    data = bytes.fromhex(errors["data"])
    cycle = b"good\xffgood\xff\xffgood\xff\0good\xffO"
    assert data == cycle * 3 + b"end"
    for number, error in enumerate(errors["told"]):
        start = number // 4 * len(cycle)
        at = (5, 10, 16, 22)[number % 4] + start
        if error["kind"] == "overrun":
            assert error["since"] <= at <= error["position"]
        else:
            assert error["position"] == at
        byte = {"parity": 0xFF, "framing": 0}.get(error["kind"])
        assert error["byte"] == byte
    assert errors["astray"] == 0


def test_free_irq_ends_the_wait(report: dict[str, Any], tell: Callable[[str], None]) -> None:
    took = sorted(report["freed_ms"])
    late = sum(ms > BOUND_MS for ms in took)
    tell(f"rung qemu, {report['irq']}: free_irq() ended {len(took)} TIOCMIWAITs in {figures(took)}")
    assert len(took) == TIMES
    assert late <= LATE * len(took)
    assert report["leaked"] == []
    assert report["threads"] == ["MainThread"]


def test_an_unplug_ends_the_wait_and_wakes(
    report: dict[str, Any], tell: Callable[[str], None]
) -> None:
    pulled = report["pulled"]
    for what, key in (("ended the TIOCMIWAIT", "ended_ms"), ("woke the waiter", "woken_ms")):
        took = sorted(pulled[key])
        tell(f"rung qemu, {report['irq']}: an unplug {what} in {figures(took)}")
        assert len(took) == TIMES // 4
        assert sum(ms > BOUND_MS for ms in took) <= LATE * len(took)
    assert pulled["gone"] == [True] * (TIMES // 4)
    assert sum(ms > BOUND_MS for ms in pulled["freed_ms"]) <= LATE * len(pulled["freed_ms"])


def figures(took: list[float]) -> str:
    late = sum(ms > BOUND_MS for ms in took)
    median = took[len(took) // 2]
    return f"{took[0]:.1f}/{median:.1f}/{took[-1]:.1f} ms (min/median/max), {late} over 100 ms"
