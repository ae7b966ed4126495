# SPDX-License-Identifier: MIT
"""A schedule as a word, and the word as a listing.

    gil/W~|X~|CC/2b210      rules, program, steps: a digit is the task that goes on, a letter the one whose
                            time is up (``a`` for task 0)

``gil``, or ``free`` without, ``torn`` with CPython 3.13's popitem(); ``,kernel`` for the kernel's scheduler instead of ThreadScheduler.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.interleaving.automaton import Automaton
from tests.interleaving.check import Check, told
from tests.interleaving.explore import Rules, Space, State, Step
from tests.interleaving.machine import OPEN, Shared, Thread, World, done_of
from tests.interleaving.program import Program, parsed

LATE = "abcdefghi"


def written(rules: Rules, program: Program, steps: Sequence[Step]) -> str:
    """The word."""
    mode = "gil" if rules.gil else "torn" if rules.torn else "free"
    mode += "" if rules.sticky else ",kernel"
    way = "".join(LATE[number] if late else str(number) for number, late in steps)
    return f"{mode}/{program}/{way}"


def read(seed: str) -> tuple[Rules, Program, list[Step]]:
    """What it stands for. Raises ValueError."""
    try:
        mode, program, way = seed.split("/")
    except ValueError:
        raise ValueError(f"no seed: {seed}") from None
    words = mode.split(",")
    if words[0] not in ("gil", "free", "torn") or words[1:] not in ([], ["kernel"]):
        raise ValueError(f"no rules: {mode}")
    steps = [(LATE.index(c), True) if c in LATE else (int(c), False) for c in way]
    rules = Rules(gil=words[0] == "gil", torn=words[0] == "torn", sticky=len(words) == 1)
    return rules, parsed(program), steps


def seed_of(check: Check, kind: str) -> str:
    """The shortest way to a fault of that kind."""
    found = check.witness(kind)
    steps = found[0] if found is not None else []
    return written(check.space.rules, check.program, steps)


class _Telling(Space):
    """Says what each step asks."""

    def __init__(self, program: Program, automaton: Automaton, rules: Rules) -> None:
        self.lines: list[str] = []
        super().__init__(program, automaton, rules)

    def step(self, state: State, step: Step) -> State:
        number, late = step
        shared, task = self._step(state[0], state[number + 1], late)
        return (shared, *state[1 : number + 1], task, *state[number + 2 :])

    def _answer(self, w: World, me: Thread, late: bool) -> None:
        node = me.node
        assert node is not None
        before = len(me.results)
        super()._answer(w, me, late)
        assert node.ask is not None
        what = WORDS.get(node.ask.what, node.ask.what)
        words = [f"{me.number} {me.ops[0] if len(me.results) == before else node.op}"]
        words += [f"{what:<24}", _said(node, me, before), f"  ({node.where})"]
        self.lines.append(" ".join(words))


WORDS = {
    "ref": "loads x._done", "ref=": "stores x._done", "post": "appends a token", "take": "pops a token",
    "some": "any token?", "count": "how many tokens?", "line?": "anybody queued?",
    "line#": "how many queued?", "enqueue": "queues", "remove": "leaves the queue",
    "head": "who is the head?", "pop": "takes it off the queue", "wake": "wakes", "state=": "sets its state", "sleep": "sleeps",
    "pend@": "loads task.pending", "pend*": "looks at the signals", "pend+": "sends a signal",
    "pend=": "stores task.pending", "pend-": "takes the signals",
}  # fmt: skip


def _said(node: Any, me: Thread, before: int) -> str:
    ended = len(me.results) > before
    answer = next(
        (a for a, child in node.children.items() if child is me.node), None if ended else "..."
    )
    said = "" if answer is None else f"-> {answer}"
    return said + (f" ends: {me.results[-1][0]}" if ended else "")


def _shared(shared: Shared) -> str:
    queue = ",".join(str(number) for number, _ in shared[2])
    awake = ",".join(str(number) for number, flag in enumerate(shared[3]) if flag)
    done = "UINT_MAX" if shared[0] == OPEN else done_of(shared)
    return f"done {done}  queue [{queue}]  woken [{awake}]"


def listing(seed: str, automaton: Automaton) -> tuple[str, dict[str, str]]:
    """The schedule step by step, and what is wrong at its end."""
    rules, program, steps = read(seed)
    space = _Telling(program, automaton, rules)
    state = space.start()
    lines = [*space.lines, f"{program}: {_shared(state[0])}"]
    for at, step in enumerate(steps, 1):
        if step not in space.steps(state):
            raise ValueError(f"step {at}: task {step[0]} cannot go on there")
        space.lines.clear()
        state = space.step(state, step)
        lines += [f"{at:3d}  {line}" for line in space.lines]
        lines.append(f"{'':60}{_shared(state[0])}")
    left = space.steps(state)
    lines.append(f"{'at rest' if space.at_rest(state, left) else 'not at rest'}: {told(state)}")
    faults = Check(program, automaton, rules).faults(state) if space.at_rest(state, left) else {}
    return "\n".join(lines), faults
