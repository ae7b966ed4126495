# SPDX-License-Identifier: MIT
"""Each cell of hw/README's table of faults is backed by a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
README = TESTS.parent / "hw" / "README.md"


def there(pattern: str) -> set[str]:
    found: set[str] = set()
    for file in TESTS.glob(pattern):
        found |= set(re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE))
    return found


def test_each_cell_names_tests_that_exist() -> None:
    _, _, section = README.read_text().partition("## Faults\n")
    rows = re.findall(r"^\|(.*)\|$", section.partition("\n## ")[0], re.MULTILINE)[2:]
    assert len(rows) >= 9
    columns = [
        there("hw/test_faults_on_pty.py"),
        there("usb/test_faulty_usb.py"),
        there("usb/test_faults_on_ftdi_sio.py"),
    ]
    for row in rows:
        fault, *cells = row.split("|")
        for cell, tests in zip(cells, columns, strict=True):
            named = set(re.findall(r"`(\w+)`", cell))
            assert named, f"{fault}: no test"
            assert named <= tests, f"{fault}: {named - tests}"
