# SPDX-License-Identifier: MIT
"""docs/speed.md shows what the files beside it hold: each marked part is printed again and compared."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from udriver.drivers.realtime import Recipe

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "speed.md"
PART = re.compile(r"^<!-- (udriver .+?) -->\n(.*?)^<!-- end -->$", re.MULTILINE | re.DOTALL)
PARTS = PART.findall(DOCUMENT.read_text())


def stripped(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines() if line.strip()]


@pytest.mark.slow
@pytest.mark.parametrize(("command", "text"), [pytest.param(*part, id=part[0]) for part in PARTS])
def test_what_is_shown_is_what_is_in_the_files(command: str, text: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", *command.split()],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "hw")])},
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
        stdin=subprocess.DEVNULL,
    )
    assert stripped(text) == stripped(result.stdout)


def test_the_table_is_of_three_runs_and_no_missed_row_is_without_a_reason() -> None:
    report = json.loads((ROOT / "docs" / "speed.json").read_text())
    barred = [row for row in report["rows"] if row["limit"] is not None]
    assert len(barred) > 25
    assert all(len(row["runs"]) == 3 for row in barred)
    assert [row["figure"] for row in barred if row["met"] is False and not row["reason"]] == []


def test_what_it_says_of_the_recipe_is_so() -> None:
    recipe = Recipe()
    text = DOCUMENT.read_text()
    assert f"{(recipe.switch_interval or 0) * 1e6:g} us" in text
    assert f"priority {recipe.priority}" in text


def test_its_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", DOCUMENT.read_text()):
        assert (DOCUMENT.parent / target).exists(), target
