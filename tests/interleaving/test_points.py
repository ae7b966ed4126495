# SPDX-License-Identifier: MIT
"""That no scheduling point is missing, and that the ports do what the containers do."""

from __future__ import annotations

import dis
from functools import cache

import pytest

from tests.interleaving.automaton import Automaton
from tests.interleaving.check import outcome
from tests.interleaving.explore import Rules, Space
from tests.interleaving.machine import EFFECTS
from tests.interleaving.operations import ours
from tests.interleaving.program import ALL, Program, parsed, programs
from tests.interleaving.real import Outcome, outcomes
from tests.interleaving.threads import Stress
from tests.oracle.mistake import mistaken
from udriver.kernel import completion as kernel
from udriver.kernel.completion import Completion

# Each attribute that the code of udriver/kernel loads, stores or calls on its way: either a port has it,
# and asks, or no other task can change it.
ASKS = {
    "_done": ("ref", "ref="), "post": ("post",), "take": ("take",), "some": ("some",),
    "append": ("post", "pend+"), "value": ("count",), "pop": ("take", "remove"), "__len__": ("count",),
    "task_list": ("line?", "line#"), "setdefault": ("enqueue",), "popitem": ("head", "pop"),
    "swake_up_one": ("head", "pop", "wake"), "wakes": ("head", "pop", "wake"),
    "dequeue": ("remove",), "wake_up_process": ("wake",), "schedule_timeout": ("sleep",),
    "state": ("state=",), "pending": ("pend@", "pend*", "pend=", "pend-", "pend+"),
    "signal_pending_state": ("pend*",),
}  # fmt: skip
PRIVATE = {
    **dict.fromkeys(
        ("entry", "queue", "taken", "task", "timeout", "x", "extend", "clear", "enqueue", "leave",
         "sleep"), "of a _Waiter, or its list: one wait's own"),
    **dict.fromkeys(("timer", "syscall_depth", "enter_wait", "leave_wait"),
                    "of a task that only the task itself looks at"),
    **dict.fromkeys(("wait_queue", "name", "put_back"),
                    "of a completion, never stored after its __init__"),
    **dict.fromkeys(("scheduler", "ring"), "set before the program begins"),
    **dict.fromkeys(("SIGKILL", "current", "handler", "current_thread", "main_thread"),
                    "a constant, or about the caller alone"),
    "done": "the tracepoint's, which is off, and the setter's",
    "leaves": "of a task: only the task stores it, only a forked child looks at it",
}  # fmt: skip


@cache
def core() -> Automaton:
    """The core, with the operations of all small programs walked."""
    automaton = Automaton(ours)
    for shape in ((1,), (2,), (1, 1)):
        for program in programs(shape, ALL):
            Space(program, automaton).search(lambda state: None)
    return automaton


def test_each_attribute_that_the_core_touches_asks_or_is_private() -> None:
    touched = {
        instruction.argval
        for code in core().codes
        if "/udriver/kernel/" in code.co_filename
        for instruction in dis.get_instructions(code)
        if instruction.opname
        in ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR", "DELETE_ATTR", "LOAD_SUPER_ATTR")
    }
    assert touched == ASKS.keys() | PRIVATE.keys()


def test_each_question_was_asked() -> None:
    asked = {node.ask.what for node in core().nodes() if node.ask is not None}
    expected = {what for questions in ASKS.values() for what in questions} - {"count"}
    assert asked == expected  # "count" is the tracepoint's, which is off
    assert asked <= EFFECTS.keys() | {"sleep"}


def test_what_no_point_covers_is_refused() -> None:
    def complete(x: Completion) -> None:
        x.wait_queue.task_list.move_to_end(None)  # type: ignore[arg-type]

    with mistaken({"complete": complete}), pytest.raises(NotImplementedError, match="move_to_end"):
        Automaton(ours).root("C")


def test_only_one_call_into_c_is_one_step() -> None:
    """complete() with a waiter: token and head in one bytecode, with both questions before and none after."""
    node = core().root("C")
    while node.ask is not None and node.ask.what != "post":
        node = core().child(node, {"line?": True, "ref": "tokens"}[node.ask.what])
    asked = [(node.ask, node.mid)]
    for answer in (None, True, True):
        node = core().child(node, answer)
        asked.append((node.ask, node.mid))
    assert [(ask.what, mid) for ask, mid in asked if ask is not None] == [
        ("post", False), ("head", True), ("pop", True), ("wake", True),
    ]  # fmt: skip


def found(program: Program, rules: Rules) -> set[Outcome]:
    ends: set[Outcome] = set()

    def visit(state: tuple[object, ...]) -> None:
        results, done, queue = outcome(state)
        ends.add((results, done, tuple(number for number, _ in queue)))

    Space(program, core(), rules).search(visit)
    return ends


@pytest.mark.slow
@pytest.mark.parametrize("text", ["W~|X~|CC", "X|C|T", "I|U0|C", "X|A|R", "X|CC|R", "W|CT=1"])
def test_real_threads_end_in_no_other_way_whatever_bytecode_they_switch_at(text: str) -> None:
    program = parsed(text)
    ended = outcomes(program, 60, 1)
    assert ended <= found(program, Rules())
    assert ended


@pytest.mark.slow
@pytest.mark.parametrize("text", ["W|C", "X|CT", "W~|R|A", "I|U0", "X|A^C", "W~|X~|C", "B|C^T"])
def test_the_reduction_loses_no_outcome(text: str) -> None:
    program = parsed(text)
    assert found(program, Rules()) == found(program, Rules(glued=False))


@pytest.mark.slow
def test_threads_at_full_speed_come_to_rest() -> None:
    for timed in (False, True):
        stress = Stress(2, 2, timed)
        assert stress.run(0.2) == []
        assert sum(stress.taken) > 2


def test_the_bound_only_takes_away() -> None:
    program = parsed("W|X|CC")
    space = Space(program, core())
    counts = [
        space.search(lambda state: None, bound).interleavings for bound in (0, 1, 2, 60, None)
    ]
    assert counts == sorted(counts)
    assert counts[0] < counts[1] < counts[2] < counts[3] == counts[4]


def test_interleavings_are_counted_as_by_hand() -> None:
    space = Space(parsed("W|C"), core())

    def ways(state: tuple[object, ...]) -> int:
        steps = space.steps(state)
        return sum(ways(space.step(state, step)) for step in steps) if steps else 1

    assert space.search(lambda state: None).interleavings == ways(space.start())


def test_the_core_under_test_is_ours() -> None:
    assert {code.co_filename for code in core().codes} >= {kernel.__file__}
