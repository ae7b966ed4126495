# SPDX-License-Identifier: MIT
"""M15, M17, M19, M21: how an operation ends."""

from __future__ import annotations

from typing import Any

from tests.checker.mistakes.case import (
    LONG,
    TICK,
    Case,
    Device,
    beside,
    handled,
    line,
    signalled,
    spin,
)
from udriver.kernel.annotation import (
    operation,
    operation_start,
    operation_stop,
)
from udriver.kernel.completion import (
    Completion,
    complete,
    completion_done,
    reinit_completion,
    wait_for_completion,
    wait_for_completion_interruptible,
    wait_for_completion_timeout,
)
from udriver.kernel.irq import (
    IRQ_HANDLED,
    IrqReturn,
    disable_irq,
    enable_irq,
    free_irq,
    generic_handle_irq,
    irq_alloc_desc,
    irq_free_desc,
    request_irq,
)
from udriver.kernel.sched import ERESTARTSYS


class M15_stopped(Case):
    def wait(self, x: Completion) -> None:
        assert not wait_for_completion_timeout(x, TICK * 50)  # 2nd

    def right(self, x: Completion) -> None:
        assert wait_for_completion_timeout(x, LONG)

    def mistake(self) -> None:
        x = Completion("x")
        operation_start(x)
        with beside(self.wait, x, asleep=x):
            operation_stop(x)  # 1st

    def mended(self) -> None:
        x = Completion("x")
        operation_start(x)
        with beside(self.right, x, asleep=x):
            complete(x)
            operation_stop(x)


class M15_untimed(Case):
    def mistake(self) -> None:
        device = Device()
        irq = irq_alloc_desc("adc")
        request_irq(irq, device.isr, 0, "adc", device)  # 2nd
        generic_handle_irq(irq)
        wait_for_completion(device.done)  # 1st
        free_irq(irq, device)
        irq_free_desc(irq)

    def mended(self) -> None:
        device = Device()
        with line(device.isr, device) as irq:
            generic_handle_irq(irq)
            assert wait_for_completion_timeout(device.done, LONG)


class M15_error_path(Case):
    failed = False

    def isr(self, irq: int, dev_id: Any) -> IrqReturn:  # 2nd
        if not self.failed:
            complete(dev_id)
        return IRQ_HANDLED

    def right(self, irq: int, dev_id: Any) -> IrqReturn:
        complete(dev_id)
        return IRQ_HANDLED

    def mistake(self) -> None:
        x = Completion("x")
        with line(self.isr, x) as irq:
            generic_handle_irq(irq)
            assert wait_for_completion_timeout(x, LONG)
            self.failed = True

            def fail() -> None:
                spin(lambda: len(x.wait_queue))
                generic_handle_irq(irq)

            with beside(fail):
                assert not wait_for_completion_timeout(x, TICK * 100)  # 1st

    def mended(self) -> None:
        x = Completion("x")
        with line(self.right, x) as irq:

            def fail() -> None:
                spin(lambda: len(x.wait_queue))
                generic_handle_irq(irq)

            with beside(fail):
                assert wait_for_completion_timeout(x, LONG)


class M17(Case):
    def isr(self, irq: int, dev_id: Any) -> IrqReturn:
        complete(dev_id)  # 1st
        return IRQ_HANDLED

    def transfer(self, x: Completion) -> bool:
        reinit_completion(x)
        return handled(wait_for_completion_timeout(x, TICK))  # 2nd

    def right(self, x: Completion, irq: int) -> bool:
        reinit_completion(x)
        if handled(wait_for_completion_timeout(x, TICK)):
            return True
        disable_irq(irq)
        done = completion_done(x)
        enable_irq(irq)
        return done

    def mistake(self) -> None:
        x = Completion("x")
        with line(self.isr, x) as irq:
            assert not self.transfer(x)
            generic_handle_irq(irq)

    def mended(self) -> None:
        x = Completion("x")
        with line(self.isr, x) as irq:
            assert not self.right(x, irq)
            generic_handle_irq(irq)


class M17_buffer_reused(Case):
    def mistake(self) -> None:
        x = Completion("x")
        operation_start(x)
        assert not wait_for_completion_timeout(x, TICK)  # 2nd
        reinit_completion(x)
        operation_start(x)  # 1st
        complete(x)

    def mended(self) -> None:
        x = Completion("x")
        for _ in range(2):
            reinit_completion(x)
            with operation(x):
                assert not wait_for_completion_timeout(x, TICK)


class M19(Case):
    def isr(self, irq: int, dev_id: Any) -> IrqReturn:
        complete(dev_id)  # 1st
        return IRQ_HANDLED

    def transfer(self, x: Completion) -> int:
        reinit_completion(x)
        signalled()
        return wait_for_completion_interruptible(x)  # 2nd

    def right(self, x: Completion, irq: int) -> int:
        reinit_completion(x)
        signalled()
        status = wait_for_completion_interruptible(x)
        if status:
            disable_irq(irq)
            enable_irq(irq)
        return status

    def mistake(self) -> None:
        x = Completion("x")
        with line(self.isr, x) as irq:
            assert self.transfer(x) == -ERESTARTSYS
            generic_handle_irq(irq)

    def mended(self) -> None:
        x = Completion("x")
        with line(self.isr, x) as irq:
            assert self.right(x, irq) == -ERESTARTSYS
            generic_handle_irq(irq)


class M19_annotated(Case):
    def transfer(self, x: Completion) -> int:
        operation_start(x)  # 2nd
        signalled()
        return wait_for_completion_interruptible(x)  # 1st

    def right(self, x: Completion) -> int:
        signalled()
        with operation(x):
            return wait_for_completion_interruptible(x)

    def mistake(self) -> None:
        self.x = Completion("x")
        assert self.transfer(self.x) == -ERESTARTSYS

    def mended(self) -> None:
        self.x = Completion("x")
        assert self.right(self.x) == -ERESTARTSYS


class M21(Case):
    def mistake(self) -> None:
        x = Completion("x")
        operation_start(x, "read")  # 2nd
        operation_start(x, "write")  # 1st

    def mended(self) -> None:
        x, y = Completion("x"), Completion("y")
        operation_start(x, "read")
        operation_start(y, "write")


class M21_wrong_one(Case):
    def device(self, x: Completion, y: Completion) -> None:
        spin(lambda: len(y.wait_queue))
        complete(x)

    def mistake(self) -> None:
        enumerated, initialised = Completion("enumerated"), Completion("initialised")
        operation_start(initialised)  # 2nd
        with beside(self.device, initialised, enumerated):
            assert not wait_for_completion_timeout(enumerated, TICK * 100)  # 1st

    def mended(self) -> None:
        initialised = Completion("initialised")
        operation_start(initialised)
        with beside(self.device, initialised, initialised):
            assert wait_for_completion_timeout(initialised, LONG)
