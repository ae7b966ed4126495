# SPDX-License-Identifier: MIT
"""Puts the checker into the core's functions, and takes it out, by exchanging their code objects.

As the kernel's static keys and ftrace do it: what is off is not there, so that it costs nothing,
and every reference to a function, imported by name or not, gets the hook. The alternative, a test
at each call site, costs 2 to 4 % of complete() and moves the bytecode boundaries that the core is
tested at.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import CO_COROUTINE
from types import CodeType, FunctionType
from typing import Any

__all__ = ["Hook", "Patches"]

Hook = Callable[..., Any]
"""Called as ``hook(original, *arguments)`` instead of the function."""


def _trampoline(*args: Any, **kwargs: Any) -> Any:
    return _checked(*args, **kwargs)  # type: ignore[name-defined]  # noqa: F821 - see _code_for


async def _trampoline_of_a_coroutine(*args: Any, **kwargs: Any) -> Any:
    return await _checked(*args, **kwargs)  # type: ignore[name-defined]  # noqa: F821


def _code_for(function: FunctionType, name: str) -> CodeType:
    """A trampoline that looks its hook up as ``name`` in the function's own module."""
    coroutine = function.__code__.co_flags & CO_COROUTINE
    trampoline = _trampoline_of_a_coroutine if coroutine else _trampoline
    return trampoline.__code__.replace(
        co_names=(name,), co_name=function.__name__, co_qualname=function.__qualname__
    )


class Patches:
    """The functions with their hooks; ``on()`` and ``off()`` may alternate."""

    def __init__(self, hooks: dict[Any, Hook]) -> None:
        self._code: list[tuple[FunctionType, CodeType, CodeType]] = []
        self._names: list[tuple[dict[str, Any], str, Hook, Hook]] = []
        for number, (function, hook) in enumerate(hooks.items()):
            original = FunctionType(
                function.__code__, function.__globals__, function.__name__, function.__defaults__
            )
            original.__kwdefaults__ = function.__kwdefaults__
            name = f"_checked_{number}_{function.__qualname__}"
            self._names.append((function.__globals__, name, partial(hook, original), original))
            self._code.append((function, function.__code__, _code_for(function, name)))

    def on(self) -> None:
        """From here on calls of the functions go to the hooks."""
        for module, name, hook, _ in self._names:
            module[name] = hook
        for function, _, code in self._code:
            function.__code__ = code

    def off(self) -> None:
        """The functions are what they were. Calls under way end in the hook they began in."""
        for function, code, _ in self._code:
            function.__code__ = code
        for module, name, _, original in self._names:
            module[name] = original  # not deleted: a thread may be about to look it up
