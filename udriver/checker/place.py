# SPDX-License-Identifier: MIT
"""Where something happened: task, context and the user's frames; and whether a call is over.

No frame is kept, since a frame keeps its locals alive.
"""

from __future__ import annotations

import gc
import inspect
import itertools
import sys
import threading
from pathlib import Path
from types import CodeType, FrameType
from typing import NamedTuple

from udriver.kernel.context import CONTEXT

__all__ = ["Activation", "Place", "Spot", "activation", "here", "in_core", "is_user", "user_frame"]

DEPTH = 5  # frames of a stack that are worth reading
_PACKAGE = Path(__file__).parents[1]
_CORE = tuple(str(_PACKAGE / name) + "/" for name in ("kernel", "checker"))
_PASSED = ("/threading.py", "/contextlib.py", "/functools.py", "/dataclasses.py")
_ENDS = ("/_pytest/", "/pluggy/", "/unittest/", "<frozen ")
_STDLIB = threading.__file__.rpartition("/")[0] + "/"
_PASS, _END, _KEEP = range(3)
_kinds: dict[str, int] = {}


class Spot(NamedTuple):
    """One line of code."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.function}()  {self.file}:{self.line}"


class Place(NamedTuple):
    """A short stack, innermost first, with the task it belongs to and its context."""

    task: str
    context: str
    spots: tuple[Spot, ...]

    @property
    def top(self) -> Spot:
        """The line of the user's own that did it."""
        return self.spots[0] if self.spots else Spot("?", 0, "?")


class Activation(NamedTuple):
    """One call of one function: alive until it returns."""

    thread: int
    serial: int  # of the thread: the system gives its number to another one once it has ended
    frame: int
    code: CodeType

    def over(self) -> bool:
        """Whether it has returned. A generator is never taken for over: it may be resumed."""
        if self.code.co_flags & _SUSPENDABLE:
            return False
        _me()  # who asks may have the number of who is gone
        if _latest.get(self.thread) != self.serial:
            return True
        frame = _innermost(self.thread)
        while frame is not None:
            if id(frame) == self.frame and frame.f_code is self.code:
                return False
            frame = frame.f_back
        return True


class _Numbered(threading.local):
    @property
    def serial(self) -> int:
        """A number that no other thread ever has."""
        return self.__dict__.setdefault("_serial", next(_serials))  # type: ignore[no-any-return]


_serials = itertools.count(1)
_numbered = _Numbered()
_latest: dict[int, int] = {}  # by a thread's number: the serial of who has it now


def _me() -> tuple[int, int]:
    """This thread's number and serial."""
    thread, serial = threading.get_ident(), _numbered.serial
    _latest[thread] = serial
    return thread, serial


_SUSPENDABLE = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def _innermost(thread: int) -> FrameType | None:
    if thread == threading.get_ident():
        return sys._getframe(1)
    enabled = gc.isenabled()
    try:
        gc.disable()  # before 3.12 a collection inside that call may deadlock (CPython gh-106883)
        return sys._current_frames().get(thread)
    finally:
        if enabled:
            gc.enable()


def _kind(file: str) -> int:
    kind = _kinds.get(file)
    if kind is None:
        if file.startswith(_CORE) or file.endswith(_PASSED):
            kind = _PASS
        else:
            kind = _END if any(part in file for part in _ENDS) else _KEEP
        _kinds[file] = kind
    return kind


def in_core(frame: FrameType | None) -> bool:
    """Whether the frame is the kernel package's or ours: no user called from there."""
    return frame is None or frame.f_code.co_filename.startswith(_CORE)


def is_user(frame: FrameType) -> bool:
    """Whether the frame is of code of the user's own, as far as the name of its file tells."""
    file = frame.f_code.co_filename
    return _kind(file) == _KEEP and not file.startswith(_STDLIB) and "site-packages" not in file


def user_frame() -> FrameType | None:
    """The innermost frame that is the user's."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _kind(frame.f_code.co_filename) == _PASS:
        frame = frame.f_back
    return frame


def activation(frame: FrameType | None) -> Activation | None:
    """The call that ``frame`` is, without keeping it."""
    if frame is None:
        return None
    return Activation(*_me(), id(frame), frame.f_code)


def here() -> Place:
    """This moment. Any context: takes no lock."""
    frame: FrameType | None = sys._getframe(1)
    spots: list[Spot] = []
    while frame is not None and len(spots) < DEPTH:
        code = frame.f_code
        kind = _kind(code.co_filename)
        if kind == _END and spots:
            break
        if kind == _KEEP:
            spots.append(Spot(code.co_filename, frame.f_lineno or 0, code.co_qualname))
        frame = frame.f_back
    return Place(threading.current_thread().name, CONTEXT.handler or "process", tuple(spots))
