# SPDX-License-Identifier: MIT
"""I4 to I6: handlers that are not ready, that live too long, that handle nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.checker.mistakes.case import LONG, TICK, Case, Device, line, run
from udriver.kernel.completion import (
    Completion,
    complete,
    reinit_completion,
    wait_for_completion_timeout,
)
from udriver.kernel.irq import (
    IRQ_HANDLED,
    IRQ_NONE,
    IRQF_SHARED,
    IrqReturn,
    free_irq,
    generic_handle_irq,
    irq_alloc_desc,
    irq_free_desc,
    request_irq,
)


class I4(Case):
    regs: Any

    def isr(self, irq: int, dev_id: Any) -> IrqReturn:
        return IrqReturn(self.regs["status"])  # 1st

    def mistake(self) -> None:
        irq = irq_alloc_desc("adc")
        request_irq(irq, self.isr, IRQF_SHARED, "adc", self)  # 2nd
        self.regs = {"status": 0}
        free_irq(irq, self)
        irq_free_desc(irq)

    def mended(self) -> None:
        self.regs = {"status": 0}
        with line(self.isr, self, IRQF_SHARED) as irq:
            generic_handle_irq(irq)


class I4_handles_all(Case):
    def isr(self, irq: int, dev_id: Any) -> IrqReturn:  # 1st
        return IRQ_HANDLED

    def right(self, irq: int, dev_id: Any) -> IrqReturn:
        return IRQ_NONE

    def mistake(self) -> None:
        irq = irq_alloc_desc("adc")
        request_irq(irq, self.isr, IRQF_SHARED, "adc", self)  # 2nd
        free_irq(irq, self)
        irq_free_desc(irq)

    def mended(self) -> None:
        with line(self.right, self, IRQF_SHARED):
            pass


class I4_not_its_own(Case):
    status = 0

    def isr(self, irq: int, x: Any) -> IrqReturn:
        complete(x)  # 1st
        return IRQ_HANDLED

    def right(self, irq: int, x: Any) -> IrqReturn:
        if not self.status:
            return IRQ_NONE
        self.status = 0
        complete(x)
        return IRQ_HANDLED

    def mistake(self) -> None:
        x = Completion("x")
        irq = irq_alloc_desc("adc")
        request_irq(irq, self.isr, IRQF_SHARED, "adc", x)  # 2nd
        free_irq(irq, x)
        irq_free_desc(irq)

    def mended(self) -> None:
        x = Completion("x")
        with line(self.right, x, IRQF_SHARED) as irq:
            self.status = 1
            generic_handle_irq(irq)
            assert wait_for_completion_timeout(x, LONG)


class I5(Case):
    def mistake(self) -> None:
        irq = irq_alloc_desc("adc")
        request_irq(irq, Device().isr, 0, "adc", 1)
        free_irq(irq, 1)  # 2nd
        with pytest.warns(match="already-free"):
            free_irq(irq, 1)  # 1st
        irq_free_desc(irq)

    def mended(self) -> None:
        with line(Device().isr, 1):
            pass


class I5_line_first(Case):
    def mistake(self) -> None:
        irq = irq_alloc_desc("adc")
        request_irq(irq, Device().isr, 0, "adc", 1)  # 2nd
        with pytest.raises(ValueError, match="still has a handler"):
            irq_free_desc(irq)  # 1st
        free_irq(irq, 1)
        irq_free_desc(irq)

    def mended(self) -> None:
        irq = irq_alloc_desc("adc")
        request_irq(irq, Device().isr, 0, "adc", 1)
        free_irq(irq, 1)
        irq_free_desc(irq)


class I5_completion_first(Case):
    def mistake(self) -> None:
        device = Device()
        irq = irq_alloc_desc("adc")
        with device.done:  # 1st
            request_irq(irq, device.isr, 0, "adc", device)  # 2nd
            run(generic_handle_irq, irq)
            assert wait_for_completion_timeout(device.done, LONG)
        free_irq(irq, device)
        irq_free_desc(irq)

    def mended(self) -> None:
        device = Device()
        with device.done, line(device.isr, device) as irq:
            run(generic_handle_irq, irq)
            assert wait_for_completion_timeout(device.done, LONG)


class I6(Case):
    def isr(self, irq: int, dev_id: Any) -> IrqReturn:  # 1st
        complete(dev_id)
        return IRQ_NONE

    def right(self, irq: int, dev_id: Any) -> IrqReturn:
        complete(dev_id)
        return IRQ_HANDLED

    def interrupts(self, irq: int, x: Completion) -> None:
        for _ in range(1100):
            reinit_completion(x)
            generic_handle_irq(irq)
            assert wait_for_completion_timeout(x, TICK)

    def mistake(self) -> None:
        x = Completion("x")
        irq = irq_alloc_desc("adc")
        request_irq(irq, self.isr, 0, "adc", x)  # 2nd
        self.interrupts(irq, x)
        free_irq(irq, x)
        irq_free_desc(irq)

    def mended(self) -> None:
        x = Completion("x")
        with line(self.right, x) as irq:
            self.interrupts(irq, x)
