# SPDX-License-Identifier: MIT
"""docs/checker.md says what the rules say, and its sample is a report as it is printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import udriver.kernel.annotation
from udriver.checker import RULES, checking
from udriver.kernel.completion import Completion, wait_for_completion_timeout
from udriver.kernel.sched import HZ

TEXT = (Path(__file__).parents[2] / "docs" / "checker.md").read_text()
ROWS = [
    [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in TEXT.splitlines()
    if re.match(r"\| [MI]\d+ \|", line)
]


def test_the_table_is_the_rules() -> None:
    assert [tuple(row[:4]) for row in ROWS] == [
        (number, rule.title, rule.harm, rule.fix) for number, rule in RULES.items()
    ]
    assert all(row[4].endswith(".") for row in ROWS)


def test_every_annotation_is_described() -> None:
    for name in udriver.kernel.annotation.__all__:
        assert name == "Checker" or f"{name}(" in TEXT, name


def without_names(report: str) -> list[str]:
    """A report's lines, without what differs from program to program."""
    lines = [line.strip() for line in report.splitlines() if not line.startswith("  ")]
    return [re.sub(r"MainThread/\d+: .*", "", line) for line in lines]


@pytest.mark.udriver_unchecked("it checks")
def test_the_sample_is_what_is_printed() -> None:
    with checking(stderr=False) as reports:
        adc = Completion("adc")
        wait_for_completion_timeout(adc, HZ // 500)
    sample = TEXT[TEXT.index("    ====") : TEXT.index("Each mistake is reported once")]
    sample = "\n".join(line.removeprefix("    ") for line in sample.splitlines()).strip()
    assert without_names(str(reports)) == without_names(sample)
    assert "wait_for_completion_timeout() on adc" in str(reports)
