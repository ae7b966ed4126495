# SPDX-License-Identifier: MIT
"""Process context. Whose turn it is to read, or to write; and who is inside when a driver closes."""

from __future__ import annotations

from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

from udriver.kernel.completion import Completion, complete
from udriver.kernel.context import might_sleep

if TYPE_CHECKING:
    from udriver.drivers.usbserial import UsbSerial

__all__ = ["in_turn", "inside"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def in_turn(
    driver: UsbSerial,
    turn: Completion,
    deadline: float | None,
    what: str,
    body: Callable[[*Ts], T],
    *args: *Ts,
) -> T:
    """Call ``body`` while no other call has ``turn``, a completion with one token.

    Not a lock: a main thread that blocks on a lock takes no signal-driven interrupt, and an unplug
    could not wake it. Not a context manager: a signal handler may raise at the entry of
    ``__exit__``, and the turn would never end; here what gives it back is tried again.
    """
    taken: list[object] = []
    try:
        try:
            driver.inside[id(taken)] = get_ident()
            might_sleep(what)
            if not turn.try_wait_into(taken):  # nearly always: a wait would be a third of the call
                driver.sleep_on(turn, deadline, what, None, taken)
            return body(*args)
        finally:
            _leave(driver, turn, taken)
    except BaseException:
        _leave(driver, turn, taken)  # if a signal handler raised before it was; twice does nothing
        raise


def inside(driver: UsbSerial, body: Callable[[*Ts], T], *args: *Ts) -> T:
    """Call ``body``, which takes no turn and uses the fd: close() waits until it is over, too."""
    entry: list[object] = []
    try:
        try:
            driver.inside[id(entry)] = get_ident()
            return body(*args)
        finally:
            _go(driver, entry)
    except BaseException:
        _go(driver, entry)  # as above
        raise


def _leave(driver: UsbSerial, turn: Completion, taken: list[object]) -> None:
    turn.put_back(taken)
    _go(driver, taken)


def _go(driver: UsbSerial, entry: list[object]) -> None:
    driver.inside.pop(id(entry), None)
    if driver._gone is not None:
        complete(driver.quiet)
