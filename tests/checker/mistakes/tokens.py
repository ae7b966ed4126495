# SPDX-License-Identifier: MIT
"""M3, M4, M5, M12, M13, M14, M22, M24: which token is whose."""

from __future__ import annotations

from errno import ETIMEDOUT
from typing import Any

from tests.checker.mistakes.case import (
    LONG,
    TICK,
    Case,
    beside,
    line,
    run,
)
from udriver.kernel.annotation import (
    operation_start,
    operation_stop,
)
from udriver.kernel.completion import (
    Completion,
    complete,
    complete_all,
    completion_done,
    reinit_completion,
    wait_for_completion,
    wait_for_completion_timeout,
)
from udriver.kernel.irq import (
    IRQ_HANDLED,
    IrqReturn,
    generic_handle_irq,
)


class M3_annotated(Case):
    def mistake(self) -> None:
        x = Completion("x")
        complete(x)  # 2nd
        operation_start(x)
        assert wait_for_completion_timeout(x, LONG)  # 1st

    def mended(self) -> None:
        x = Completion("x")
        complete(x)
        reinit_completion(x)
        operation_start(x)
        complete(x)
        assert wait_for_completion_timeout(x, LONG)


class M3_after_a_timeout(Case):
    def transfer(self, x: Completion, timeout: int) -> int:
        left = wait_for_completion_timeout(x, timeout)  # 1st
        if left == 0:
            return -ETIMEDOUT
        return 0

    def late(self, x: Completion) -> None:
        complete(x)  # 2nd

    def mistake(self) -> None:
        x = Completion("x")
        assert self.transfer(x, TICK) == -ETIMEDOUT
        run(self.late, x)
        assert self.transfer(x, LONG) == 0

    def mended(self) -> None:
        x = Completion("x")
        assert self.transfer(x, TICK) == -ETIMEDOUT
        run(self.late, x)
        reinit_completion(x)
        run(complete, x)
        assert self.transfer(x, LONG) == 0


class M3_started_again(Case):
    def mistake(self) -> None:
        x = Completion("x")
        operation_start(x)
        assert not wait_for_completion_timeout(x, TICK)  # 2nd
        operation_stop(x)
        operation_start(x)  # 1st

    def mended(self) -> None:
        x = Completion("x")
        operation_start(x)
        assert not wait_for_completion_timeout(x, TICK)
        operation_stop(x)
        reinit_completion(x)
        operation_start(x)


class M4(Case):
    def mistake(self) -> None:
        x = Completion("x")
        operation_start(x)  # 2nd
        complete(x)
        reinit_completion(x)  # 1st
        operation_stop(x)

    def mended(self) -> None:
        x = Completion("x")
        reinit_completion(x)
        operation_start(x)
        complete(x)
        assert wait_for_completion_timeout(x, LONG)


class M4_not_annotated(Case):
    def device(self, x: Completion) -> None:
        complete(x)  # 2nd

    def mistake(self) -> None:
        x = Completion("x")
        run(self.device, x)
        reinit_completion(x)  # 1st
        assert not wait_for_completion_timeout(x, TICK)

    def mended(self) -> None:
        x = Completion("x")
        reinit_completion(x)
        run(self.device, x)
        assert wait_for_completion_timeout(x, TICK)


class M5(Case):
    def wait(self, x: Completion) -> None:
        wait_for_completion(x)  # 2nd

    def mistake(self) -> None:
        x = Completion("x")
        with beside(self.wait, x, asleep=x):
            reinit_completion(x)  # 1st
            complete(x)

    def mended(self) -> None:
        x = Completion("x")
        with beside(self.wait, x, asleep=x):
            complete(x)
        reinit_completion(x)


class M12(Case):
    def isr(self, irq: int, dev_id: Any) -> IrqReturn:
        complete(dev_id)  # 1st, 2nd
        return IRQ_HANDLED

    def careful(self, irq: int, dev_id: Any) -> IrqReturn:
        if not completion_done(dev_id):
            complete(dev_id)
        return IRQ_HANDLED

    def mistake(self) -> None:
        x = Completion("x")
        reinit_completion(x)
        with line(self.isr, x) as irq:
            generic_handle_irq(irq)
            generic_handle_irq(irq)

    def mended(self) -> None:
        x = Completion("x")
        reinit_completion(x)
        with line(self.careful, x) as irq:
            generic_handle_irq(irq)
            generic_handle_irq(irq)


class M12_more_than_operations(Case):
    def mistake(self) -> None:
        x = Completion("x")
        operation_start(x)
        complete(x)  # 2nd
        assert wait_for_completion_timeout(x, LONG)
        complete(x)  # 1st

    def mended(self) -> None:
        x = Completion("x")
        for _ in range(2):
            operation_start(x)
            complete(x)
            assert wait_for_completion_timeout(x, LONG)


class M13(Case):
    def mistake(self) -> None:
        x = Completion("x")
        complete_all(x)  # 2nd
        complete_all(x)  # 1st

    def mended(self) -> None:
        x = Completion("x")
        complete_all(x)
        reinit_completion(x)
        complete_all(x)


class M13_complete(Case):
    def mistake(self) -> None:
        x = Completion("x")
        complete_all(x)  # 2nd
        complete(x)  # 1st

    def mended(self) -> None:
        x = Completion("x")
        complete(x)
        complete_all(x)


class M14(Case):
    def wait(self, x: Completion, timeout: int) -> None:
        assert wait_for_completion_timeout(x, timeout) >= 0 or True

    def patient(self, x: Completion) -> None:
        assert wait_for_completion_timeout(x, LONG) > 0

    def left_behind(self, x: Completion) -> None:
        assert wait_for_completion_timeout(x, TICK * 100) <= LONG  # 2nd

    def mistake(self) -> None:
        x = Completion("x")
        with beside(self.patient, x, asleep=x), beside(self.left_behind, x, asleep=x):
            complete(x)  # 1st

    def mended(self) -> None:
        x = Completion("x")
        with beside(self.patient, x, asleep=x), beside(self.left_behind, x, asleep=x):
            complete_all(x)


class M14_complete_all(Case):
    def mistake(self) -> None:
        x = Completion("x")
        operation_start(x)
        complete_all(x)  # 2nd
        assert wait_for_completion_timeout(x, LONG)
        operation_start(x)
        assert wait_for_completion_timeout(x, LONG)  # 1st

    def mended(self) -> None:
        x = Completion("x")
        for _ in range(2):
            operation_start(x)
            complete(x)
            assert wait_for_completion_timeout(x, LONG)


class M22(Case):
    def mistake(self) -> None:
        x = Completion("x")
        operation_start(x, 17)
        complete(x)  # 2nd
        complete(x)  # 1st

    def mended(self) -> None:
        x = Completion("x")
        operation_start(x, 17)
        complete(x)
        assert wait_for_completion_timeout(x, LONG)
        operation_start(x, 18)
        complete(x)


class M24_write(Case):
    def mistake(self) -> None:
        x = Completion("x")  # 2nd
        x.done = 1  # 1st

    def mended(self) -> None:
        x = Completion("x")
        complete(x)


class M24_two_completers(Case):
    def timeout_path(self, x: Completion) -> None:
        complete(x)  # 1st

    def mistake(self) -> None:
        x = Completion("x")
        reinit_completion(x)
        complete(x)  # 2nd
        run(self.timeout_path, x)

    def mended(self) -> None:
        x = Completion("x")
        reinit_completion(x)
        complete(x)
        assert wait_for_completion_timeout(x, LONG)
        run(self.timeout_path, x)
