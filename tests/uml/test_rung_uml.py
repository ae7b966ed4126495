# SPDX-License-Identifier: MIT
"""The rung uml: the driver's suite on each of our chips under its kernel driver, in virtual time."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from tests.guest_suite import ON_THE_PORT, Suite, judged, of_its_driver
from tests.rungs import CHIPS
from udriver.drivers.irqchip import IRQCHIPS
from vm.uml import Uml

# One guest has one processor, and the machine more: about half of the work each.
HALVES = (("signal",), ("select", "inline"))
TIMEOUT = 500.0
Cases = dict[str, ElementTree.Element]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", params=CHIPS)
def chip(request: pytest.FixtureRequest) -> str:
    """Each of ours."""
    return str(request.param)


@pytest.fixture(scope="module")
def suite(virtual: Uml, chip: str, tell: Callable[[str], None]) -> Cases:
    """Every case of tests/drivers on this chip."""
    began = time.monotonic()
    started = []
    for irqs in HALVES:
        options = [f"--udriver-irq={irq}" for irq in irqs]
        name = f"drivers-{chip}-{irqs[0]}"
        started.append(Suite(virtual, virtual.results, chip, name, ON_THE_PORT, *options))
    ran: Cases = {}
    for half in started:
        ran |= half.cases(TIMEOUT)
    tell(f"rung uml, {chip}: the driver's suite in {time.monotonic() - began:.0f} s")
    return ran


def test_the_driver_s_suite_passes_on_our_chip(
    suite: Cases, chip: str, tell: Callable[[str], None], virtual: Uml
) -> None:
    tell(f"rung uml, {chip}, Linux {virtual.kernel_release}: {judged(suite, chip)}")


def test_as_much_of_it_on_each_irqchip(suite: Cases) -> None:
    ran = [name for name, case in suite.items() if case.find("skipped") is None]
    chips = Counter(chip for name in ran for chip in IRQCHIPS if re.search(rf"\b{chip}\b", name))
    assert set(chips) == set(IRQCHIPS)
    assert min(chips.values()) > 50


def test_our_chip_under_its_driver(virtual: Uml, chip: str, tell: Callable[[str], None]) -> None:
    began = time.monotonic()
    ran = Suite(virtual, virtual.results, chip, f"under-{chip}", *of_its_driver(chip)).cases(
        TIMEOUT
    )
    told = judged(ran, chip)
    tell(f"rung uml, {chip} under its driver: {told} in {time.monotonic() - began:.0f} s")
    assert len(ran) > 30


def test_our_faults_under_ftdi_sio(virtual: Uml, tell: Callable[[str], None]) -> None:
    began = time.monotonic()
    faults = "tests/usb/test_faults_on_ftdi_sio.py"
    ran = Suite(virtual, virtual.results, "ft232r", "faults", faults).cases(TIMEOUT)
    told = judged(ran, "ft232r")
    tell(f"rung uml, faults under ftdi_sio: {told} in {time.monotonic() - began:.0f} s")
    assert len(ran) > 25
