# SPDX-License-Identifier: MIT
"""What must hold of a program, and the first way to something that does not.

At each rest, by itself:

* no lost wake-up: nobody sleeps while ``done`` is not 0;
* nobody is left on the queue, and nobody sleeps off it;
* conservation: posted = taken + ``done``, where nothing opens or empties the completion;
* no exception comes out of an operation; no state leads back to itself.

And against the kernel's algorithm, in which what is done under the lock is one step: each outcome is one that
the kernel can have. An outcome is every result, ``done``, the queue in its order, and which operation was
over when which began (so this is linearizability, of operations that may sleep in the middle).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from tests.interleaving.automaton import Automaton, Node
from tests.interleaving.explore import GIL, Counts, Livelock, Rules, Space, State, Step
from tests.interleaving.machine import OPEN, done_of
from tests.interleaving.operations import WAITS, kernels
from tests.interleaving.program import Program

Results = tuple[tuple[str, ...], ...]
Seen = tuple[tuple[int, ...], ...]
KERNEL = Automaton(kernels)
FAULTS = ("lost wake-up", "queue", "conservation", "exception", "order", "livelock")


class Verdict(NamedTuple):
    """``interleavings`` of ours, the ``states`` they go through; ``faults``: a sentence for each kind."""

    interleavings: int
    states: int
    steps: int
    faults: dict[str, str]


def outcome(state: State) -> tuple[Any, ...]:
    """What a program can tell of it afterwards, but for the order in time."""
    results = tuple(tuple(result for result, _ in task[6]) for task in state[1:])
    return results, done_of(state[0]), state[0][2]


def order(state: State) -> Seen:
    """For each operation that began: how many of each task's were over then."""
    return tuple(
        tuple(seen for _, seen in task[6]) + (() if task[4] else (task[5],)) for task in state[1:]
    )  # type: ignore[return-value]


def fault(program: Program, state: State) -> dict[str, str]:
    """What is wrong with a state at rest, by itself."""
    found = {}
    done = done_of(state[0])
    asleep = [task[0] for task in state[1:] if task[2] is not None and task[2].sleeps]
    if asleep and done:
        found["lost wake-up"] = f"task {asleep[0]} sleeps, and done is {_name(done)}"
    queued = sorted(state[0][2])
    if queued != [(number, len(state[number + 1][6])) for number in asleep]:
        found["queue"] = f"tasks {asleep} sleep, and queued are {[number for number, _ in queued]}"
    balance = _balance(program, state)
    if balance not in (None, done):
        found["conservation"] = f"posted less taken is {balance}, and done is {_name(done)}"
    for task in state[1:]:
        for result, _ in task[6]:
            if result.startswith("raised"):
                found["exception"] = f"task {task[0]} {result}"
    return found


def _name(done: int) -> str:
    return "UINT_MAX" if done == OPEN else str(done)


def _balance(program: Program, state: State) -> int | None:
    """Posted less taken; None where that says nothing."""
    if program.ops & {"A", "R"}:
        return None
    balance = program.tokens
    for ops, task in zip(program.tasks, state[1:], strict=True):
        for op, (result, _) in zip(ops, task[6], strict=False):
            if op == "C":
                balance += 1
            elif (op in WAITS and op != "B" and result == "ok") or (op == "T" and result == "yes"):
                balance -= 1
    return balance


def allowed(program: Program, in_time: bool) -> dict[tuple[Any, ...], list[Seen]]:
    """The outcomes that the kernel can have, with each order in time."""
    found: dict[tuple[Any, ...], set[Seen]] = {}

    def visit(state: State) -> None:
        found.setdefault(outcome(state), set()).add(order(state))

    Space(program, KERNEL, Rules(sticky=False, order=in_time)).search(visit)
    return {key: list(seen) for key, seen in found.items()}


def respects(seen: Seen, orders: Iterable[Seen]) -> bool:
    """Whether one of the orders keeps to all that was over when another began."""
    return any(
        all(
            theirs[number] >= before
            for mine, others in zip(seen, other, strict=True)
            for one, theirs in zip(mine, others, strict=True)
            for number, before in enumerate(one)
        )
        for other in orders
    )


class Check:
    """Of one program under one core."""

    def __init__(
        self, program: Program, automaton: Automaton, rules: Rules = GIL, *, model: bool = True
    ) -> None:
        self.program = program
        self.space = Space(program, automaton, rules)
        self._allowed = allowed(program, rules.order) if model else None
        self._good: set[tuple[Any, ...]] = set()

    def faults(self, state: State) -> dict[str, str]:
        """What is wrong with a state at rest."""
        found = fault(self.program, state)
        if self._allowed is None:
            return found
        key = outcome(state)
        seen = order(state)
        if (key, seen) in self._good:
            return found
        orders = self._allowed.get(key)
        if orders is None:
            found["order"] = f"the kernel cannot end with {told(state)}"
        elif not respects(seen, orders):
            found["order"] = f"the kernel cannot end with {told(state)} in this order in time"
        else:
            self._good.add((key, seen))
        return found

    def run(self, bound: int | None = None) -> Verdict:
        """All interleavings, or those with at most ``bound`` preemptions."""
        found: dict[str, str] = {}

        def visit(state: State) -> None:
            for kind, sentence in self.faults(state).items():
                found.setdefault(kind, sentence)

        try:
            counts = self.space.search(visit, bound=bound)
        except Livelock:
            counts = Counts(0, 0, 0)
            found["livelock"] = "a state leads back to itself"
        return Verdict(*counts, found)

    def witness(self, kind: str) -> tuple[list[Step], State] | None:
        """The shortest way to a fault of that kind."""

        def bad(state: State) -> bool:
            steps = self.space.steps(state)
            return self.space.at_rest(state, steps) and kind in self.faults(state)

        return shortest(self.space, bad)


def shortest(space: Space, bad: Callable[[State], bool]) -> tuple[list[Step], State] | None:
    """The fewest steps to a state that is bad, and that state."""
    start = space.start()
    came: dict[State, tuple[State, Step] | None] = {start: None}
    queue = deque([start])
    while queue:
        state = end = queue.popleft()
        if bad(state):
            way = []
            while (before := came[state]) is not None:
                state, step = before
                way.append(step)
            return way[::-1], end
        for step in space.steps(state):
            then = space.step(state, step)
            if then not in came:
                came[then] = (state, step)
                queue.append(then)
    return None


def told(state: State) -> str:
    """The end, for people."""
    tasks = []
    for task in state[1:]:
        node: Node | None = task[2]
        words = [result for result, _ in task[6]]
        if node is not None:
            words.append("asleep" if node.sleeps else "...")
        tasks.append(" ".join(words))
    queue = ",".join(str(number) for number, _ in state[0][2])
    return f"{' | '.join(tasks)}, done {_name(done_of(state[0]))}, queue [{queue}]"
