# SPDX-License-Identifier: MIT
"""The shared state of a program, and what each question does to it.

A state is a tuple of tuples, so that two ways to the same state are one. While a step is made it is a
:class:`World`. ``done`` is a count for each deque that somebody can still reach: reinit_completion() puts a
new one in place, and whoever loaded the old one before goes on with the old one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.interleaving.automaton import Node

OPEN = -1  # in place of the number of a deque: complete_all() was called
NOTHING = -2  # loaded
NOBODY = (-1, 0)
Shared = tuple[Any, ...]
Task = tuple[Any, ...]


class Thread:
    """A task of a program, its part of a state taken apart.

    ``ops``: those that have not ended. ``popped``: the entry that it took off the queue. ``fresh``: the operation
    has done nothing yet. ``seen``: how many operations of each task had ended when it began.
    """

    __slots__ = ("fresh", "node", "number", "ops", "popped", "results", "seen")

    node: Node | None

    def __init__(self, packed: Task) -> None:
        self.number, self.ops, self.node, self.popped, self.fresh, self.seen, self.results = packed

    def packed(self) -> Task:
        """The part of a state again."""
        return (self.number, self.ops, self.node, self.popped, self.fresh, self.seen, self.results)

    @property
    def entry(self) -> tuple[int, int]:
        """Its place in the queue: a task's second wait has another."""
        return self.number, len(self.results)


class World:
    """What the tasks share, taken apart.

    ``flags``: awake, or woken for the sleep to come. ``held``: the deque that each task has loaded. ``sigs``:
    whose list of pending signals, and which one. ``stack``: the interrupts that run on top of task 0, the
    last one on top. ``ended``: how many operations of each task.
    """

    __slots__ = (
        "counts",
        "ended",
        "flags",
        "held",
        "line",
        "pend",
        "ref",
        "sigs",
        "stack",
        "sticky",
    )

    def __init__(self, shared: Shared, sticky: bool) -> None:
        self.ref: int = shared[0]
        self.counts: list[int] = list(shared[1])
        self.line: list[tuple[int, int]] = list(shared[2])  # head first
        self.flags: list[bool] = list(shared[3])
        self.pend: list[tuple[int, tuple[int, ...]]] = list(shared[4])
        self.held: list[int] = list(shared[5])
        self.sigs: list[tuple[int, int] | None] = list(shared[6])
        self.stack: tuple[int, ...] = shared[7]
        self.ended: tuple[int, ...] = shared[8]
        self.sticky = sticky

    def packed(self) -> Shared:
        """The part of a state again."""
        return (self.ref, tuple(self.counts), tuple(self.line), tuple(self.flags),
                tuple(self.pend), tuple(self.held), tuple(self.sigs), self.stack, self.ended)  # fmt: skip


def beginning(tasks: int, tokens: int, awake: bool) -> Shared:
    """Nobody has done anything. There is a deque for each task to hold, and one more."""
    return (0, (tokens,) + (0,) * tasks, (), (awake,) * tasks, ((0, ()),) * tasks,
            (NOTHING,) * tasks, (None,) * tasks, (), (0,) * tasks)  # fmt: skip


def done_of(shared: Shared) -> int:
    """``done``, OPEN when it is open for good."""
    return OPEN if shared[0] == OPEN else shared[1][shared[0]]  # type: ignore[no-any-return]


def _ref(w: World, me: Thread, arg: Any) -> Any:
    if w.ref == OPEN:
        return "open"
    w.held[me.number] = w.ref
    return "tokens"


def _set_ref(w: World, me: Thread, arg: Any) -> None:
    if arg == "open":
        w.ref = OPEN
    else:
        w.ref = next(number for number in range(len(w.counts)) if number not in w.held)
        w.counts[w.ref] = 0
    _sweep(w)


def _sweep(w: World) -> None:
    """What nobody can reach counts as empty."""
    for number, count in enumerate(w.counts):
        if count and number != w.ref and number not in w.held:
            w.counts[number] = 0


def forget(w: World, me: Thread) -> None:
    """The operation is over: it holds nothing any more."""
    w.held[me.number], w.sigs[me.number], me.popped = NOTHING, None, NOBODY
    _sweep(w)


def _post(w: World, me: Thread, arg: Any) -> None:
    w.counts[w.held[me.number]] += 1


def take(w: World, me: Thread, arg: Any) -> bool:
    if not w.counts[w.held[me.number]]:
        return False
    w.counts[w.held[me.number]] -= 1
    return True


def enqueue(w: World, me: Thread, arg: Any) -> None:
    if me.entry not in w.line:
        w.line.append(me.entry)


def remove(w: World, me: Thread, arg: Any) -> bool:
    if me.entry not in w.line:
        return False
    w.line.remove(me.entry)
    return True


def _head(w: World, me: Thread, arg: Any) -> bool:
    if w.line:
        me.popped = w.line[0]
    return bool(w.line)


def _pop(w: World, me: Thread, arg: Any) -> bool:
    if me.popped not in w.line:
        return False
    w.line.remove(me.popped)
    return True


def _wake(w: World, me: Thread, arg: Any) -> None:
    w.flags[me.popped[0] if arg is None else me.number if arg == "me" else arg] = True


def _state(w: World, me: Thread, running: bool) -> None:
    if not w.sticky:
        w.flags[me.number] = running


def _pend_load(w: World, me: Thread, whose: int | None) -> None:
    number = me.number if whose is None else whose
    w.sigs[me.number] = (number, w.pend[number][0])


def _pend_add(w: World, me: Thread, sig: int) -> None:
    loaded = w.sigs[me.number]
    assert loaded is not None
    whose, which = loaded
    if w.pend[whose][0] == which:
        w.pend[whose] = (which, (*w.pend[whose][1], sig))


def _pend_list(w: World, me: Thread, arg: Any) -> tuple[int, ...]:
    return w.pend[me.number][1]


def _pend_store(w: World, me: Thread, sigs: tuple[int, ...]) -> None:
    which = w.pend[me.number][0]
    others = [loaded for number, loaded in enumerate(w.sigs) if number != me.number]
    w.pend[me.number] = (which + ((me.number, which) in others), sigs)


def _pend_cut(w: World, me: Thread, count: int) -> None:
    which, sigs = w.pend[me.number]
    w.pend[me.number] = (which, sigs[count:])


Effect = Callable[[World, Thread, Any], Any]
EFFECTS: dict[str, Effect] = {
    "ref": _ref, "ref=": _set_ref, "post": _post, "take": take,
    "some": lambda w, me, arg: w.counts[w.held[me.number]] > 0, "count": lambda w, me, arg: w.counts[w.held[me.number]],
    "line?": lambda w, me, arg: bool(w.line), "line#": lambda w, me, arg: len(w.line),
    "enqueue": enqueue, "remove": remove, "head": _head, "pop": _pop,
    "clear": lambda w, me, arg: w.line.clear(), "wake": _wake, "state=": _state,
    "pend@": _pend_load, "pend+": _pend_add, "pend*": _pend_list, "pend=": _pend_store,
    "pend-": _pend_cut,
}  # fmt: skip
