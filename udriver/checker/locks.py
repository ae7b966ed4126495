# SPDX-License-Identifier: MIT
"""M11: what lockdep did with completions until 4.15, and no more.

A node is a lock, or a class of completions (all that were initialised at one line). An edge says
"is not let go, or does not happen, before": from a held lock to the one that is taken, from a held
lock to the completion that is waited for, from a completion to what its completer takes on the
way to complete(). A circle is a deadlock that may happen, though it has not this time.
"""

from __future__ import annotations

import sys
import threading
from itertools import pairwise
from typing import Any, Self

from udriver.checker.evidence import Evidence, Taken
from udriver.checker.history import Post, Record, Wait
from udriver.checker.place import Place, activation, here, user_frame

__all__ = ["Lock", "Locks"]


class Lock:
    """A lock that says when it is taken and released; in all else the lock it stands for."""

    def __init__(self, lock: Any, locks: Locks, name: str, *, spin: bool = False) -> None:
        self._lock = lock
        self._locks = locks
        self.name = name
        self.spin = spin

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As the lock's."""
        if blocking:
            self._locks.taking(self)
        taken = bool(self._lock.acquire(blocking, timeout))
        if taken:
            self._locks.taken(self)
        return taken

    def release(self) -> None:
        """As the lock's."""
        self._locks.released(self)
        self._lock.release()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lock, name)

    def __repr__(self) -> str:
        return f"<Lock {self.name}>"


class _Making:
    """threading.Lock while a block runs; from Python 3.13 on that is a class, and used as one."""

    def __init__(self, factory: Any, locks: Locks) -> None:
        self._factory = factory
        self._locks = locks

    def __call__(self) -> Any:
        file = sys._getframe(1).f_code.co_filename
        lock = self._factory()
        if self._locks.off or file.startswith(_STDLIB) or "site-packages" in file:
            return lock  # locks of queue, logging, ...: their owners know what they do
        return Lock(lock, self._locks, f"lock of {here().top}")

    def __instancecheck__(self, lock: Any) -> bool:
        return isinstance(getattr(lock, "_lock", lock), self._factory)

    def __or__(self, other: Any) -> Any:
        return self._factory | other

    def __ror__(self, other: Any) -> Any:
        return other | self._factory


class Locks:
    """Which thread holds what, and the graph."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._cpu = evidence.cpu
        self._edges: dict[object, dict[object, tuple[str, Place]]] = {}
        self._by_handler: dict[int, dict[Lock, Place]] = {}
        self._factories = (threading.Lock, threading.RLock)
        self.off = False

    def on(self) -> None:
        """Watch locks that the user's code makes from here on."""
        self._factories = (threading.Lock, threading.RLock)
        threading.Lock = _Making(threading.Lock, self)  # type: ignore[assignment]
        threading.RLock = _Making(threading.RLock, self)  # type: ignore[assignment]
        self.off = False

    def restore(self) -> None:
        """Those that were made say no more."""
        threading.Lock, threading.RLock = self._factories
        self.off = True

    # the locks

    def taking(self, lock: Lock) -> None:
        """It may have to wait for it."""
        held = tuple(self._cpu.held)
        if self.off or any(taken.lock is lock for taken in held):
            return
        for taken in held:
            self._edge(taken.lock, lock, f"{lock.name} taken under {taken.lock.name}", here())

    def taken(self, lock: Lock) -> None:
        """It has it."""
        if self.off:
            return
        place = here()
        section = self._evidence.section()
        serial = section.serial if section is not None else 0
        taken = Taken(lock, place, activation(user_frame()), serial)
        self._cpu.held.append(taken)
        self._cpu.taken.append(taken)
        if section is not None:
            self._by_handler.setdefault(id(section.action), {}).setdefault(lock, place)

    def released(self, lock: Lock) -> None:
        """The latest of its holds is over."""
        held = self._cpu.held
        for index in range(len(held) - 1, -1, -1):
            if held[index].lock is lock:
                del held[index]
                return

    def spinning(self) -> Place | None:
        """Where this thread took a spinlock that it still holds."""
        return next((taken.place for taken in self._cpu.held if taken.lock.spin), None)

    def shared_with(self, action: int) -> tuple[str, Place] | None:
        """A lock that this thread holds and the handler ``action`` takes, and where it does."""
        theirs = self._by_handler.get(action, {})
        for lock in [taken.lock for taken in self._cpu.held]:
            if lock in theirs:
                return lock.name, theirs[lock]
        return None

    def forget(self, action: int) -> None:
        """The handler is gone."""
        self._by_handler.pop(action, None)

    # completions

    def waiting(self, record: Record, wait: Wait) -> None:
        """A wait begins, with what is held."""
        for taken in tuple(self._cpu.held):
            says = f"{wait.function}() on {record.name} under it"
            self._edge(taken.lock, record.key, says, wait.place)

    def waited(self) -> None:
        """A wait is over: what was taken before it is another story."""
        self._cpu.taken.clear()

    def completing(self, record: Record, post: Post) -> None:
        """complete(), where another task waits for it, or has given up."""
        last = record.last
        waiting = [
            wait for wait in (*record.waiting(), *([last.wait] if last else ())) if wait.call
        ]
        if any(wait.call is not None and wait.call.thread != post.thread for wait in waiting):
            self._need(record, post)

    def taking_token(self, record: Record, post: Post) -> None:
        """A wait ended with ``post``. Who completes for itself waits for nobody."""
        if post.thread != threading.get_ident() or post.section:
            self._need(record, post)

    def _need(self, record: Record, post: Post) -> None:
        for lock, place in post.needed:
            says = f"taken on the way to complete() of {record.name}"
            self._edge(record.key, lock, says, place)

    def _edge(self, first: Any, then: Any, says: str, place: Place) -> None:
        edges = self._edges.setdefault(first, {})
        if then in edges:
            return
        edges[then] = (says, place)
        circle = self._path(then, first, set())
        if circle and any(not isinstance(node, Lock) for node in (first, then, *circle)):
            self._report(first, then, circle)

    def _path(self, start: object, end: object, seen: set[object]) -> list[object]:
        if start == end:
            return [start]
        seen.add(start)
        for node in tuple(self._edges.get(start, ())):
            if node not in seen and (rest := self._path(node, end, seen)):
                return [start, *rest]
        return []

    def _report(self, first: Any, then: Any, circle: list[object]) -> None:
        edges = list(pairwise([first, *circle]))
        while not (isinstance(edges[0][0], Lock) and not isinstance(edges[0][1], Lock)):
            edges.append(edges.pop(0))  # the wait under the lock first
        stacks = [self._edges[one][other] for one, other in edges]
        lock = edges[0][0]
        self._evidence.reports.add("M11", f"a wait and {lock.name}", *stacks)


_STDLIB = (threading.__file__.rpartition("/")[0] + "/", "<frozen ")
