# SPDX-License-Identifier: MIT
"""M1 to M24: each mistake is caught, at its two lines and as nothing else; mended it is silent."""

from __future__ import annotations

import signal
import threading
from typing import Any

import pytest

from tests.checker.mistakes import WATCHDOG_S, Case, Device, beside, cases, line, run, spin
from udriver.checker import RULES, checking
from udriver.errors import ContextError, UDriverError
from udriver.kernel import sched
from udriver.kernel.annotation import (
    completion_shares,
    lock_set_class,
    operation,
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
    try_wait_for_completion,
    wait_for_completion,
    wait_for_completion_interruptible,
    wait_for_completion_interruptible_timeout,
    wait_for_completion_killable,
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
from udriver.kernel.sched import ERESTARTSYS, HZ, msecs_to_jiffies

TICK = msecs_to_jiffies(1)
LONG = 20 * HZ


def signalled() -> None:
    """A signal is pending for this task."""
    sched.send_sig(signal.SIGUSR1, sched.active().current())


def handled(result: int) -> bool:
    """Whether there was a token, properly asked."""
    return result > 0


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
    def transfer(self, x: Completion, timeout: int) -> bool:
        return handled(wait_for_completion_timeout(x, timeout))  # 1st

    def late(self, x: Completion) -> None:
        complete(x)  # 2nd

    def mistake(self) -> None:
        x = Completion("x")
        assert not self.transfer(x, TICK)
        run(self.late, x)
        assert self.transfer(x, LONG)

    def mended(self) -> None:
        x = Completion("x")
        assert not self.transfer(x, TICK)
        run(self.late, x)
        reinit_completion(x)
        run(complete, x)
        assert self.transfer(x, LONG)


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


class M6_below_zero(Case):
    def mistake(self) -> None:
        x = Completion("x")
        left = wait_for_completion_timeout(x, TICK)  # 2nd
        assert not left < 0  # 1st

    def mended(self) -> None:
        x = Completion("x")
        assert wait_for_completion_timeout(x, TICK) == 0


class M6_success_is_an_error(Case):
    def transfer(self, x: Completion) -> None:
        left = wait_for_completion_timeout(x, LONG)  # 2nd
        if left != 0:  # 1st
            raise OSError

    def right(self, x: Completion) -> None:
        left = wait_for_completion_timeout(x, LONG)
        if left == 0:
            raise OSError

    def mistake(self) -> None:
        x = Completion("x")
        complete(x)
        with pytest.raises(OSError):  # noqa: PT011
            self.transfer(x)

    def mended(self) -> None:
        x = Completion("x")
        complete(x)
        self.right(x)


class M6_truth_of_a_signal(Case):
    def mistake(self) -> None:
        x = Completion("x")
        signalled()
        left = wait_for_completion_interruptible_timeout(x, LONG)  # 2nd
        assert left  # 1st

    def mended(self) -> None:
        x = Completion("x")
        signalled()
        left = wait_for_completion_interruptible_timeout(x, LONG)
        assert left < 0


class M6_never_asked_for_a_signal(Case):
    def transfer(self, x: Completion) -> int:
        left = wait_for_completion_interruptible_timeout(x, LONG)  # 2nd
        if left == 0:  # 1st
            return -110
        return 0

    def right(self, x: Completion) -> int:
        left = wait_for_completion_interruptible_timeout(x, LONG)
        if left < 0:
            return left
        return 0 if left else -110

    def careful(self, x: Completion) -> int:
        left = wait_for_completion_interruptible_timeout(x, LONG)
        if left < 0:
            return left
        return -110 if left == 0 else 0

    def mistake(self) -> None:
        x = Completion("x")
        signalled()
        assert self.transfer(x) == 0

    def mended(self) -> None:
        x = Completion("x")
        signalled()
        assert self.careful(x) == -ERESTARTSYS


class M6_narrowed(Case):
    def mistake(self) -> None:
        x = Completion("x")
        signalled()
        left = wait_for_completion_interruptible_timeout(x, LONG)  # 2nd
        assert left & 0xFFFFFFFF  # 1st

    def mended(self) -> None:
        x = Completion("x")
        assert wait_for_completion_timeout(x, TICK) & 0xFFFFFFFF == 0


class M6_status(Case):
    def mistake(self) -> None:
        x = Completion("x")
        complete(x)
        status = wait_for_completion_killable(x)  # 2nd
        assert not status > 0  # 1st

    def mended(self) -> None:
        x = Completion("x")
        complete(x)
        status = wait_for_completion_killable(x)
        if status:
            raise InterruptedError


class M7(Case):
    def mistake(self) -> None:
        x = Completion("x")  # 2nd
        wait_for_completion_timeout(x, TICK)  # 1st

    def mended(self) -> None:
        x = Completion("x")
        if not wait_for_completion_timeout(x, TICK):
            return


class M7_interruptible(Case):
    def mistake(self) -> None:
        x = Completion("x")  # 2nd
        complete(x)
        wait_for_completion_interruptible(x)  # 1st

    def mended(self) -> None:
        x = Completion("x")
        complete(x)
        wait_for_completion(x)  # gives nothing


class M8_scope(Case):
    def mistake(self) -> None:
        device = Device()
        with line(device.isr, device), device.done as done:
            assert not wait_for_completion_timeout(done, TICK)  # 2nd
        (end,) = {1}  # 0th
        assert end

    def mended(self) -> None:
        device = Device()
        with device.done as done:
            with line(device.isr, device) as irq:
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
        with Completion("x") as x:
            with beside(self.wait, x, asleep=x):
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


class M10(Case):
    def isr(self, irq: int, dev_id: Any) -> IrqReturn:
        with pytest.raises(ContextError):
            wait_for_completion(dev_id)  # 1st
        return IRQ_HANDLED

    def right(self, irq: int, dev_id: Any) -> IrqReturn:
        try_wait_for_completion(dev_id)
        return IRQ_HANDLED

    def mistake(self) -> None:
        irq = irq_alloc_desc("adc")
        x = Completion("x")
        request_irq(irq, self.isr, 0, "adc", x)  # 2nd
        generic_handle_irq(irq)
        free_irq(irq, x)
        irq_free_desc(irq)

    def mended(self) -> None:
        x = Completion("x")
        with line(self.right, x) as irq:
            generic_handle_irq(irq)


class M10_spinlock(Case):
    def mistake(self) -> None:
        lock = lock_set_class(threading.Lock(), "dev->lock", spinlock=True)
        x = Completion("x")
        complete(x)
        with lock:  # 2nd
            assert wait_for_completion_timeout(x, LONG)  # 1st

    def mended(self) -> None:
        lock = lock_set_class(threading.Lock(), "dev->lock", spinlock=True)
        x = Completion("x")
        complete(x)
        with lock:
            assert try_wait_for_completion(x)


class M11(Case):
    def worker(self, x: Completion, lock: Any) -> None:
        with lock:  # 1st
            self.state = 1
        complete(x)

    def mistake(self) -> None:
        lock, x = threading.Lock(), Completion("x")
        run(self.worker, x, lock)
        with lock:
            assert wait_for_completion_timeout(x, LONG)  # 2nd

    def mended(self) -> None:
        lock, x = threading.Lock(), Completion("x")
        run(self.worker, x, lock)
        with lock:
            self.state = 2
        assert wait_for_completion_timeout(x, LONG)


class M11_irq_off(Case):
    def mistake(self) -> None:
        device = Device()
        with line(device.isr, device) as irq:
            generic_handle_irq(irq)
            disable_irq(irq)  # 2nd
            assert wait_for_completion_timeout(device.done, LONG)  # 1st
            enable_irq(irq)

    def mended(self) -> None:
        device = Device()
        with line(device.isr, device) as irq:
            generic_handle_irq(irq)
            disable_irq(irq)
            enable_irq(irq)
            assert wait_for_completion_timeout(device.done, LONG)


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


class Buffer:
    """What the waiter reads."""

    def __init__(self) -> None:
        self.status = 0


class M16(Case):
    def isr(self, irq: int, dev_id: Any) -> IrqReturn:
        complete(self.x)  # 2nd
        dev_id.status = 1  # 1st
        return IRQ_HANDLED

    def right(self, irq: int, dev_id: Any) -> IrqReturn:
        dev_id.status = 1
        complete(self.x)
        return IRQ_HANDLED

    def mistake(self) -> None:
        self.x, buffer = Completion("x"), Buffer()
        completion_shares(self.x, buffer)
        with line(self.isr, buffer) as irq:
            generic_handle_irq(irq)
        assert wait_for_completion_timeout(self.x, LONG)

    def mended(self) -> None:
        self.x, buffer = Completion("x"), Buffer()
        completion_shares(self.x, buffer)
        with line(self.right, buffer) as irq:
            generic_handle_irq(irq)
        assert wait_for_completion_timeout(self.x, LONG)
        buffer.status = 0


class M17(Case):
    def isr(self, irq: int, dev_id: Any) -> IrqReturn:
        complete(dev_id)  # 1st
        return IRQ_HANDLED

    def transfer(self, x: Completion) -> bool:
        return handled(wait_for_completion_timeout(x, TICK))  # 2nd

    def right(self, x: Completion, irq: int) -> bool:
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
        operation_stop(x)
        operation_start(x)
        assert not wait_for_completion_timeout(x, TICK)

    def mended(self) -> None:
        x = Completion("x")
        for _ in range(2):
            reinit_completion(x)
            with operation(x):
                assert not wait_for_completion_timeout(x, TICK)


class M18_zero(Case):
    def mistake(self) -> None:
        x = Completion("x")  # 2nd
        assert not wait_for_completion_timeout(x, 1 // 2 * HZ)  # 1st

    def mended(self) -> None:
        x = Completion("x")
        assert not wait_for_completion_timeout(x, max(1, HZ // 500))


class M18_bare(Case):
    def mistake(self) -> None:
        x = Completion("x")  # 2nd
        complete(x)
        assert wait_for_completion_timeout(x, 1000)  # 1st

    def mended(self) -> None:
        x = Completion("x")
        complete(x)
        assert wait_for_completion_timeout(x, HZ)


class M18_negative(Case):
    def mistake(self) -> None:
        x = Completion("x")  # 2nd
        complete(x)
        assert wait_for_completion_timeout(x, -TICK)  # 1st

    def mended(self) -> None:
        x = Completion("x")
        complete(x)
        assert wait_for_completion_timeout(x, TICK)


class M19(Case):
    def isr(self, irq: int, dev_id: Any) -> IrqReturn:
        complete(dev_id)  # 1st
        return IRQ_HANDLED

    def transfer(self, x: Completion) -> int:
        signalled()
        return wait_for_completion_interruptible(x)  # 2nd

    def right(self, x: Completion, irq: int) -> int:
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


class M23(Case):
    def wait(self, x: Completion) -> None:
        wait_for_completion(x)

    def mistake(self) -> None:
        x = Completion("x")
        with sched.using(Later()), beside(self.wait, x, asleep=x):
            complete_all(x)
            assert completion_done(x)  # 2nd
            reinit_completion(x)  # 1st
            complete_all(x)

    def mended(self) -> None:
        x = Completion("x")
        with beside(self.wait, x, asleep=x):
            complete_all(x)
        assert completion_done(x)
        reinit_completion(x)


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
