# SPDX-License-Identifier: MIT
"""What drivers say of themselves: udriver/kernel/annotation.py ends here.

M3, M15, M16, M17, M19, M21 where the start of an operation shows them.
"""

from __future__ import annotations

import threading
import weakref
from typing import Any

from udriver.checker.evidence import Evidence
from udriver.checker.history import SIGNAL, TIMEOUT, TOKEN, End, Operation, Post, Record
from udriver.checker.locks import Lock, Locks
from udriver.checker.place import Activation, here
from udriver.kernel.completion import Completion

__all__ = ["Operations"]


class Operations:
    """The annotations' other side."""

    def __init__(self, evidence: Evidence, locks: Locks) -> None:
        self._evidence = evidence
        self._add = evidence.reports.add
        self._locks = locks
        self._kinds: dict[type, type] = {}
        self._watched: dict[int, tuple[weakref.ref[Any], type, weakref.ref[Record]]] = {}

    def start(self, x: Completion, ident: object) -> None:
        """The hardware is about to be told."""
        record = self._evidence.of(x)
        place = here()
        running, last = record.operation, record.last
        if running is not None and not running.stopped and not running.posts:
            ended = running.ended
            if ended is None:
                self._add(
                    "M21", f"{record.name} serves {running.ident!r} and {ident!r} at once",
                    ("an operation is started", place),
                    ("another one is under way on it", running.place),
                )  # fmt: skip
            elif ended.outcome != TOKEN:
                rule = {TIMEOUT: "M17", SIGNAL: "M19"}[ended.outcome]
                self._add(
                    rule, f"{record.name} is used again, and its last operation was not stopped",
                    ("an operation is started", place),
                    (f"the last one's wait ended by {ended.outcome}", ended.wait.place),
                )  # fmt: skip
        if last is not None and last.outcome != TOKEN and not record.kind:
            self._add(
                "M3", f"{record.name} may still get a token of the operation before",
                ("an operation is started without reinit_completion()", place),
                (f"the last one's wait ended by {last.outcome}", last.wait.place),
            )  # fmt: skip
        record.operation = Operation(ident, place, self._evidence.tick())
        record.unsure = False
        self._evidence.cpu.started = weakref.ref(record)

    def stop(self, x: Completion) -> None:
        """The hardware has been stopped."""
        record = self._evidence.of(x)
        operation = record.operation
        if operation is None:
            return
        waits = record.waiting()
        if waits and not operation.posts and record.opened is None:
            self._add(
                "M15", f"the operation of {record.name} ends without complete()",
                ("the operation is stopped", here()),
                ("somebody waits for it", waits[0].place),
            )  # fmt: skip
        operation.stopped = True
        record.settle()

    def kind(self, x: Completion, kind: str) -> None:
        """What its tokens mean."""
        self._evidence.of(x).kind = kind

    def lock(self, lock: Any, name: str, *, spin: bool) -> Any:
        """A lock to watch."""
        if isinstance(lock, Lock):
            lock.name, lock.spin = name, spin
            return lock
        return Lock(lock, self._locks, name, spin=spin)

    # M16: writes to a shared object

    def shares(self, x: Completion, obj: Any) -> None:
        """Watch the attributes of ``obj``, by making it an instance of a subclass that tells."""
        kind = type(obj)
        if getattr(kind, "_udriver_watched", False):
            return
        try:
            obj.__class__ = self._watching(kind)
        except TypeError:
            return  # a builtin, or with slots of its own: its writes cannot be seen
        number = id(obj)
        gone = weakref.ref(obj, lambda _: self._watched.pop(number, None) and None)
        self._watched[number] = (gone, kind, weakref.ref(self._evidence.of(x)))

    def _watching(self, kind: type) -> type:
        if kind not in self._kinds:
            setattr_of_kind: Any = kind.__setattr__
            operations = self

            def write(obj: Any, name: str, value: object) -> None:
                setattr_of_kind(obj, name, value)
                operations.written(obj, name)

            members = {"__slots__": (), "__setattr__": write, "_udriver_watched": True}
            self._kinds[kind] = type(kind.__name__, (kind,), members)
        return self._kinds[kind]

    def written(self, obj: Any, name: str) -> None:
        """An attribute of a shared object was set."""
        found = self._watched.get(id(obj))
        record = found[2]() if found is not None else None
        if record is None or record.latest is None:
            return
        post, operation = record.latest, record.operation
        if operation is not None and operation.tick > post.tick:
            return
        section = self._evidence.section()
        if section is not None:
            same = section.serial == post.section
        else:
            call = post.call
            same = (
                not post.section
                and call is not None
                and post.thread == threading.get_ident()
                and not call.over()
                and not (record.last is not None and _returned_to(call, record.last, post))
            )
        if same:
            self._add(
                "M16", f"{name} is written after complete() of {record.name}",
                ("the write", here()), ("complete()", post.place),
            )  # fmt: skip

    def off(self) -> None:
        """Shared objects are what they were."""
        for ref, kind, _ in list(self._watched.values()):
            obj = ref()
            if obj is not None:
                obj.__class__ = kind
        self._watched.clear()


def _returned_to(call: Activation, last: End, post: Post) -> bool:
    """Whether the completer itself has waited for its token since: the object is its own again."""
    mine = last.wait.call is not None and last.wait.call.serial == call.serial
    return mine and last.tick > post.tick
