# SPDX-License-Identifier: MIT
"""The TX-empty interrupt. No tty has one for its users, so a thread looks and raises the line.

tcdrain(3) would wait as long, but cannot be cancelled, and says 0 after an unplug.
"""

from __future__ import annotations

import threading
import time

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

CHIP_FIFO = 4096  # bytes; more than any USB-serial chip has behind the kernel's queue


class Transmitter:
    """A software line that is raised when the transmitter of ``port`` is empty.

    Its handler completes ``tx_empty``. The thread sleeps as long as what is queued takes at this
    baud rate, at least 1 ms and at most 100 ms, and looks again.
    """

    def __init__(self, port: Port, tx_empty: Completion) -> None:
        self._port = port
        self._tx_empty = tx_empty
        self._asked = 0
        self.answered = 0
        self._armed = Completion(f"tx_empty of {port.name} armed")
        self._stopped = Completion(f"tx_empty of {port.name} stopped")
        self.irq = irq_alloc_desc(f"{port.name} tx_empty")
        request_irq(self.irq, self._isr, 0, f"{port.name} tx_empty", self)
        self._kthread = threading.Thread(target=self._watch, name="irq/tx_empty", daemon=True)
        self._kthread.start()

    def arm(self) -> int:
        """Raise the line once the transmitter is empty; give the number ``answered`` will reach."""
        self._asked += 1
        complete(self._armed)
        return self._asked

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
            asked = self._asked  # before the look: what is written later is another's to ask for
            try:
                self._wait_until_sent()
            except OSError:
                continue  # gone: the driver's own line tells everybody
            self.answered = asked
            generic_handle_irq(self.irq)

    def _wait_until_sent(self) -> None:
        line = self._port.line
        longest = None if line.rtscts or line.xonxoff else CHIP_FIFO * line.char_time
        handed_over = None
        while not self._port.transmitter_empty() and not self._pause():
            if self._port.out_waiting():
                handed_over = None
                continue
            # the kernel holds nothing any more; a chip whose TEMT never comes (QEMU's FT232) is not
            # waited for longer than the largest one needs, unless flow control may hold it
            handed_over = handed_over or time.monotonic()
            if longest is not None and time.monotonic() - handed_over > longest:
                return

    def _pause(self) -> bool:
        """Sleep about as long as the queue needs; true if it was cut short by stop()."""
        line = self._port.line
        needed = self._port.out_waiting() * line.char_time
        try:
            return self._stopped.wait(min(max(needed, 0.001), 0.1))
        except TimeoutError:
            return False
