# SPDX-License-Identifier: MIT
"""Composition. Which port a command works on and why: an argument, $UDRIVER_PORT, or the pty."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from udriver.drivers import bus

__all__ = ["Target", "open_target"]


@dataclass(frozen=True, slots=True)
class Target:
    """A path to open, which rung of truth it is (pty or adapter), and why it was chosen."""

    path: str
    rung: str
    reason: str


@contextmanager
def open_target(port: str | None, *, paced: bool = False) -> Iterator[Target]:
    """The port that ``port`` means; the built-in pty, in a process of its own, lives as long."""
    reason = "you named it"
    if port is None and os.environ.get("UDRIVER_PORT"):
        port, reason = os.environ["UDRIVER_PORT"], "UDRIVER_PORT names it"
    if port not in (None, "pty"):
        path = bus.find(port or "")
        yield Target(path, _rung(path), reason)
        return
    from udriver_hw.spawned import spawn

    with spawn(paced=paced) as device:
        named = "you asked for the pty" if port else "no PORT was given"
        yield Target(device.path, "pty", f"{named}: a built-in UART with TX wired to RX")


def _rung(path: str) -> str:
    return "pty" if os.path.realpath(path).startswith("/dev/pts/") else "adapter"
