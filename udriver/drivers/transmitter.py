# SPDX-License-Identifier: MIT
"""The TX-empty interrupt. No tty has one for its users, so a thread looks and raises the line.

tcdrain(3) would wait as long, but cannot be cancelled, and says 0 after an unplug.
"""

from __future__ import annotations

import threading

from udriver.drivers.port import Port
from udriver.kernel.completion import Completion, complete
from udriver.kernel.irq import (
    IRQ_HANDLED,
    IrqReturn,
    free_irq,
    generic_handle_irq,
    irq_alloc_desc,
    irq_free_desc,
    request_irq,
)

__all__ = ["Transmitter"]


class Transmitter:
    """A software line that is raised when the transmitter of ``port`` is empty.

    Its handler completes ``tx_empty``. The thread sleeps as long as what is queued takes at this
    baud rate, at least 1 ms and at most 100 ms, and looks again.
    """

    def __init__(self, port: Port, tx_empty: Completion) -> None:
        self._port = port
        self._tx_empty = tx_empty
        self._armed = Completion(f"tx_empty of {port.name} armed")
        self._stopped = Completion(f"tx_empty of {port.name} stopped")
        self.irq = irq_alloc_desc(f"{port.name} tx_empty")
        request_irq(self.irq, self._isr, 0, f"{port.name} tx_empty", self)
        self._kthread = threading.Thread(target=self._watch, name="irq/tx_empty", daemon=True)
        self._kthread.start()

    def arm(self) -> None:
        """Raise the line once, when the transmitter is empty."""
        complete(self._armed)

    def stop(self) -> None:
        """End the thread and the line."""
        self._stopped.complete_all()
        complete(self._armed)
        self._kthread.join()
        free_irq(self.irq, self)
        irq_free_desc(self.irq)

    def _isr(self, irq: int, dev_id: object) -> IrqReturn:
        complete(self._tx_empty)
        return IRQ_HANDLED

    def _watch(self) -> None:
        while self._armed.wait() and not self._stopped.done:
            try:
                while not self._port.transmitter_empty() and not self._pause():
                    pass
            except OSError:
                continue  # gone: the driver's own line tells everybody
            generic_handle_irq(self.irq)

    def _pause(self) -> bool:
        """Sleep about as long as the queue needs; true if it was cut short by stop()."""
        line = self._port.line
        needed = self._port.out_waiting() * line.bits_per_char / line.baudrate
        try:
            return self._stopped.wait(min(max(needed, 0.001), 0.1))
        except TimeoutError:
            return False
