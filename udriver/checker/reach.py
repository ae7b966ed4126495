# SPDX-License-Identifier: MIT
"""Whether a handler can get at a completion: what a C driver's pointer in ``dev_id`` is.

Looks at the handler's closure, its bound object and arguments, the globals that its code names, and
``dev_id``, three references deep. Calls nothing of the user's.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from udriver.kernel.completion import Completion
from udriver.kernel.irqdesc import IrqAction

__all__ = ["reaches"]

DEPTH = 3
MOST = 500  # objects looked at


def reaches(action: IrqAction, x: Completion) -> bool:
    """Whether ``action`` can complete ``x``. Any context."""
    level = [action.handler, action.thread_fn, action.dev_id]
    seen: set[int] = set()
    for depth in range(DEPTH + 1):
        following: list[Any] = []
        for obj in level:
            if obj is x:
                return True
            if obj is None or id(obj) in seen or len(seen) > MOST:
                continue
            seen.add(id(obj))
            if depth < DEPTH:
                following += _refers_to(obj, depth)
        level = following
    return False


def _refers_to(obj: Any, depth: int) -> Iterator[Any]:
    if isinstance(obj, MethodType):
        yield from (obj.__self__, obj.__func__)
    elif isinstance(obj, FunctionType):
        yield from _of_function(obj, depth)
    elif isinstance(obj, functools.partial):
        yield from (obj.func, *obj.args, *obj.keywords.values())
    elif isinstance(obj, dict):
        yield from list(obj.values())
    elif isinstance(obj, (list, tuple, set, frozenset)):
        yield from list(obj)
    elif not isinstance(obj, (Completion, ModuleType, BuiltinFunctionType, type, str, bytes, int)):
        yield from _attributes(obj)


def _of_function(function: FunctionType, depth: int) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:
            pass  # empty
    yield from function.__defaults__ or ()
    if wrapped := getattr(function, "__wrapped__", None):
        yield wrapped
    if depth == 0:
        known = function.__globals__
        yield from (known[name] for name in function.__code__.co_names if name in known)


def _attributes(obj: Any) -> Iterator[Any]:
    yield from list(getattr(obj, "__dict__", {}).values())
    for kind in type(obj).__mro__:
        for name in kind.__dict__.get("__slots__", ()):
            slot = kind.__dict__.get(name)
            try:
                yield slot.__get__(obj)  # type: ignore[union-attr]
            except AttributeError:
                pass  # mangled, or not set
