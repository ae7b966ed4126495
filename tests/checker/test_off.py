# SPDX-License-Identifier: MIT
"""Off is off: outside a block the core is bytecode for bytecode what it is without a checker."""

from __future__ import annotations

import gc
import importlib
import pkgutil
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

import udriver.kernel
from udriver.checker import checking
from udriver.kernel import annotation
from udriver.kernel.completion import Completion, complete, wait_for_completion

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.udriver_unchecked("it looks at what is patched")


def functions() -> Iterator[tuple[str, FunctionType]]:
    """Every function, method and property of the kernel package."""
    for info in pkgutil.iter_modules(udriver.kernel.__path__):
        module = importlib.import_module(f"udriver.kernel.{info.name}")
        for owner in (module, *(kind for kind in vars(module).values() if isinstance(kind, type))):
            for name, value in list(vars(owner).items()):
                for part in (value, *(getattr(value, way, None) for way in ("fget", "fset"))):
                    if isinstance(part, FunctionType) and part.__module__ == module.__name__:
                        yield f"{module.__name__}.{part.__qualname__}.{name}", part


def state() -> dict[str, Any]:
    """All that the checker changes, by identity."""
    code: dict[str, Any] = {
        name: (part.__code__, part.__defaults__, part.__kwdefaults__)
        for name, part in functions()
        if "._checked_" not in name  # a first block leaves them; a method's has a dot of its own
    }
    return code | {"locks": (threading.Lock, threading.RLock), "annotations": annotation.checker}


def same(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """The same objects, not only equal ones: the specialised bytecode in them is kept."""

    def identity(value: Any) -> Any:
        return tuple(map(id, value)) if isinstance(value, tuple) else id(value)

    return {k: identity(v) for k, v in before.items()} == {k: identity(v) for k, v in after.items()}


def test_a_block_changes_some_functions_and_changes_them_back() -> None:
    before = state()
    assert isinstance(before["udriver.kernel.completion.complete.complete"][0], CodeType)
    with checking(stderr=False):
        during = state()
    assert not same(before, during)
    assert (
        during["udriver.kernel.completion.complete.complete"]
        != (before["udriver.kernel.completion.complete.complete"])
    )
    assert same(before, state())


def test_also_when_the_block_fails() -> None:
    before = state()
    with pytest.raises(ZeroDivisionError), checking(stderr=False):
        raise ZeroDivisionError
    assert same(before, state())


def test_also_when_blocks_are_nested_and_end_in_the_wrong_order() -> None:
    before = state()
    outer, inner = checking(stderr=False), checking(stderr=False)
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)
    assert not same(before, state())
    inner.__exit__(None, None, None)
    assert same(before, state())


def test_a_wait_that_was_begun_inside_ends_outside() -> None:
    with checking(stderr=False) as reports:
        x = Completion("x")
        thread = threading.Thread(target=wait_for_completion, args=(x,))
        thread.start()
        while not len(x.wait_queue):
            pass
    assert reports.rules == ["M15"]  # at the block's end somebody still waited
    complete(x)
    thread.join(20)
    assert not thread.is_alive()


def test_nothing_of_a_block_is_kept_alive() -> None:
    with checking(stderr=False) as reports:
        x = Completion("x")
        complete(x)
        lock = threading.Lock()
    gone = weakref.ref(reports)
    del reports, lock
    gc.collect()
    assert gone() is None
    assert x.done == 1


def test_nobody_imports_the_checker_who_does_not_check() -> None:
    code = (
        "import sys, udriver, udriver.cli_run, udriver.cli_soak, udriver.cli_trace\n"
        "udriver.UsbSerial, udriver.complete, udriver.request_irq\n"
        "print([name for name in sys.modules if name.startswith('udriver.checker')])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'hw'}"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert result.stdout == "[]\n"
