# SPDX-License-Identifier: MIT
"""What the real kernel did, replayed without it; and that these logs would tell a wrong core."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.oracle import corpus, directed
from tests.oracle.corpus import Difference, Entry
from tests.oracle.coverage import Coverage
from tests.oracle.ours import Ours
from tests.oracle.script import ScriptError, encoded, parsed, text
from tests.oracle.wrong import WRONG, Waiter, mistaken

AT_LEAST, AT_MOST_BYTES = 2000, 500_000

pytestmark = pytest.mark.udriver_unchecked("its scripts misuse completions on purpose")


@pytest.fixture(scope="module")
def entries() -> list[Entry]:
    """The frozen logs."""
    return corpus.read()[1]


@pytest.fixture(scope="module")
def replayed(entries: list[Entry]) -> tuple[list[Difference], Coverage]:
    """All of them played once, for all tests that look at the outcome."""
    coverage = Coverage()
    with Ours(coverage) as ours:
        return list(corpus.differences(entries, ours)), coverage


@pytest.mark.slow
def test_udriver_does_what_the_kernel_did(
    replayed: tuple[list[Difference], Coverage], entries: list[Entry]
) -> None:
    differences, _ = replayed
    assert len({entry.script for entry in entries}) >= AT_LEAST
    assert not differences, f"{len(differences)} scripts differ, the first:\n{differences[0]}"


@pytest.mark.slow
def test_every_rule_is_met(replayed: tuple[list[Difference], Coverage]) -> None:
    _, coverage = replayed
    print("\n".join(coverage.tables()))
    assert coverage.missing() == []
    assert not coverage.unexpected, "an outcome that no row of the table foresees"


def test_the_file_is_small_and_whole(entries: list[Entry]) -> None:
    assert corpus.FROZEN.stat().st_size < AT_MOST_BYTES
    for entry in entries:
        assert parsed(text(entry.script)) == entry.script
        assert entry.log.count("\n") == len(entry.script)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_core_is_caught(name: str, entries: list[Entry]) -> None:
    caught = corpus.first_caught(name, entries)
    assert caught is not None, f"no frozen log tells the kernel from: {name}"
    scripts, difference = caught
    print(f"caught by script {scripts}\n{difference}")
    assert "!" not in difference.ours, "it is not wrong, it crashes"


def test_there_are_enough_wrong_cores() -> None:
    assert len(WRONG) >= 25


def test_the_frame_of_the_wrong_waiters_is_right(entries: list[Entry]) -> None:
    with Ours() as ours, mistaken({"_Waiter": Waiter}):
        assert not list(corpus.differences(entries[:200], ours))


def test_one_wrong_answer_in_a_log_is_a_difference(entries: list[Entry]) -> None:
    with Ours() as ours:
        entry = entries[0]
        forged = Entry(entry.script, entry.log.replace("x0", "x1", 1))
        (found,) = corpus.differences([forged], ours)
    assert text(entry.script) in str(found)
    assert found.kernel in forged.log
    assert found.ours in entry.log


def test_what_is_encoded_is_what_the_module_reads() -> None:
    script = parsed(
        "a2: killable_timeout y 3 & tick; set z uint_max @hardirq; kill a1; a3 falling: kill"
    )
    numbers = [list(encoded(script)[start : start + 7]) for start in range(0, 40, 8)]
    assert numbers == [
        [23, 2, 1, 0, 0, 3, 0], [52, 255, 0, 0, 1, 0, 0], [6, 255, 2, 3, 1, 3, 0],
        [49, 1, 0, 0, 1, 0, 0], [49, 3, 0, 4, 1, 0, 3],
    ]  # fmt: skip


def test_scripts_made_on_purpose_are_distinct() -> None:
    scripts = list(directed.scripts())
    assert len(set(map(text, scripts))) == len(scripts)


@pytest.mark.parametrize(
    "line",
    ["", "wait x", "a0:", "a4: wait x", "a0: wait w", "a0: timeout x", "a0: timeout x 4", "tick x",
     "complete x @nmi", "a0: complete x @hardirq", "usr1", "usr1 0", "a0: wait x 1", "set x", "a0 falling: tick", "a0 falling: a0: try x",
     "a0 falling: usr1 a1", "a0 falling: complete x @hardirq", "a0 falling:"],
)  # fmt: skip
def test_what_is_no_script_is_refused(line: str) -> None:
    with pytest.raises(ScriptError) as caught:
        parsed(line)
    assert re.search("no operation|no actor", str(caught.value))


@pytest.fixture
def nothing_left() -> Any:
    """Ours leaves no thread behind, whatever a script left asleep."""
    import threading

    before = threading.active_count()
    yield
    assert threading.active_count() == before


def test_actors_end_with_the_block(nothing_left: None) -> None:
    with Ours() as ours:
        assert ours.play(parsed("a0: wait x; a1: interruptible y; term a2")).count("\n") == 3
