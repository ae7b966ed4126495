# SPDX-License-Identifier: MIT
"""A Linux userspace driver testbed on real hardware signals.

chip -> its fifo -> wire ====> tty -> irqchip -> isr -> kfifo -> complete() -> wait queue -> waiter

The driver side. Importing it opens nothing; the device side is the package ``udriver_hw``.
"""

from udriver.drivers.port import Line, Port
from udriver.drivers.usbserial import Stats, UsbSerial
from udriver.errors import Busy, ContextError, DeviceGone, Timeout, UDriverError, Unsupported
from udriver.kernel.completion import (
    Completion,
    complete,
    complete_all,
    completion_done,
    reinit_completion,
    try_wait_for_completion,
    wait_for_completion,
    wait_for_completion_timeout,
)
from udriver.kernel.irq import IRQ_HANDLED, IRQ_NONE, IRQ_WAKE_THREAD, free_irq, request_irq

__all__ = [
    "IRQ_HANDLED",
    "IRQ_NONE",
    "IRQ_WAKE_THREAD",
    "Busy",
    "Completion",
    "ContextError",
    "DeviceGone",
    "Line",
    "Port",
    "Stats",
    "Timeout",
    "UDriverError",
    "Unsupported",
    "UsbSerial",
    "complete",
    "complete_all",
    "completion_done",
    "free_irq",
    "reinit_completion",
    "request_irq",
    "try_wait_for_completion",
    "wait_for_completion",
    "wait_for_completion_timeout",
]

__version__ = "0.1.0"
