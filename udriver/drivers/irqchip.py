# SPDX-License-Identifier: MIT
"""Enters hardirq context. Three ways to turn readiness of an fd into an interrupt.

One contract (tests/drivers/test_irqchip.py runs the same tests on all three): a line is raised
while its fd has something of what its owner is interested in, or hung up; never while masked.
The handler runs to its end before the next one on that line; which thread it runs on is what
differs:

``signal``  O_ASYNC and F_SETSIG: SIGURG interrupts the main thread between two bytecodes, as an interrupt on
            one CPU. Its handler then runs under whatever the main thread was doing.
``select``  a thread sleeps in epoll: the interrupt lands on another CPU.
``inline``  whoever sleeps in a wait sleeps in epoll, takes the interrupt himself and goes on:
            an idle CPU. No thread switch, so the fastest. What is raised already a reader takes
            before it sleeps. While nobody waits, none is taken.
"""

from __future__ import annotations

import threading

from udriver.drivers.epoll_thread import EpollThread
from udriver.drivers.fd_irqchip import EpollChip, FdIrqChip
from udriver.drivers.inline_chip import InlineChip
from udriver.drivers.signal_chip import SignalChip

__all__ = ["IRQCHIPS", "SelectChip"]


class SelectChip(EpollChip):
    """Interrupts land on a thread of their own, one for all lines of the chip."""

    name = "select"

    def _start(self) -> None:
        loop = EpollThread("irq/select", self._raise)
        loop.start()
        self._loop, self._epoll = loop, loop.epoll

    def _stop(self) -> None:
        self._loop.stop()

    def thread(self) -> threading.Thread | None:
        """The one of its own."""
        return self._loop.thread if self._started else None


IRQCHIPS: dict[str, FdIrqChip] = {
    chip.name: chip for chip in (SignalChip(), SelectChip(), InlineChip())
}
"""One of each kind for the process, by name; they hold nothing while they have no line."""
