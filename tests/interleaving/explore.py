# SPDX-License-Identifier: MIT
"""All interleavings of a program: every state that can be reached, and how many ways there are.

The search is over states, with no hashing that could take two for one, and with one reduction: a question
that no other task's operation can disturb (a load of ``x._done`` in a program that never stores it, a
look at signals where nobody sends one) goes with the step before it. An interleaving is a way from the
start to a state in which nobody can go on; their number is summed up over the graph of the states.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from tests.interleaving.automaton import Automaton, Node
from tests.interleaving.locked import SECTIONS
from tests.interleaving.machine import (
    EFFECTS,
    NOBODY,
    Shared,
    Task,
    Thread,
    World,
    beginning,
    forget,
)
from tests.interleaving.program import Program

ALL_EFFECTS = EFFECTS | SECTIONS
State = tuple[Any, ...]
Step = tuple[int, bool]  # the task; whether its sleep ends because the time is up
MOST_KNOWN = 500_000  # steps; about a gigabyte
MOVERS, SENDERS = frozenset("AR"), frozenset("US")
GOES_ON = {"ref": MOVERS, **dict.fromkeys(("pend@", "pend*", "pend=", "pend-", "k user"), SENDERS)}


class Rules(NamedTuple):
    """What may come between two questions.

    ``gil``: one bytecode's questions are one step, but for a wake-up: the eventfd's write(2) releases
    the GIL. Without it each question is a step, as on a free-threaded interpreter; ``torn``: popitem() finds
    the head before it takes the lock, as in CPython 3.13. ``sticky``: a wake-up is
    kept for the next sleep, as by ThreadScheduler; else it undoes a sleep's state, as in the kernel.
    ``glued``: with the reduction. ``order``: an outcome has an order in time.
    """

    gil: bool = True
    torn: bool = False
    sticky: bool = True
    glued: bool = True
    order: bool = True


GIL = Rules()


class Counts(NamedTuple):
    """Of a search."""

    interleavings: int
    states: int
    steps: int


class Livelock(Exception):
    """A state that leads back to itself."""


class Space:
    """The states of ``program``, if each operation is what ``automaton`` found.

    A state is what the tasks share, then each task. A step depends on what is shared and on its task, and is
    remembered: the others may be anywhere.
    """

    def __init__(self, program: Program, automaton: Automaton, rules: Rules = GIL) -> None:
        self.program = program
        self.automaton = automaton
        self.rules = rules
        self.hosts = len(program.threads)
        ops = program.ops
        private = {
            what for what, disturbing in GOES_ON.items() if rules.glued and not ops & disturbing
        }
        if rules.glued and rules.sticky:
            private.add("state=")  # else a waker looks at it
        self._private = frozenset(private)
        if sum(map(len, automaton.steps.values())) > MOST_KNOWN:
            automaton.steps.clear()
        self._steps = automaton.steps.setdefault((self._private, rules, self.hosts), {})

    def start(self) -> State:
        """Before the first step; who is parked sleeps."""
        tasks = self.program.tasks
        shared = beginning(len(tasks), self.program.tokens, not self.rules.sticky)
        packed = [
            (number, ops, self.automaton.root(ops[0]), NOBODY, True, (), ())
            for number, ops in enumerate(tasks)
        ]
        for number, task in enumerate(packed):
            w, me = World(shared, self.rules.sticky), Thread(task)
            while me.node is not None and me.node.ask.what in self._private:  # type: ignore[union-attr]
                self._answer(w, me, False)
            shared, packed[number] = w.packed(), me.packed()
        state = (shared, *packed)
        for number in range(self.program.parked):
            while not state[number + 1][2].sleeps:
                state = self.step(state, (number, False))
        return state

    def steps(self, state: State) -> list[Step]:
        """What can happen next."""
        shared = state[0]
        stack = shared[7]
        found: list[Step] = []
        for task in state[1:]:
            number, node = task[0], task[2]
            if node is None or not (0 < number < self.hosts or self._on_top(number, state, stack)):
                continue
            if not node.sleeps:
                found.append((number, False))
                continue
            if shared[3][number] or self._signalled(shared, number, node):
                found.append((number, False))
            if node.timed:
                found.append((number, True))
        return found

    def _on_top(self, number: int, state: State, stack: tuple[int, ...]) -> bool:
        """Whether the processor of task 0 is its own."""
        if number == 0 or number in stack:
            return (stack[-1] if stack else 0) == number
        below = state[(stack[-1] if stack else 0) + 1][2]
        return below is None or not below.mid  # an interrupt comes between two bytecodes

    def _signalled(self, shared: Shared, number: int, node: Node) -> bool:
        """Whether a signal ends its sleep. ThreadScheduler wakes for those, the kernel looks."""
        return not self.rules.sticky and not node.ended_by.isdisjoint(shared[4][number][1])

    def step(self, state: State, step: Step) -> State:
        """What then is."""
        number, late = step
        key = (state[0], state[number + 1], late)
        then = self._steps.get(key)
        if then is None:
            then = self._steps[key] = self._step(*key)
        return (then[0], *state[1 : number + 1], then[1], *state[number + 2 :])

    def _step(self, shared: Shared, task: Task, late: bool) -> tuple[Shared, Task]:
        w, me = World(shared, self.rules.sticky), Thread(task)
        if me.number >= self.hosts and me.number not in w.stack:
            w.stack = (*w.stack, me.number)
        if me.fresh:
            me.seen, me.fresh = w.ended, False
        before: Node | None = None
        while (node := me.node) is not None and (before is None or self._goes_on(before, node)):
            self._answer(w, me, late)
            before, late = node, False
        if me.node is None and me.number in w.stack:
            w.stack = tuple(other for other in w.stack if other != me.number)
        return w.packed(), me.packed()

    def _goes_on(self, before: Node, node: Node) -> bool:
        """Whether nothing may come between the two."""
        ask = node.ask
        assert ask is not None
        if ask.what in self._private:
            return True
        if not node.mid or not (self.rules.gil or (ask.what == "pop" and not self.rules.torn)):
            return False
        return ask.what != "wake" and before.ask is not None and before.ask.what != "wake"

    def _answer(self, w: World, me: Thread, late: bool) -> None:
        node = me.node
        assert node is not None
        assert node.ask is not None
        if node.sleeps:
            answer: Any = "late" if late else "woken"
            w.flags[me.number] = not self.rules.sticky
        else:
            answer = ALL_EFFECTS[node.ask.what](w, me, node.ask.arg)
        child = self.automaton.child(node, answer)
        if child.ask is not None:
            me.node = child
            return
        me.results = (*me.results, (child.result, me.seen))
        me.ops = me.ops[1:]
        me.node = self.automaton.root(me.ops[0]) if me.ops else None
        me.fresh, me.seen = True, ()
        if self.rules.order:
            ended = list(w.ended)
            ended[me.number] += 1
            w.ended = tuple(ended)
        forget(w, me)

    # the whole of it

    def at_rest(self, state: State, steps: list[Step]) -> bool:
        """Whether only time, or an interrupt that has not come yet, can change anything."""
        for number, late in steps:
            if not late and (number < self.hosts or number in state[0][7]):
                return False
        return True

    def search(self, visit: Callable[[State], None], bound: int | None = None) -> Counts:
        """Call ``visit`` with each state at rest.

        With ``bound`` go only the ways that take the processor from a task that could go on so many times.
        """
        ways: dict[Any, int | None] = {}
        rested: set[State] = set()
        made = 0

        def count(state: State, last: int, left: int) -> int:
            nonlocal made
            key: Any = state if bound is None else (state, last, left)
            known = ways.get(key, 0)
            if known != 0:
                if known is None:
                    raise Livelock
                return known
            ways[key] = None
            steps = self.steps(state)
            if self.at_rest(state, steps) and state not in rested:
                rested.add(state)
                visit(state)
            total = 0 if steps else 1
            could = bound is not None and (last, False) in steps
            for step in steps:
                costs = could and step[0] != last and step[0] < self.hosts
                if not costs or left:
                    made += 1
                    total += count(self.step(state, step), step[0], left - costs)
            ways[key] = total
            return total

        total = count(self.start(), -1, bound or 0)
        return Counts(total, len(ways), made)
