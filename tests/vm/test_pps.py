# SPDX-License-Identifier: MIT
"""N_PPS on the real ftdi_sio: the kernel's own time of DCD's edges, beside the wake-up's time of CTS's."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from udriver.drivers.pps import N_PPS, N_TTY
from vm.machine import Machine

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {"PYTHONPATH": f"{ROOT}:{ROOT / 'hw'}"}
TIMES = 40

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_the_kernel_times_the_edges_of_dcd(rung_qemu: None, tell: Callable[[str], None]) -> None:
    with Machine(extra_modules=("pps_ldisc",)) as machine:
        script = Path(__file__).with_name("pps_edges.py")
        ran = machine.run([sys.executable, str(script), str(TIMES)], env=ENVIRONMENT, timeout=200)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    report = json.loads(ran.stdout.splitlines()[-1])
    told = report["told"]
    kinds = ["falling" if number // 2 % 2 else "rising" for number in range(2 * TIMES)]
    assert [record["line"] for record in told] == ["dcd", "cts"] * TIMES
    assert [record["edge"] for record in told] == kinds
    errors = {
        line: [record["error_ns"] for record in told if record["line"] == line]
        for line in ("dcd", "cts")
    }
    for record in told:
        assert record["asked_ns"] - record["error_ns"] <= record["timestamp_ns"]
        assert record["timestamp_ns"] <= record["woken_ns"]
    medians = {line: statistics.median(found) for line, found in errors.items()}
    tell(
        f"rung qemu, {report['source']}: the time of an edge is at most so wrong, median: dcd "
        f"{medians['dcd'] / 1000:.0f} us by N_PPS, cts {medians['cts'] / 1000:.0f} us by TIOCMIWAIT"
    )
    assert 10 * medians["dcd"] < medians["cts"]
    assert report["same"], "bytes go through as before"
    assert report["disciplines"] == [N_PPS, N_TTY]
