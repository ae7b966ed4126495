# SPDX-License-Identifier: MIT
"""The rung uml: the driver's suite on our chip under ftdi_sio, in virtual time; a guest for each half."""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.rungs import QUIRKS, counted
from udriver.drivers.irqchip import IRQCHIPS
from vm.job import Job
from vm.uml import Uml

ROOT = Path(__file__).parents[2]
# One guest has one processor, and the machine more: about half of the work each.
HALVES = (("signal",), ("select", "inline"))
TIMEOUT = 500.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def start(machine: Uml, name: str, tests: str, *options: str) -> tuple[Job, Path]:
    """pytest in a guest with our chip plugged in; and where its report will be."""
    xml = machine.results / f"{name}.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests, *options]
    command += [f"--junitxml={xml}", "-o", "junit_family=xunit1"]
    return machine.start(command, cwd=ROOT, env={"UDRIVER_USB": "ft232r"}), xml


def cases(job: Job, xml: Path) -> dict[str, ElementTree.Element]:
    """How each went, by name."""
    job.wait(TIMEOUT)
    assert xml.is_file(), job.stdout() + job.stderr()
    found = ElementTree.parse(xml).iter("testcase")
    return {f"{case.get('classname')}::{case.get('name')}": case for case in found}


def failures(ran: dict[str, ElementTree.Element]) -> list[str]:
    bad = [case for case in ran.values() if {"failure", "error"} & {part.tag for part in case}]
    return ["".join(case.itertext()) for case in bad]


@pytest.fixture(scope="module")
def suite(virtual: Uml, tell: Callable[[str], None]) -> dict[str, ElementTree.Element]:
    """Every case of tests/drivers."""
    began = time.monotonic()
    started = []
    for chips in HALVES:
        options = ["--udriver-port", "/dev/ttyUSB0", *(f"--udriver-irq={chip}" for chip in chips)]
        started.append(start(virtual, f"drivers-{chips[0]}", "tests/drivers", *options))
    ran: dict[str, ElementTree.Element] = {}
    for job, xml in started:
        ran |= cases(job, xml)
    tell(f"rung uml, the driver's suite in {time.monotonic() - began:.0f} s")
    return ran


def test_the_driver_s_suite_passes_on_our_chip(
    suite: dict[str, ElementTree.Element], tell: Callable[[str], None], virtual: Uml
) -> None:
    skips = [str(skip.get("message")) for case in suite.values() for skip in case.iter("skipped")]
    bad, quirks = failures(suite), counted(skips)
    named = ", ".join(f"{count} {name}" for name, count in sorted(quirks.items()))
    tell(
        f"rung uml, ft232r, Linux {virtual.kernel_release}: {len(suite) - len(skips) - len(bad)} "
        f"of the driver's tests passed, {len(bad)} failed, {len(skips)} skipped ({named})"
    )
    assert not bad, "\n\n".join(bad[:3])
    assert quirks.keys() <= {quirk.name for quirk in QUIRKS["usbip"]}
    assert quirks.total() == len(skips), "a skip that names no quirk"


def test_as_much_of_it_on_each_irqchip(suite: dict[str, ElementTree.Element]) -> None:
    ran = [name for name, case in suite.items() if case.find("skipped") is None]
    chips = Counter(chip for name in ran for chip in IRQCHIPS if re.search(rf"\b{chip}\b", name))
    assert set(chips) == set(IRQCHIPS)
    assert min(chips.values()) > 50


def test_our_ft232r_under_ftdi_sio(virtual: Uml, tell: Callable[[str], None]) -> None:
    began = time.monotonic()
    ran = cases(*start(virtual, "ftdi_sio", "tests/usb/test_on_ftdi_sio.py"))
    tell(f"rung uml, ftdi_sio: {len(ran)} tests in {time.monotonic() - began:.0f} s")
    bad = failures(ran)
    assert not bad, "\n\n".join(bad[:3])
    assert len(ran) > 30
    assert not [case for case in ran.values() if case.find("skipped") is not None]
