# SPDX-License-Identifier: MIT
"""I1 to I3: lines that are waited for, switched off and on, and not quiet yet."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.checker.mistakes.case import Case, Device, line
from udriver.errors import ContextError
from udriver.kernel.completion import (
    Completion,
    complete,
)
from udriver.kernel.irq import (
    IRQ_HANDLED,
    IRQ_NONE,
    IRQ_WAKE_THREAD,
    IRQF_NO_AUTOEN,
    IRQF_SHARED,
    IrqReturn,
    disable_irq,
    disable_irq_nosync,
    enable_irq,
    free_irq,
    generic_handle_irq,
    irq_alloc_desc,
    irq_free_desc,
    request_irq,
    request_threaded_irq,
    synchronize_irq,
)


class I1(Case):
    def isr(self, irq: int, dev_id: Any) -> IrqReturn:
        with pytest.raises(ContextError):
            disable_irq(irq)  # 1st
        return IRQ_HANDLED

    def right(self, irq: int, dev_id: Any) -> IrqReturn:
        disable_irq_nosync(irq)
        return IRQ_HANDLED

    def mistake(self) -> None:
        irq = irq_alloc_desc("adc")
        request_irq(irq, self.isr, 0, "adc", 1)  # 2nd
        generic_handle_irq(irq)
        free_irq(irq, 1)
        irq_free_desc(irq)

    def mended(self) -> None:
        with line(self.right, 1) as irq:
            generic_handle_irq(irq)
            enable_irq(irq)


class I1_under_the_handlers_lock(Case):
    def isr(self, irq: int, lock: Any) -> IrqReturn:
        with lock:  # 2nd
            return IRQ_HANDLED

    def mistake(self) -> None:
        lock = threading.Lock()
        with line(self.isr, lock) as irq:
            generic_handle_irq(irq)
            with lock:
                synchronize_irq(irq)  # 1st

    def mended(self) -> None:
        lock = threading.Lock()
        with line(self.isr, lock) as irq:
            generic_handle_irq(irq)
            synchronize_irq(irq)
            with lock:
                pass


class I1_of_another_on_the_line(Case):
    """Who frees the thread's own action meanwhile holds the line's mutex and waits for the thread."""

    samples = 0

    def quick(self, irq: int, dev_id: Any) -> IrqReturn:
        if dev_id != "adc" or not self.samples:
            return IRQ_NONE
        self.samples -= 1
        return IRQ_WAKE_THREAD

    def thread_fn(self, irq: int, dev_id: Any) -> IrqReturn:
        free_irq(irq, "dac")  # 1st
        return IRQ_HANDLED

    def put_on(self, thread_fn: Any) -> int:
        irq = irq_alloc_desc("adc and dac")
        request_threaded_irq(irq, self.quick, thread_fn, IRQF_SHARED, "adc", "adc")  # 2nd
        request_irq(irq, self.quick, IRQF_SHARED, "dac", "dac")
        self.samples += 1
        generic_handle_irq(irq)
        synchronize_irq(irq)
        return irq

    def mistake(self) -> None:
        irq = self.put_on(self.thread_fn)
        free_irq(irq, "adc")
        irq_free_desc(irq)

    def mended(self) -> None:
        irq = self.put_on(lambda irq, dev_id: IRQ_HANDLED)
        free_irq(irq, "dac")
        free_irq(irq, "adc")
        irq_free_desc(irq)


class I2(Case):
    def mistake(self) -> None:
        with line(Device().isr, 1) as irq:
            disable_irq(irq)
            enable_irq(irq)  # 2nd
            with pytest.warns(match="unbalanced enable"):
                enable_irq(irq)  # 1st

    def mended(self) -> None:
        with line(Device().isr, 1) as irq:
            disable_irq(irq)
            disable_irq(irq)
            enable_irq(irq)
            enable_irq(irq)


class I2_never_on_again(Case):
    def configure(self, irq: int, *, fails: bool) -> bool:
        disable_irq(irq)  # 1st
        if fails:
            return False
        enable_irq(irq)
        return True

    def right(self, irq: int, *, fails: bool) -> bool:
        disable_irq(irq)
        try:
            return not fails
        finally:
            enable_irq(irq)

    def mistake(self) -> None:
        irq = irq_alloc_desc("adc")
        request_irq(irq, Device().isr, 0, "adc", 1)  # 2nd
        assert self.configure(irq, fails=False)
        assert not self.configure(irq, fails=True)
        self.irq = irq

    def afterwards(self) -> None:
        free_irq(self.irq, 1)
        irq_free_desc(self.irq)

    def mended(self) -> None:
        with line(Device().isr, 1) as irq:
            assert self.right(irq, fails=False)
            assert not self.right(irq, fails=True)


class LatchedChip:
    """A chip whose interrupt of an earlier life is still latched until it is acknowledged."""

    name = "latched"

    def __init__(self) -> None:
        self.latched = True

    def irq_mask(self, irq: int) -> None:
        pass

    def irq_unmask(self, irq: int) -> None:
        if self.latched:
            self.latched = False
            generic_handle_irq(irq)

    def acknowledge(self) -> None:
        self.latched = False


class I3(Case):
    def isr(self, irq: int, dev_id: Any) -> IrqReturn:
        complete(dev_id)  # 2nd
        return IRQ_HANDLED

    def mistake(self) -> None:
        x = Completion("x")
        irq = irq_alloc_desc("adc", LatchedChip())
        request_irq(irq, self.isr, 0, "adc", x)  # 1st
        free_irq(irq, x)
        irq_free_desc(irq)

    def mended(self) -> None:
        x, chip = Completion("x"), LatchedChip()
        irq = irq_alloc_desc("adc", chip)
        chip.acknowledge()
        request_irq(irq, self.isr, 0, "adc", x)
        free_irq(irq, x)
        irq_free_desc(irq)


class I3_pending_at_enable(Case):
    def mistake(self) -> None:
        device = Device()
        irq = irq_alloc_desc("adc")
        request_irq(irq, device.isr, IRQF_NO_AUTOEN, "adc", device)  # 1st
        generic_handle_irq(irq)
        enable_irq(irq)  # 2nd
        free_irq(irq, device)
        irq_free_desc(irq)

    def mended(self) -> None:
        device = Device()
        with line(device.isr, device, IRQF_NO_AUTOEN) as irq:
            enable_irq(irq)
            generic_handle_irq(irq)
