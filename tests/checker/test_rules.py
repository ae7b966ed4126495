# SPDX-License-Identifier: MIT
"""Each mistake is caught, at its two lines and as nothing else; mended it is silent."""

from __future__ import annotations

import inspect
from types import ModuleType

import pytest

from tests.checker.mistakes import atomic, endings, handlers, lifetime, lines, results, tokens
from tests.checker.mistakes.case import WATCHDOG_S, Case
from udriver.checker import RULES, Reports, checking

MODULES = (lifetime, tokens, results, atomic, endings, lines, handlers)
# a thread: what a signal handler raises is kept until an uninterruptible wait is over
pytestmark = [
    pytest.mark.timeout(WATCHDOG_S, method="thread"),
    pytest.mark.udriver_unchecked("it checks"),
]


def cases(module: ModuleType) -> list[type[Case]]:
    """All of a module, in its order."""
    found = [kind for kind in vars(module).values() if isinstance(kind, type)]
    return [kind for kind in found if issubclass(kind, Case) and kind is not Case]


CASES = [case for module in MODULES for case in cases(module)]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)


def checked(case: type[Case], method: str) -> Reports:
    """What the checker says of it."""
    subject = case()  # lives longer than the block: what is freed inside is another mistake
    with checking(stderr=False) as reports:
        getattr(subject, method)()
        # gc
    if method == "mistake":
        subject.afterwards()
    return reports


@each_case
def test_the_mistake_is_caught_at_its_two_lines_and_as_nothing_else(case: type[Case]) -> None:
    reports = checked(case, "mistake")
    text = str(reports)
    assert reports.rules == [case.rule()], text
    file = inspect.getsourcefile(case)
    places = [(spot.file, spot.line) for spot in reports[0].places[:2]]
    assert places == [(file, number) for number in case.places()], text

    rule = RULES[case.rule()]
    assert f"WARNING: {rule.title} [{case.rule()}]" in text
    for number in case.places():
        assert f"{case.__module__.rpartition('.')[2]}.py:{number} " in text
    assert f"what goes wrong: {rule.harm}." in text
    assert f"to fix it: {rule.fix}." in text
    assert ("if it is right as it is: completion_set_kind(" in text) is bool(rule.unless)


@each_case
def test_mended_it_is_silent(case: type[Case]) -> None:
    reports = checked(case, "mended")
    assert not reports, str(reports)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_has_a_case(rule: str) -> None:
    assert any(case.rule() == rule for case in CASES)
