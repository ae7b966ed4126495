# SPDX-License-Identifier: MIT
"""A program: what each thread does, as text and as an object.

W~|X|CT^A=1     task 0 sleeps in W already, task 1 has X to do, task 2 C and then T; on top of
                task 0 an interrupt comes that does A; one token is there at the start
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import NamedTuple

from tests.interleaving.operations import SIGNALS, WAITS

Ops = tuple[str, ...]


class Program(NamedTuple):
    """``parked``: so many of the first threads sleep in their first operation, in that order."""

    threads: tuple[Ops, ...]
    interrupts: tuple[Ops, ...] = ()
    tokens: int = 0
    parked: int = 0

    def __str__(self) -> str:
        threads = "|".join(
            ops[0] + "~" * (number < self.parked) + "".join(ops[1:])
            for number, ops in enumerate(self.threads)
        )
        interrupts = "".join("^" + "".join(ops) for ops in self.interrupts)
        return threads + interrupts + (f"={self.tokens}" if self.tokens else "")

    @property
    def tasks(self) -> tuple[Ops, ...]:
        """The threads, then the interrupts."""
        return self.threads + self.interrupts

    @property
    def ops(self) -> set[str]:
        """All letters."""
        return {op[0] for ops in self.tasks for op in ops}


def parsed(text: str) -> Program:
    """The object again. Raises ValueError."""
    found = re.fullmatch(r"([^\^=]+)((?:\^[^\^=]+)*)(?:=(\d))?", text)
    if found is None:
        raise ValueError(f"no program: {text}")
    threads = found[1].split("|")
    parked = sum("~" in thread for thread in threads)
    return Program(
        tuple(map(_ops, threads)),
        tuple(map(_ops, found[2].split("^")[1:])),
        int(found[3] or 0),
        parked,
    )


def _ops(text: str) -> Ops:
    found = tuple(re.findall(r"[CARTDWXIKYB]|[US]\d", text))
    if "".join(found) != text.replace("~", "") or not found:
        raise ValueError(f"no operations: {text}")
    return found


BASE = "CARTDWXIKUS"
ALL = "CARTDWXIKYBUS"


def programs(
    shape: tuple[int, ...],
    letters: str = BASE,
    *,
    interrupts: tuple[int, ...] = (),
    tokens: int = 0,
    parked: int = 0,
) -> Iterator[Program]:
    """Each program with so many operations in each thread, and in each interrupt, once.

    Two that differ in the threads' numbers only are one. A signal is sent to each other thread
    that waits, and to nobody else. An interrupt does not wait.
    """
    sizes = shape + interrupts
    choices = [list(itertools.product(letters, repeat=size)) for size in shape]
    for number in range(parked):
        choices[number] = [ops for ops in choices[number] if ops[0] in WAITS]
    free = "".join(letter for letter in letters if letter not in WAITS)
    choices += [list(itertools.product(free, repeat=size)) for size in interrupts]
    seen: set[tuple[Ops, ...]] = set()
    for tasks in itertools.product(*choices):
        for aimed in _aimed(tasks, len(shape)):
            key = _canonical(aimed, sizes, len(shape), parked)
            if key not in seen:
                seen.add(key)
                yield Program(key[: len(shape)], key[len(shape) :], tokens, parked)


def _aimed(tasks: tuple[Ops, ...], threads: int) -> Iterator[tuple[Ops, ...]]:
    """Each way to give the signals a target."""
    targets = [
        [f"{op}{whom}" for whom in range(threads)
         if whom != number and any(other in WAITS for other in tasks[whom])]
        if op in SIGNALS else [op]
        for number, ops in enumerate(tasks) for op in ops
    ]  # fmt: skip
    for flat in itertools.product(*targets):
        rest = iter(flat)
        yield tuple(tuple(itertools.islice(rest, len(ops))) for ops in tasks)


def _canonical(
    tasks: tuple[Ops, ...], sizes: tuple[int, ...], threads: int, parked: int
) -> tuple[Ops, ...]:
    """The least of those that only number the threads otherwise; an interrupt's host stays."""
    fixed = max(parked, 1 if len(tasks) > threads else 0)
    free = range(fixed, threads)
    best = tasks
    for order in itertools.permutations(free):
        numbers = [*range(fixed), *order, *range(threads, len(tasks))]
        renamed = {old: new for new, old in enumerate(numbers)}
        other = tuple(
            tuple(op[0] + str(renamed[int(op[1:])]) if op[1:] else op for op in tasks[old])
            for old in numbers
        )
        if tuple(map(len, other)) == sizes and other < best:
            best = other
    return best
