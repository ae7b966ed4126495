# SPDX-License-Identifier: MIT
"""Each cell of hw/README's table of chips is backed by a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
README = TESTS.parent / "hw" / "README.md"
FOLDERS = ("usb", "vm", "uml")


def test_each_cell_names_tests_that_exist() -> None:
    _, _, section = README.read_text().partition("## What each chip does")
    rows = re.findall(r"^\|(.*)\|$", section.partition("\n\nWhat a kernel driver")[0], re.MULTILINE)
    assert len(rows) > 50
    there = set()
    for file in (file for folder in FOLDERS for file in (TESTS / folder).glob("test_*.py")):
        there |= set(re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE))
    for row in rows[2:]:
        chip, behaviour, *cells = (cell.strip() for cell in row.split("|"))
        named = [re.findall(r"`(\w+)`", cell) for cell in cells]
        assert any(named), f"{chip}, {behaviour}: no test"
        for cell, names in zip(cells, named, strict=True):
            assert names or cell == "-", f"{chip}, {behaviour}: {cell!r}"
            assert set(names) <= there, f"{chip}, {behaviour}: {set(names) - there}"
