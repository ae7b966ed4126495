# SPDX-License-Identifier: MIT
"""Modem-line interrupts and line errors under the kernel's drivers, by chip models on the guest's own USB/IP.

What each driver tells is its own: ftdi_sio counts each edge, cp210x none, cdc_acm all but the ends of rings;
cdc_acm marks no byte that came with a parity or framing error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from vm.job import Commands
from vm.machine import Machine

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {"PYTHONPATH": f"{ROOT}:{ROOT / 'hw'}"}
TIMES = 60  # waits that free_irq() ends; a quarter as many an unplug
BOUND_MS = 100.0  # what is promised
LATE = 0.1  # of them may be later, in a guest without KVM on a shared machine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

METHODS = {"ft232r": "TIOCMIWAIT", "cp210x": "polling", "cdc_acm": "TIOCMIWAIT"}
LINES_OF = {
    "ft232r": ["cts", "dsr", "dcd", "ri"],
    "cp210x": ["cts", "dsr", "dcd", "ri"],
    "cdc_acm": ["dsr", "dcd", "ri"],
}
COUNTED = {  # by the kernel, of two edges each and 100 of the first line
    "ft232r": {"cts": 102, "dsr": 2, "dcd": 2, "rng": 2},
    "cp210x": {"cts": 0, "dsr": 0, "dcd": 0, "rng": 0},
    "cdc_acm": {"cts": 0, "dsr": 102, "dcd": 2, "rng": 1},
}
KINDS = ("break", "parity", "framing", "overrun")
SEEN = {"ft232r": KINDS, "cp210x": KINDS, "cdc_acm": ("break", "overrun")}
# QEMU is slow: there the chips beside the first get one irqchip
ON_QEMU = [("ft232r", irq) for irq in ("signal", "select", "inline")]
ON_QEMU += [("cp210x", "select"), ("cdc_acm", "inline")]

_reports: dict[tuple[str, str, str], dict[str, Any]] = {}


def reported(machine: Commands, rung: str, chip: str, irq: str) -> dict[str, Any]:
    """What modem_lines.py saw with this chip and irqchip; it runs once for each."""
    key = (rung, chip, irq)
    if key not in _reports:
        script = Path(__file__).with_name("modem_lines.py")
        command = [sys.executable, str(script), chip, irq, str(TIMES)]
        ran = machine.run(command, env=ENVIRONMENT, timeout=400)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        _reports[key] = {"rung": rung, **json.loads(ran.stdout.splitlines()[-1])}
    return _reports[key]


@pytest.fixture(params=ON_QEMU, ids="-".join)
def report(request: pytest.FixtureRequest, vm: Machine) -> dict[str, Any]:
    """Of each chip, in QEMU; tests/uml has the same tests with a report of its own."""
    return reported(vm, "qemu", *request.param)


def named(report: dict[str, Any]) -> str:
    return f"rung {report['rung']}, {report['chip']}, {report['irq']}"


def test_both_edges_of_each_line_wake_a_waiter(report: dict[str, Any]) -> None:
    edges, lines = report["edges"], LINES_OF[report["chip"]]
    assert edges["method"] == METHODS[report["chip"]]
    expected = [(line, edge) for line in lines for edge in ("rising", "falling")]
    told = [(record["line"], record["edge"]) for record in edges["single"]]
    assert told == expected
    assert [record["seqno"] for record in edges["single"]] == [*range(1, 2 * len(lines) + 1)]
    assert [record["line_seqno"] for record in edges["single"]] == [1, 2] * len(lines)
    assert [record["missed"] for record in edges["single"]] == [0] * 2 * len(lines)
    stamps = [record["timestamp_ns"] for record in edges["single"]]
    assert stamps == sorted(stamps)
    assert report["waits"] == [f"{line} {level}" for line in lines for level in ("on", "off")]
    first, *_ = lines
    expected = COUNTED[report["chip"]]
    assert {**edges["counted"], first: 0} == {**expected, first: 0}
    assert 0 < edges["counted"][first] <= 102 or edges["counted"][first] == expected[first]


def test_they_land_where_the_irqchip_s_interrupts_land(report: dict[str, Any]) -> None:
    where = {"signal": "MainThread", "select": "irq/select", "inline": "MainThread"}
    assert report["edges"]["threads"] == [where[report["irq"]]]


def test_of_a_hundred_edges_in_a_row_none_is_lost(
    report: dict[str, Any], tell: Callable[[str], None]
) -> None:
    edges = report["edges"]
    storm, counted = edges["storm"], edges["counted"][LINES_OF[report["chip"]][0]]
    if edges["method"] == "polling":  # of which none is made: it knows of none between two looks
        assert storm == []
        return
    assert len(storm) + sum(record["missed"] for record in storm) == counted - 2
    assert counted % 2 == 0
    assert storm[-1]["line_seqno"] == counted
    for earlier, later in pairwise(storm):
        assert (earlier["edge"] != later["edge"]) == (later["missed"] % 2 == 0)
        assert later["line_seqno"] == earlier["line_seqno"] + 1 + later["missed"]
        assert earlier["timestamp_ns"] <= later["timestamp_ns"]
    tell(
        f"{named(report)}: 100 edges in a row, {len(storm)} with a record of their own, "
        f"a record's time at most {edges['error_ns'] / 1e6:.2f} ms late by the wake-ups measured"
    )


def test_each_error_is_counted_once_and_told_once_in_order(report: dict[str, Any]) -> None:
    errors, seen = report["errors"], SEEN[report["chip"]]
    assert errors["kernel"] == {"brk": 3, "parity": 3, "frame": 3, "overrun": 3}
    assert errors["counted"] == dict.fromkeys(KINDS, 3)
    assert errors["seen"] == {kind: 3 * (kind in seen) for kind in (*KINDS, "parity or framing")}
    data = bytes.fromhex(errors["data"])
    cycle = b"good\xffgood\xff\xffgood\xff\0good\xffO"
    assert data == cycle * 3 + b"end"
    positions = [error["position"] for error in errors["told"]]
    assert positions == sorted(positions)
    for kind, at, byte in zip(KINDS, (5, 10, 16, 22), (None, 0xFF, 0, None), strict=True):
        told = [error for error in errors["told"] if error["kind"] == kind]
        assert len(told) == 3 * (kind in seen)
        for number, error in enumerate(told):
            place = number * len(cycle) + at
            if kind == "overrun":
                assert error["since"] <= error["position"] >= place
                assert report["chip"] == "cdc_acm" or error["since"] <= place
            else:
                assert error["position"] == place
            assert error["byte"] == byte
    assert errors["astray"] == 0


def test_free_irq_ends_the_wait(report: dict[str, Any], tell: Callable[[str], None]) -> None:
    took = sorted(report["freed_ms"])
    late = sum(ms > BOUND_MS for ms in took)
    tell(f"{named(report)}: free_irq() ended {len(took)} waits in {figures(took)}")
    assert len(took) == TIMES
    assert late <= LATE * len(took)
    assert report["leaked"] == []
    assert report["threads"] == ["MainThread"]


def test_an_unplug_ends_the_wait_and_wakes(
    report: dict[str, Any], tell: Callable[[str], None]
) -> None:
    pulled = report["pulled"]
    for what, key in (("ended the wait", "ended_ms"), ("woke the waiter", "woken_ms")):
        took = sorted(pulled[key])
        tell(f"{named(report)}: an unplug {what} in {figures(took)}")
        assert len(took) == TIMES // 4
        assert sum(ms > BOUND_MS for ms in took) <= LATE * len(took)
    assert pulled["gone"] == [True] * (TIMES // 4)
    assert sum(ms > BOUND_MS for ms in pulled["freed_ms"]) <= LATE * len(pulled["freed_ms"])


def figures(took: list[float]) -> str:
    late = sum(ms > BOUND_MS for ms in took)
    median = took[len(took) // 2]
    return f"{took[0]:.1f}/{median:.1f}/{took[-1]:.1f} ms (min/median/max), {late} over 100 ms"
