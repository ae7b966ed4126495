# SPDX-License-Identifier: MIT
"""A Linux userspace driver testbed on real hardware signals.

chip -> its fifo -> wire ====> tty -> irqchip -> isr -> kfifo -> complete() -> wait queue -> waiter

The driver side. Importing it opens nothing; the device side is the package ``udriver_hw``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from udriver.checker import checking
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
    "checking",
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

_WHERE = {
    "Busy": "udriver.errors",
    "Completion": "udriver.kernel.completion",
    "ContextError": "udriver.errors",
    "DeviceGone": "udriver.errors",
    "IRQ_HANDLED": "udriver.kernel.irq",
    "IRQ_NONE": "udriver.kernel.irq",
    "IRQ_WAKE_THREAD": "udriver.kernel.irq",
    "Line": "udriver.drivers.port",
    "Port": "udriver.drivers.port",
    "Stats": "udriver.drivers.usbserial",
    "Timeout": "udriver.errors",
    "UDriverError": "udriver.errors",
    "Unsupported": "udriver.errors",
    "UsbSerial": "udriver.drivers.usbserial",
    "checking": "udriver.checker",
    "complete": "udriver.kernel.completion",
    "complete_all": "udriver.kernel.completion",
    "completion_done": "udriver.kernel.completion",
    "free_irq": "udriver.kernel.irq",
    "reinit_completion": "udriver.kernel.completion",
    "request_irq": "udriver.kernel.irq",
    "try_wait_for_completion": "udriver.kernel.completion",
    "wait_for_completion": "udriver.kernel.completion",
    "wait_for_completion_timeout": "udriver.kernel.completion",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for: the command line has to start in no time."""
    if name not in _WHERE:
        raise AttributeError(f"module 'udriver' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_WHERE[name]), name)
    return value
