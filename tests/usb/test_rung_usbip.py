# SPDX-License-Identifier: MIT
"""The rung usbip: in a guest, the driver's suite on our chip, and the chip under the kernel's driver."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.rungs import QUIRKS, counted
from tests.vm.conftest import rung_qemu
from vm.machine import Machine

__all__ = ["rung_qemu"]

ROOT = Path(__file__).parents[2]
CHIPS = ("ft232r",)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def guest(rung_qemu: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Without QEMU's adapter: ours is ttyUSB0."""
    with Machine(adapters=(), results=tmp_path_factory.mktemp("usbip")) as machine:
        yield machine


def ran(guest: Machine, chip: str, name: str, *arguments: str) -> list[ElementTree.Element]:
    """The cases of a pytest in the guest."""
    assert guest.results is not None
    xml = guest.results / f"{name}.xml"
    options = ["-q", "-p", "no:cacheprovider", f"--junitxml={xml}", "-o", "junit_family=xunit1"]
    command = [sys.executable, "-m", "pytest", *arguments, *options]
    done = guest.run(command, cwd=ROOT, timeout=1400, env={"UDRIVER_USB": chip})
    assert xml.is_file(), done.stdout + done.stderr
    return list(ElementTree.parse(xml).iter("testcase"))


def bad(cases: list[ElementTree.Element]) -> list[str]:
    return [
        "".join(case.itertext())
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]


@pytest.mark.parametrize("chip", CHIPS)
def test_the_driver_s_suite_passes_on_our_chip(
    guest: Machine, chip: str, tell: Callable[[str], None]
) -> None:
    cases = ran(guest, chip, f"drivers-{chip}", "tests/drivers", "--udriver-port", "/dev/ttyUSB0")
    skips = [str(skip.get("message")) for case in cases for skip in case.iter("skipped")]
    failed = bad(cases)
    named = ", ".join(f"{count} {name}" for name, count in sorted(counted(skips).items()))
    tell(
        f"rung usbip, {chip}, Linux {guest.kernel_release}: "
        f"{len(cases) - len(skips) - len(failed)} of the driver's tests passed, {len(failed)} "
        f"failed, {len(skips)} skipped ({named})"
    )
    assert not failed, "\n\n".join(failed[:3])
    assert counted(skips).keys() <= {quirk.name for quirk in QUIRKS["usbip"]}
    assert counted(skips).total() == len(skips), "a skip that names no quirk"


def test_our_ft232r_under_ftdi_sio(guest: Machine, tell: Callable[[str], None]) -> None:
    cases = ran(guest, "ft232r", "ftdi_sio", "tests/usb/test_on_ftdi_sio.py")
    properties = {
        str(found.get("name")): found.get("value")
        for case in cases
        for found in case.iter("property")
    }
    tell(f"rung usbip, ftdi_sio: {len(cases)} tests, of which {properties}")
    failed = bad(cases)
    assert not failed, "\n\n".join(failed[:3])
    assert {"opens", "cycles"} <= set(properties)
    assert not [case for case in cases if case.find("skipped") is not None]


def test_our_faults_under_ftdi_sio(guest: Machine, tell: Callable[[str], None]) -> None:
    cases = ran(guest, "ft232r", "faults", "tests/usb/test_faults_on_ftdi_sio.py")
    failed = bad(cases)
    tell(f"rung usbip, faults: {len(cases)} tests, {len(failed)} failed")
    assert not failed, "\n\n".join(failed[:3])
    assert len(cases) > 25
    assert not [case for case in cases if case.find("skipped") is not None]
