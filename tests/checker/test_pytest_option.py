# SPDX-License-Identifier: MIT
"""``pytest --udriver-check``: a mistake fails its test, a fixture's too; marks allow it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = """
import pytest
from udriver.kernel.completion import Completion, complete_all

def twice():
    x = Completion("x")
    complete_all(x)
    complete_all(x)

@pytest.fixture
def careless():
    yield
    twice()

def test_right():
    complete_all(Completion("x"))

def test_wrong():
    twice()

def test_with_a_careless_fixture(careless):
    pass

@pytest.mark.udriver_allow("M13")
def test_allowed():
    twice()

@pytest.mark.udriver_allow("M12")
def test_another_rule_allowed():
    twice()

@pytest.mark.udriver_unchecked("it is about something else")
def test_unchecked():
    twice()
"""

pytestmark = pytest.mark.slow  # each starts an interpreter


def outcomes(folder: Path, *options: str) -> tuple[dict[str, str], str]:
    """Test: what became of it, errors of fixtures included; and all that was printed."""
    (folder / "test_mine.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "--strict-markers", *options]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'hw'}"}
    result = subprocess.run(
        [*command, "test_mine.py"],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    found = re.findall(
        r"^(PASSED|FAILED|ERROR) test_mine.py::test_(\w+)", result.stdout, re.MULTILINE
    )
    return {name: outcome for outcome, name in found}, result.stdout


def test_a_mistake_fails_its_test_and_marks_allow_it(tmp_path: Path) -> None:
    found, printed = outcomes(tmp_path, "--udriver-check")
    assert found == {
        "right": "PASSED",
        "wrong": "FAILED",
        "with_a_careless_fixture": "ERROR",
        "allowed": "PASSED",
        "another_rule_allowed": "FAILED",
        "unchecked": "PASSED",
    }, printed
    reports, _, _ = printed.partition("short test summary")  # which has them again where CI is set
    assert reports.count("WARNING: complete() or complete_all() after complete_all() [M13]") == 3
    assert "test_mine.py:8 twice()" in printed


def test_without_the_option_nothing_is_checked(tmp_path: Path) -> None:
    found, printed = outcomes(tmp_path)
    assert set(found.values()) == {"PASSED"}, printed
