# SPDX-License-Identifier: MIT
"""The rung usbip: in QEMU, the driver's suite on each of our chips, and the chips under their drivers.

QEMU is slow, and the same is run in a quarter of the time on User Mode Linux (tests/uml/test_rung_uml.py).
So of the driver's suite only the inline irqchip's quick tests are run here, of the other two chips some of
them, and fewer plugs and opens; with UDRIVER_WHOLE=1 all of it. Each irqchip is run in QEMU on its own adapter
(tests/vm/test_driver.py).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest

from tests.guest_suite import ON_THE_PORT, Suite, judged, of_its_driver
from tests.rungs import CHIPS
from tests.vm.conftest import rung_qemu
from vm.machine import Machine

__all__ = ["rung_qemu"]

TIMEOUT = 1400.0
WHOLE = bool(os.environ.get("UDRIVER_WHOLE"))
QUICK = ("--udriver-irq=inline", "-m", "not slow", "-k")
SOME = {
    "ft232r": "test_usbserial or test_port",
    "cp210x": "test_usbserial and (transact or throttled or unplug)",
    "cdc_acm": "test_usbserial and (transact or throttled or unplug)",
}
FEW = {"UDRIVER_USB_CYCLES": "5", "UDRIVER_USB_OPENS": "30"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def guest(rung_qemu: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Without QEMU's adapter: ours is the first."""
    with Machine(adapters=(), results=tmp_path_factory.mktemp("usbip")) as machine:
        yield machine


def run(guest: Machine, chip: str, name: str, *arguments: str, **options: str) -> tuple[int, str]:
    """How many tests ran, and a sentence about them; none failed."""
    assert guest.results is not None
    began = time.monotonic()
    ran = Suite(guest, guest.results, chip, f"{name}-{chip}", *arguments, **options).cases(TIMEOUT)
    return len(ran), f"{judged(ran, chip)} in {time.monotonic() - began:.0f} s"


@pytest.mark.parametrize("chip", CHIPS)
def test_the_driver_s_suite_passes_on_our_chip(
    guest: Machine, chip: str, tell: Callable[[str], None]
) -> None:
    quick = () if WHOLE else (*QUICK, SOME[chip])
    count, told = run(guest, chip, "drivers", ON_THE_PORT, *quick)
    tell(f"rung usbip, {chip}, Linux {guest.kernel_release}: {told}")
    assert count > (15 if quick else 300)


@pytest.mark.parametrize("chip", CHIPS)
def test_our_chip_under_its_driver(guest: Machine, chip: str, tell: Callable[[str], None]) -> None:
    few = {} if WHOLE else FEW
    count, told = run(guest, chip, "under", *of_its_driver(chip), **few)
    tell(f"rung usbip, {chip} under its driver: {told}")
    assert count > 30


def test_our_faults_under_ftdi_sio(guest: Machine, tell: Callable[[str], None]) -> None:
    count, told = run(guest, "ft232r", "faults", "tests/usb/test_faults_on_ftdi_sio.py")
    tell(f"rung usbip, faults under ftdi_sio: {told}")
    assert count > 25
