# SPDX-License-Identifier: MIT
"""The driver on the real ftdi_sio: its suite, a file through it, and coming back after each unplug."""

from __future__ import annotations

import hashlib
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.rungs import QUIRKS, counted
from udriver.drivers.irqchip import IRQCHIPS
from vm.machine import Machine

ROOT = Path(__file__).parents[2]
PORT = "/dev/ttyUSB0"
ENVIRONMENT = {"PYTHONPATH": f"{ROOT}:{ROOT / 'hw'}"}

CYCLES = 50

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def suite(vm: Machine) -> list[ElementTree.Element]:
    """Every case of tests/drivers, as it went in the guest on the real tty."""
    assert vm.results is not None
    xml = Path(vm.results) / "drivers.xml"
    options = ["-q", "-p", "no:cacheprovider", "--udriver-port", PORT, f"--junitxml={xml}"]
    options += ["-o", "junit_family=xunit1"]  # the one that has room for record_property
    command = [sys.executable, "-m", "pytest", "tests/drivers", *options]
    ran = vm.run(command, cwd=ROOT, timeout=550)
    assert xml.is_file(), ran.stdout + ran.stderr
    return list(ElementTree.parse(xml).iter("testcase"))


def has(case: ElementTree.Element, what: str) -> bool:
    return case.find(what) is not None


def test_the_driver_s_suite_passes_on_ttyusb0(
    suite: list[ElementTree.Element], tell: Callable[[str], None], vm: Machine
) -> None:
    bad = [case for case in suite if has(case, "failure") or has(case, "error")]
    skips = [str(skip.get("message")) for case in suite for skip in case.iter("skipped")]
    quirks = counted(skips)
    named = ", ".join(f"{count} {name}" for name, count in sorted(quirks.items()))
    tell(
        f"rung qemu, Linux {vm.kernel_release}, {PORT}: {len(suite) - len(skips) - len(bad)} of the "
        f"driver's tests passed, {len(bad)} failed, {len(skips)} skipped ({named})"
    )
    assert not bad, "\n\n".join("".join(case.itertext()) for case in bad[:3])
    assert quirks.keys() <= {quirk.name for quirk in QUIRKS["qemu"]}
    assert quirks.total() == len(skips), "a skip that names no quirk"


def test_as_much_of_it_on_each_irqchip(suite: list[ElementTree.Element]) -> None:
    ran = [case.get("name", "") for case in suite if not has(case, "skipped")]
    chips = Counter(chip for name in ran for chip in IRQCHIPS if re.search(rf"\b{chip}\b", name))
    assert set(chips) == set(IRQCHIPS)
    assert min(chips.values()) > 50


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
def test_it_comes_back_after_each_unplug(
    vm: Machine, irq: str, tell: Callable[[str], None]
) -> None:
    script = Path(__file__).with_name("unplug_cycles.py")
    command = [sys.executable, str(script), irq, str(CYCLES)]
    ran = vm.run(command, env=ENVIRONMENT, timeout=400)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    *histogram, last = ran.stdout.splitlines()
    report: dict[str, Any] = json.loads(last)
    tell(f"rung qemu, {irq}: {CYCLES} unplugs, awake with ENODEV after the hangup in")
    for line in [*histogram, f"{report['late']} later than 100 ms"]:
        tell(f"  {line}")
    assert report["cycles"] == CYCLES
    assert report["generations"] == CYCLES + 1
    assert report["leaked"] == []
    assert report["bytes_astray"] == 0
    assert report["wake_ms"]["count"] == CYCLES - report["idle"]
