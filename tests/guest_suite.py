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
    """A run under way; ``name`` is that of its report in ``results``, ``options`` are variables there.

    Two runs are alike to the nanosecond only if their names are equally long.
    """

    def __init__(
        self,
        machine: Commands,
        results: Path,
        chip: str,
        name: str,
        *arguments: str,
        **options: str,
    ) -> None:
        self._xml, self._log = results / f"{name}.xml", results / f"{name}.log"
        command = [sys.executable, "-m", "pytest", *arguments, "-q", "-p", "no:cacheprovider"]
        command += [f"--junitxml={self._xml}", "-o", "junit_family=xunit1"]
        if ON_THE_PORT in arguments:
            command += ["--udriver-port", CHIPS[chip]]
        variables = {"UDRIVER_USB": chip, "UDRIVER_LOG": str(self._log), **options}
        self._job: Job = machine.start(command, cwd=ROOT, env=variables)

    def cases(self, timeout: float) -> dict[str, ElementTree.Element]:
        """How each went, by its name. Raises TimedOut."""
        self._job.wait(timeout)
        assert self._xml.is_file(), self._job.stdout() + self._job.stderr()
        found = ElementTree.parse(self._xml).iter("testcase")
        return {f"{case.get('classname')}::{case.get('name')}": case for case in found}

    def log(self) -> str:
        """Once it is over: when each part of each test was, in ns, and what pytest printed."""
        return self._log.read_text() + self._job.stdout()


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
    properties = [found for case in ran.values() for found in case.iter("property")]
    named_counts = {"opens", "cycles"}
    counts = "".join(
        f", {found.get('value')} {found.get('name')}"
        for found in properties
        if found.get("name") in named_counts
    )
    return f"{len(ran) - len(skips)} tests passed, {len(skips)} skipped ({named}){counts}"
