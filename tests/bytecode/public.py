# SPDX-License-Identifier: MIT
"""Which functions have to be interrupted: all of udriver.kernel whose docstring names its context."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import udriver.kernel

__all__ = ["EXEMPT", "public_functions"]

EXEMPT = {
    "ThreadTask.sleep": "runs on other threads than the main one, where no signal handler does",
}


def public_functions() -> set[tuple[str, str]]:
    """File and qualified name of each, as in its code object."""
    found = set()
    for info in pkgutil.iter_modules(udriver.kernel.__path__):
        module = importlib.import_module(f"udriver.kernel.{info.name}")
        for value in _functions(module):
            function = inspect.unwrap(value)
            if function.__module__ == module.__name__ and "Context:" in (function.__doc__ or ""):
                found.add((function.__code__.co_filename, function.__code__.co_qualname))
    return found


def _functions(module: object) -> Iterator[Callable[..., Any]]:
    for value in vars(module).values():
        if inspect.isfunction(value):
            yield value
        elif inspect.isclass(value) and not getattr(value, "_is_protocol", False):
            for member in vars(value).values():
                if isinstance(member, property):
                    yield from filter(None, (member.fget, member.fset))
                elif inspect.isfunction(member):
                    yield member
