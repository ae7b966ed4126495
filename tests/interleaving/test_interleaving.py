# SPDX-License-Identifier: MIT
"""The bounded part of the exploration, and that it finds what is wrong."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.interleaving.__main__ import main, totals
from tests.interleaving.check import Check, allowed
from tests.interleaving.explore import Rules
from tests.interleaving.program import ALL, parsed, programs
from tests.interleaving.seed import listing, read, seed_of, written
from tests.interleaving.suite import QUICK, Part, core, run
from tests.interleaving.wrong import WRONG, caught, mistaken


@pytest.mark.slow
def test_no_interleaving_of_the_small_programs_goes_wrong() -> None:
    automaton = core()
    rows = [run(part, automaton) for part in QUICK]
    print(totals(rows))
    assert {row.part.name: row.faults for row in rows if row.faults} == {}
    assert sum(row.programs for row in rows) > 900
    assert sum(row.interleavings for row in rows) > 10**8


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_core_is_caught(name: str) -> None:
    found = caught(name)
    assert found is not None
    check, verdict = found
    kind = next(iter(verdict.faults))
    with mistaken(WRONG[name]):
        seed = seed_of(check, kind)
        assert kind in listing(seed, core())[1]  # it replays
    rules, program, steps = read(seed)
    assert written(rules, program, steps) == seed
    assert Check(program, core(), rules).run().faults == {}  # it is not the program


# what does not hold without the GIL: docs/interleaving.md says so, and these are its witnesses


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("W~|X~|CC", Rules(gil=False)),
        ("C|W|X", Rules(gil=False, torn=True)),
        ("W~|W~|C|C", Rules(gil=False, torn=True)),
    ],
)
def test_without_the_gil_a_wake_up_can_be_lost(text: str, rules: Rules) -> None:
    check = Check(parsed(text), core(), rules)
    assert check.run().faults.keys() == {"lost wake-up", "order"}
    assert (
        "sleeps, and done is 1"
        in listing(seed_of(check, "lost wake-up"), core())[1]["lost wake-up"]
    )
    assert not Check(parsed(text), core(), Rules()).run().faults


def test_without_the_gil_two_threads_with_an_operation_each_are_safe() -> None:
    assert run(Part("", (1, 1), ALL, Rules(gil=False)), core()).faults == {}


# the programs


def test_a_program_is_its_text() -> None:
    for text in ("W~|X~|CC", "W|C^A^T", "IB|U0S0=2", "K"):
        assert str(parsed(text)) == text
    for text in ("", "Q", "W|", "W^", "U", "W|C=x"):
        with pytest.raises(ValueError, match="no "):
            parsed(text)


def test_programs_that_number_their_threads_otherwise_are_one() -> None:
    found = Counter(tuple(sorted(program.threads)) for program in programs((1, 1, 1), "CAWX"))
    assert len(found) == 20  # three of four, repeats allowed, in any order
    assert set(found.values()) == {1}
    signals = {str(program) for program in programs((1, 1, 1), "WU")}
    assert signals == {"U1|W|U1", "U1|W|W", "W|W|W"}


def test_the_kernel_s_model_knows_the_kernel_s_answers() -> None:
    """As the sheet has them: a barger takes the token, and who was woken for it queues at the tail."""
    ends = {results: queue for results, _, queue in allowed(parsed("W~|W~|CT"), in_time=False)}
    assert ends[((), (), ("ok", "yes"))] == ((1, 0), (0, 0))
    assert ends[(("ok",), (), ("ok", "no"))] == ((1, 0),)
    assert len(ends) == 2
    late = {results for results, _, _ in allowed(parsed("X|C"), in_time=False)}
    assert late == {(("ok",), ("ok",)), (("late",), ("ok",))}


# the command


def test_replay_prints_each_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--replay", "gil/W~|C/11100"]) == 0
    said = capsys.readouterr().out
    assert "takes it off the queue" in said
    assert "at rest: ok | ok, done 0, queue []" in said


@pytest.mark.parametrize("seed", ["none", "gil/W", "gil/Q/0", "what/W/0", "gil/W~/0", "gil/W|C/9"])
def test_a_wrong_seed_is_refused(seed: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["--replay", seed])
    assert refused.value.code == 2
    assert capsys.readouterr().err
