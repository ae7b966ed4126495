# SPDX-License-Identifier: MIT
"""Signals of the process that runs the tests."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["handling"]


@contextmanager
def handling(signum: int, handler: Callable[..., object]) -> Iterator[None]:
    """The signal handler while the block runs."""
    before = signal.signal(signum, handler)  # type: ignore[arg-type]
    try:
        yield
    finally:
        signal.signal(signum, before)
