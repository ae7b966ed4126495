# SPDX-License-Identifier: MIT
"""The language in which the kernel and we are told the same story, and its encoding for the module.

    a0: interruptible_timeout x 2; tick & usr1 a0; complete x @hardirq & a1: try x

A line is a script. Steps are separated by ``;``: everybody sleeps again before the next begins. The
operations of one, separated by ``&``, are done in order while nobody they wake can run.

``a0: COMMAND`` gives actor 0 something to do, when it is done with what it does. ``a0 falling: OP``
is done when a0 has queued in a wait, set its state and is about to sleep, as by an interrupt. Three completions,
x, y, z, are new at the start. Every text that parses is a valid script: what makes no sense (a fifth
command for an actor, a signal to a dead one) has an outcome in the log, too.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

ACTORS = 4
COMPLETIONS = "xyz"
NOBODY = 0xFF
CONTEXTS = ("task", "irqsoff", "softirq", "hardirq")
FALLING = "falling"  # not now: when `whom` has queued and is about to sleep

# what -> its number in enum oracle_what
ONE_SHOT = {
    "complete": 0, "complete_all": 1, "complete_on_current_cpu": 2, "reinit": 3, "try": 4, "done": 5,
    "set": 6,
}  # fmt: skip
UNTIMED = {"wait": 16, "io": 17, "interruptible": 20, "killable": 22}
TIMED = {"timeout": 18, "io_timeout": 19, "interruptible_timeout": 21, "killable_timeout": 23}
STATE = {"state": 24}
WAITS = {**UNTIMED, **TIMED, **STATE}
USER = {"user": 32}
TO_ACTOR = {"usr1": 48, "kill": 49, "term": 50, "wake": 51}
TRAPPED = (*ONE_SHOT, "usr1", "kill", "wake")
TICK = {"tick": 52}
NUMBERS = {**ONE_SHOT, **WAITS, **USER, **TO_ACTOR, **TICK}

# word -> the value of `arg`
STATES = {"idle": 0, "freezable": 1, "killable": 2, "wakekill": 3}
COUNTS = {"1": 0, "2": 1, "uint_max-1": 2, "uint_max": 3}
TIMEOUTS = {"0": 0, "1": 1, "2": 2, "3": 3, "max": 10, "negative": 11}
_WORDS = {**dict.fromkeys(TIMED, TIMEOUTS), "state": STATES, "set": COUNTS}
_ENCODED = struct.Struct("<BBBBBBBx")


class ScriptError(ValueError):
    """A text that is no script."""


@dataclass(frozen=True, slots=True)
class Op:
    """One operation. ``actor`` is None for the controller's; ``word`` is of _WORDS, or empty."""

    what: str
    actor: int | None = None
    x: str = "x"
    word: str = ""
    context: str = "task"
    whom: int = 0

    def __str__(self) -> str:
        if self.what in TO_ACTOR and self.context != FALLING:
            return f"{self.what} a{self.actor}"
        parts = [self.what]
        if self.what in ONE_SHOT or self.what in WAITS:
            parts.append(self.x)
        if self.word:
            parts.append(self.word)
        if self.context == FALLING:
            return f"a{self.whom} falling: {' '.join(parts)}"
        if self.context != "task":
            parts.append(f"@{self.context}")
        text = " ".join(parts)
        return text if self.actor is None else f"a{self.actor}: {text}"

    def encoded(self, last: bool) -> bytes:
        """struct oracle_op."""
        actor = NOBODY if self.actor is None else self.actor
        arg = _WORDS[self.what][self.word] if self.word else 0
        x, context = COMPLETIONS.index(self.x), (*CONTEXTS, FALLING).index(self.context)
        if self.context == FALLING and self.what in TO_ACTOR:
            actor = self.whom
        return _ENCODED.pack(NUMBERS[self.what], actor, x, context, last, arg, self.whom)


Step = tuple[Op, ...]
Script = tuple[Step, ...]


def text(script: Script) -> str:
    """As it is written; ``parsed()`` reads it back."""
    return "; ".join(" & ".join(map(str, step)) for step in script)


def encoded(script: Script) -> bytes:
    """As the module reads it."""
    return b"".join(op.encoded(op is step[-1]) for step in map(_distinct, script) for op in step)


def _distinct(step: Step) -> Step:
    """The same with an object of its own for the last operation, which may be a repetition."""
    return (*step[:-1], replace(step[-1]))


def parsed(line: str) -> Script:
    """The script of a line; ScriptError says which operation is none."""
    return tuple(
        tuple(_op(text.strip()) for text in step.split("&")) for step in line.strip().split(";")
    )


def _op(said: str) -> Op:
    actor, words = None, said.split()
    if words[1:2] == ["falling:"]:
        return _trapped(_actor(words[0], said), words[2:], said)
    if words and words[0].endswith(":"):
        actor = _actor(words.pop(0)[:-1], said)
    if not words or words[0] not in NUMBERS:
        raise ScriptError(f"no operation: {said!r}")
    what = words.pop(0)
    if what in TO_ACTOR:
        return _ended(Op(what, _actor(words.pop(0) if words else "", said)), words, said)
    if what in USER or what in TICK:
        return _ended(Op(what, actor), words, said)
    x = words.pop(0) if words else ""
    word = words.pop(0) if what in _WORDS and words else ""
    context = words.pop(0)[1:] if words and actor is None else "task"
    if x not in COMPLETIONS or context not in CONTEXTS or word not in _WORDS.get(what, [""]):
        raise ScriptError(f"no operation: {said!r}")
    return _ended(Op(what, actor, x, word, context), words, said)


def _trapped(whom: int, words: list[str], said: str) -> Op:
    if words and words[0] in TO_ACTOR and words[0] in TRAPPED:
        return _ended(Op(words[0], context=FALLING, whom=whom), words[1:], said)
    op = _op(" ".join(words))
    if op.actor is not None or op.what not in TRAPPED or op.context != "task":
        raise ScriptError(f"no operation: {said!r}")
    return replace(op, context=FALLING, whom=whom)


def _actor(name: str, said: str) -> int:
    if name not in (names := [f"a{number}" for number in range(ACTORS)]):
        raise ScriptError(f"no actor {name} in {said!r}: there are {', '.join(names)}")
    return names.index(name)


def _ended(op: Op, words: list[str], said: str) -> Op:
    needs_actor = op.what in WAITS or op.what in USER
    if words or (needs_actor and op.actor is None) or (op.what in TICK and op.actor is not None):
        raise ScriptError(f"no operation: {said!r}")
    return op
