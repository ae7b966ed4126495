# SPDX-License-Identifier: MIT
"""The driver on the real ftdi_sio: the main job, and coming back after each of many unplugs."""

from __future__ import annotations

import hashlib
import json
import random
import sys
from pathlib import Path

import pytest

from vm.machine import Machine

ROOT = Path(__file__).parents[2]
PORT = "/dev/ttyUSB0"
ENVIRONMENT = {"PYTHONPATH": f"{ROOT}:{ROOT / 'hw'}"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize("irq", ["signal", "select", "inline"])
def test_a_file_goes_through_the_real_driver(vm: Machine, irq: str) -> None:
    assert vm.results is not None
    source = Path(vm.results) / f"file-{irq}"
    source.write_bytes(random.Random(irq).randbytes(1 << 20))
    command = [sys.executable, "-m", "udriver", "run", PORT, "--irq", irq, "--file", str(source)]
    ran = vm.run([*command, "--json"], env=ENVIRONMENT, timeout=120)
    assert ran.returncode == 0, ran.stderr
    report = json.loads(ran.stdout)
    assert report["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert (report["errors"], report["lost"], report["rung"]) == (0, 0, "adapter")
    assert report["icount"]["rx"] >= 1 << 20
    assert report["low_latency"] is True


@pytest.mark.parametrize("irq", ["signal", "select", "inline"])
def test_it_comes_back_after_each_unplug(vm: Machine, irq: str) -> None:
    script = Path(__file__).with_name("unplug_cycles.py")
    cycles = 50 if irq == "inline" else 10
    ran = vm.run(
        [sys.executable, str(script), irq, str(cycles)], env=ENVIRONMENT, timeout=240
    )  # fmt: skip
    print(ran.stdout)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    report = json.loads(ran.stdout.splitlines()[-1])
    assert report["cycles"] == cycles
    assert report["generations"] == cycles + 1
    assert report["leaked"] == []
    assert report["bytes_astray"] == 0
    assert report["wake_ms"]["count"] == cycles - report["idle"]
