# SPDX-License-Identifier: MIT
"""A pytest in a guest with one of our chips plugged in, and what came of each of its cases."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

from tests.rungs import CHIPS, QUIRKS, counted
from vm.job import Commands, Job

ROOT = Path(__file__).parents[1]
DRIVERS = {"ft232r": "ftdi_sio", "cp210x": "cp210x", "cdc_acm": "cdc_acm"}
ON_THE_PORT = "tests/drivers"


class Suite:
    """A run under way; ``name`` is that of its report in ``results``."""

    def __init__(
        self, machine: Commands, results: Path, chip: str, name: str, *arguments: str
    ) -> None:
        self._chip = chip
        self._xml = results / f"{name}.xml"
        command = [sys.executable, "-m", "pytest", *arguments, "-q", "-p", "no:cacheprovider"]
        command += [f"--junitxml={self._xml}", "-o", "junit_family=xunit1"]
        if ON_THE_PORT in arguments:
            command += ["--udriver-port", CHIPS[chip]]
        self._job: Job = machine.start(command, cwd=ROOT, env={"UDRIVER_USB": chip})

    def cases(self, timeout: float) -> dict[str, ElementTree.Element]:
        """How each went, by its name. Raises TimedOut."""
        self._job.wait(timeout)
        assert self._xml.is_file(), self._job.stdout() + self._job.stderr()
        found = ElementTree.parse(self._xml).iter("testcase")
        return {f"{case.get('classname')}::{case.get('name')}": case for case in found}


def of_its_driver(chip: str) -> tuple[str, str]:
    """The tests of a chip under its kernel driver: those of all chips, and its own."""
    return "tests/usb/test_under_its_driver.py", f"tests/usb/test_on_{DRIVERS[chip]}.py"


def judged(ran: dict[str, ElementTree.Element], chip: str) -> str:
    """That nothing failed, and that each skip names a quirk of the chip; a sentence about it."""
    bad = [case for case in ran.values() if {"failure", "error"} & {part.tag for part in case}]
    skips = [str(skip.get("message")) for case in ran.values() for skip in case.iter("skipped")]
    quirks = counted(skips)
    named = ", ".join(f"{count} {name}" for name, count in sorted(quirks.items())) or "none"
    assert not bad, "\n\n".join("".join(case.itertext()) for case in bad[:3])
    assert quirks.keys() <= {quirk.name for quirk in QUIRKS[chip]}
    assert quirks.total() == len(skips), f"a skip that names no quirk: {skips}"
    return f"{len(ran) - len(skips)} tests passed, {len(skips)} skipped ({named})"
