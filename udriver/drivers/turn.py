# SPDX-License-Identifier: MIT
"""Process context. Whose turn it is to read, or to write; and who is inside when a driver closes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from udriver.kernel.completion import Completion, complete

if TYPE_CHECKING:
    from udriver.drivers.usbserial import UsbSerial

__all__ = ["Turn"]


class Turn:
    """``with Turn(...)``: one call at a time, the others sleep as any other waiter.

    Not a lock: a main thread that blocks on a lock takes no signal-driven interrupt, and an unplug
    could not wake it. ``event`` is a completion with one token. The token is noted in the same C
    call that takes it, so that an exception from a signal handler cannot lose it.
    """

    __slots__ = ("_deadline", "_driver", "_event", "_inside", "_taken", "_what")

    def __init__(
        self, driver: UsbSerial, event: Completion, deadline: float | None, what: str
    ) -> None:
        self._driver = driver
        self._event = event
        self._deadline = deadline
        self._what = what
        self._taken: list[object] = []
        self._inside: list[int] = []

    def __enter__(self) -> None:
        self._inside.append(threading.get_ident())
        self._driver.inside.append(self._inside[0])
        try:
            self._driver.sleep_on(self._event, self._deadline, self._what, None, self._taken)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *exc_info: object) -> None:
        if self._taken:
            complete(self._event)
            self._taken.clear()
        if self._inside:
            self._driver.inside.remove(self._inside.pop())
        if self._driver.gone:
            complete(self._driver.quiet)

    # a signal handler may raise at the entry of __exit__, before anything is given back
    __del__ = __exit__
