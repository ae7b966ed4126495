# SPDX-License-Identifier: MIT
"""The register of deliberately wrong cores: each a set of replacements in udriver's completion.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from udriver.kernel import completion as kernel
from udriver.kernel.completion import Completion

WRONG: dict[str, dict[str, Any]] = {}


def wrong(name: str, *replaced: str) -> Callable[[Any], Any]:
    """Register what is decorated as the replacement of these names."""

    def register(what: Any) -> Any:
        WRONG.setdefault(name, {}).update(dict.fromkeys(replaced or (what.__name__,), what))
        return what

    return register


@contextmanager
def mistaken(replacements: dict[str, Any]) -> Iterator[None]:
    """While the block runs, the core is the wrong one."""
    with mock.patch.multiple(kernel, **replacements):
        yield


def wake_head(x: Completion) -> bool:
    """Dequeue and wake the head, if there is one."""
    if not x.wait_queue.task_list:
        return False
    x.wait_queue.swake_up_one()
    return True
