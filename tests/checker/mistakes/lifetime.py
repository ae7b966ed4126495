# SPDX-License-Identifier: MIT
"""M1, M2, M8, M9, M20, M23: from init_completion() to the end of its scope."""

from __future__ import annotations

from typing import Any

import pytest

from tests.checker.mistakes.case import (
    TICK,
    Case,
    Device,
    Later,
    beside,
    line,
    spin,
)
from udriver.errors import UDriverError
from udriver.kernel import sched
from udriver.kernel.annotation import (
    operation_start,
    operation_stop,
)
from udriver.kernel.completion import (
    COMPLETION_INITIALIZER_ONSTACK,
    DECLARE_COMPLETION,
    DECLARE_COMPLETION_ONSTACK,
    Completion,
    complete,
    complete_all,
    completion_done,
    init_completion,
    reinit_completion,
    wait_for_completion,
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


class M1_requested_first(Case):
    def mistake(self) -> None:
        def isr(irq: int, dev_id: Any) -> IrqReturn:
            complete(done)
            return IRQ_HANDLED

        irq = irq_alloc_desc("adc")
        request_irq(irq, isr, 0, "adc", 1)  # 2nd
        done = Completion("done")  # 1st
        generic_handle_irq(irq)
        free_irq(irq, 1)
        irq_free_desc(irq)

    def mended(self) -> None:
        def isr(irq: int, dev_id: Any) -> IrqReturn:
            complete(done)
            return IRQ_HANDLED

        irq = irq_alloc_desc("adc")
        done = Completion("done")
        request_irq(irq, isr, 0, "adc", 1)
        generic_handle_irq(irq)
        free_irq(irq, 1)
        irq_free_desc(irq)


class M1_in_probe(Case):
    class Driver(Device):
        def __init__(self) -> None:
            self.irq = irq_alloc_desc("adc")
            request_irq(self.irq, self.isr, 0, "adc", self)  # 2nd
            self.set_up()

        def set_up(self) -> None:
            self.done = Completion("done")  # 1st

    class Better(Device):
        def __init__(self) -> None:
            self.irq = irq_alloc_desc("adc")
            self.done = Completion("done")
            request_irq(self.irq, self.isr, 0, "adc", self)

    def drive(self, kind: Any) -> None:
        driver = kind()
        generic_handle_irq(driver.irq)
        free_irq(driver.irq, driver)
        irq_free_desc(driver.irq)

    def mistake(self) -> None:
        self.drive(self.Driver)

    def mended(self) -> None:
        self.drive(self.Better)


class M1_no_init(Case):
    class Event(Completion):
        def __init__(self, number: int) -> None:  # 2nd
            self.number = number

    class Better(Completion):
        def __init__(self, number: int) -> None:
            super().__init__(f"event {number}")

    def mistake(self) -> None:
        with pytest.raises(AttributeError):
            complete(self.Event(1))  # 1st

    def mended(self) -> None:
        complete(self.Better(1))


class M2(Case):
    def mistake(self) -> None:
        x = Completion("x")  # 2nd
        complete(x)
        init_completion(x)  # 1st

    def mended(self) -> None:
        x = Completion("x")
        init_completion(x)  # before anybody has used it
        complete(x)
        reinit_completion(x)


class M2_waiter(Case):
    def wait(self, x: Completion) -> None:
        assert wait_for_completion_timeout(x, TICK * 20) <= 1  # 2nd

    def mistake(self) -> None:
        x = Completion("x")
        with beside(self.wait, x, asleep=x):
            init_completion(x)  # 1st

    def mended(self) -> None:
        x = Completion("x")
        with beside(self.wait, x, asleep=x):
            pass
        reinit_completion(x)


class M8_scope(Case):
    def mistake(self) -> None:
        device = Device()
        with line(device.isr, device), device.done as done:  # 1st
            assert not wait_for_completion_timeout(done, TICK)  # 2nd

    def mended(self) -> None:
        device = Device()
        with device.done as done, line(device.isr, device) as irq:
            assert not wait_for_completion_timeout(done, TICK)
            disable_irq(irq)
            assert not completion_done(done)
            enable_irq(irq)


class M8_stack(Case):
    def transfer(self, device: Device) -> None:
        device.done = DECLARE_COMPLETION_ONSTACK("transfer")  # 2nd

    def mistake(self) -> None:
        device = Device()
        self.transfer(device)
        complete(device.done)  # 1st

    def mended(self) -> None:
        device = Device()
        device.done = DECLARE_COMPLETION_ONSTACK("transfer")
        complete(device.done)


class M8_freed(Case):
    def mistake(self) -> None:
        x = Completion("x")
        operation_start(x)  # 2nd
        assert not wait_for_completion_timeout(x, TICK)  # 1st
        del x

    def mended(self) -> None:
        x = Completion("x")
        operation_start(x)
        assert not wait_for_completion_timeout(x, TICK)
        operation_stop(x)
        del x


class M9_waiter(Case):
    def wait(self, x: Completion) -> None:
        wait_for_completion(x)  # 2nd

    def mistake(self) -> None:
        x = Completion("x")
        with beside(self.wait, x, asleep=x):
            with pytest.raises(UDriverError, match="still waits"):
                x.__exit__()  # 1st
            x.__enter__()
            complete(x)

    def mended(self) -> None:
        with Completion("x") as x, beside(self.wait, x, asleep=x):
            complete(x)


class M9_polled(Case):
    def mistake(self) -> None:
        x = Completion("x")
        with beside(complete, x):
            spin(lambda: x.done)  # 2nd
        x.__exit__()  # 1st

    def mended(self) -> None:
        x = Completion("x")
        with beside(complete, x):
            spin(lambda: completion_done(x))
        x.__exit__()


class M20(Case):
    def mistake(self) -> None:  # 2nd
        x = DECLARE_COMPLETION("x")  # 1st
        complete(x)

    def mended(self) -> None:
        x = DECLARE_COMPLETION_ONSTACK("x")
        complete(x)
        y = COMPLETION_INITIALIZER_ONSTACK("y")
        complete(y)
        self.z = DECLARE_COMPLETION("z")
        w = DECLARE_COMPLETION("w")
        self.w = w


class M23(Case):
    def wait(self, x: Completion) -> None:
        wait_for_completion(x)

    def mistake(self) -> None:
        x = Completion("x")
        later = Later()
        with sched.using(later), beside(self.wait, x, asleep=x):
            complete_all(x)
            assert completion_done(x)  # 2nd
            reinit_completion(x)  # 1st
            complete_all(x)
            later.gate.set()

    def mended(self) -> None:
        x = Completion("x")
        with beside(self.wait, x, asleep=x):
            complete_all(x)
        assert completion_done(x)
        reinit_completion(x)
