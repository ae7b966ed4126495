# SPDX-License-Identifier: MIT
"""Where a completion that is being made will be stored, and which handlers may look there already."""

from __future__ import annotations

import inspect
import sys
from types import CodeType, FrameType, MemberDescriptorType
from typing import Any, NamedTuple

from udriver.checker import bytecode
from udriver.checker.place import in_core
from udriver.checker.reach import reaches
from udriver.kernel.completion import Completion
from udriver.kernel.irqdesc import IrqAction

__all__ = ["Home", "home_of"]

_NOTHING = object()


class Home(NamedTuple):
    """An attribute of ``owner``, a variable that functions of ``code`` share, or a global.

    Nothing is stored there yet: it is not the next one of a driver that makes one for each request.
    """

    name: str
    owner: Any
    code: CodeType

    def looked_at_by(self, action: IrqAction) -> bool:
        """Whether the handler of ``action`` may look there."""
        if self.owner is not None:
            return reaches(action, self.owner)
        function = getattr(action.handler, "__func__", action.handler)
        code = getattr(function, "__code__", None)
        if code is None:
            return False
        free = self.name in code.co_freevars and code in self.code.co_consts
        return free or self.name in code.co_names


def home_of(x: Completion) -> Home | None:
    """Of ``x``, whose ``__init__`` is running; None where it cannot be told, or there was one before."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and (in_core(frame) or _initialises(frame, x)):
        frame = frame.f_back
    if frame is None:
        return None
    how, name, of = bytecode.destination(frame)
    code = frame.f_code
    if how == "STORE_ATTR":
        owner = frame.f_locals.get(of, frame.f_globals.get(of))
        return Home(name, owner, code) if owner is not None and _unset(owner, name) else None
    if how == "STORE_DEREF" and name in code.co_cellvars and name not in frame.f_locals:
        return Home(name, None, code)
    if how in ("STORE_GLOBAL", "STORE_NAME") and name not in frame.f_globals:
        return Home(name, None, code)
    return None


def _initialises(frame: FrameType, x: Completion) -> bool:
    """Whether it is the ``__init__`` of a subclass."""
    code = frame.f_code
    return code.co_name == "__init__" and frame.f_locals.get(code.co_varnames[0]) is x


def _unset(owner: Any, name: str) -> bool:
    found = inspect.getattr_static(owner, name, _NOTHING)
    if not isinstance(found, MemberDescriptorType):
        return found is _NOTHING
    try:
        found.__get__(owner)
    except AttributeError:
        return True
    return False
