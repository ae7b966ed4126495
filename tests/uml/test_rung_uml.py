# SPDX-License-Identifier: MIT
"""The rung uml: the driver's suite on each of our chips under its kernel driver, in virtual time."""

from __future__ import annotations

import os
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
TIMEOUT, MANY_TIMEOUT = 500.0, 1500.0  # s
RUNS = int(os.environ.get("UDRIVER_RUNS", "2"))
WHOLE = bool(os.environ.get("UDRIVER_WHOLE"))  # of the other two chips, too, all that takes minutes
Cases = dict[str, ElementTree.Element]
_logs: dict[str, list[str]] = {}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1600 + 120 * RUNS)]


@pytest.fixture(scope="module", params=CHIPS)
def chip(request: pytest.FixtureRequest) -> str:
    """Each of ours."""
    return str(request.param)


def run(machine: Uml, chip: str, number: int) -> tuple[Cases, list[str]]:
    """Every case of tests/drivers on this chip, and the log of each half."""
    halves = []
    for irqs in HALVES:
        options = [f"--udriver-irq={irq}" for irq in irqs]
        name = f"{irqs[0]}-{chip}-{number:02}"
        halves.append(Suite(machine, machine.results, chip, name, ON_THE_PORT, *options))
    ran: Cases = {}
    for half in halves:
        ran |= half.cases(TIMEOUT)
    return ran, [half.log() for half in halves]


@pytest.fixture(scope="module")
def suite(virtual: Uml, chip: str, tell: Callable[[str], None]) -> Cases:
    """The first run, with its log."""
    began = time.monotonic()
    ran, _logs[chip] = run(virtual, chip, 1)
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
    under = Suite(virtual, virtual.results, chip, f"under-{chip}", *of_its_driver(chip))
    ran = under.cases(TIMEOUT)
    told = judged(ran, chip)
    tell(f"rung uml, {chip} under its driver: {told} in {time.monotonic() - began:.0f} s")
    assert len(ran) > 30


@pytest.mark.parametrize("chip", CHIPS if WHOLE else ["ft232r"], indirect=True)
def test_each_run_of_the_suite_has_the_same_log(
    suite: Cases, virtual: Uml, chip: str, tell: Callable[[str], None]
) -> None:
    """When each part of each of its tests was over, to the nanosecond, and all that pytest printed."""
    for number in range(2, RUNS + 1):
        _, logs = run(virtual, chip, number)
        assert logs == _logs[chip], f"run {number} is not as the first"
    lines = sum(len(log.splitlines()) for log in _logs[chip])
    tell(f"rung uml, {chip}: {RUNS} runs of the suite, {lines} lines of log, all the same")
    assert lines > 900


def test_our_faults_under_ftdi_sio(virtual: Uml, tell: Callable[[str], None]) -> None:
    began = time.monotonic()
    faults = "tests/usb/test_faults_on_ftdi_sio.py"
    ran = Suite(virtual, virtual.results, "ft232r", "faults", faults).cases(TIMEOUT)
    told = judged(ran, "ft232r")
    tell(f"rung uml, faults under ftdi_sio: {told} in {time.monotonic() - began:.0f} s")
    assert len(ran) > 25


@pytest.fixture(scope="module")
def often(virtual: Uml) -> dict[str, Suite]:
    """Guests that plug and open again and again, side by side, when nobody measures any more."""
    started = {}
    for chip in CHIPS:
        count = str(1000 if WHOLE or chip == "ft232r" else 100)
        times = {"UDRIVER_USB_CYCLES": count, "UDRIVER_USB_OPENS": count}
        arguments = (of_its_driver(chip)[0], "-k", "again_and_again")
        started[chip] = Suite(virtual, virtual.results, chip, f"often-{chip}", *arguments, **times)
    return started


@pytest.mark.parametrize("chip", CHIPS)
def test_a_thousand_plugs_and_opens_leave_nothing(
    often: dict[str, Suite], chip: str, tell: Callable[[str], None]
) -> None:
    """No fd, no thread, no process in D state, no port of vhci: asserted there. Of the others a hundred."""
    ran = often[chip].cases(MANY_TIMEOUT)
    tell(f"rung uml, {chip}: {judged(ran, chip)}")
    assert len(ran) == 2
