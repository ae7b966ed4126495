# SPDX-License-Identifier: MIT
"""M10, M11, M16: what the waiter and the completer hold, and what they write."""

from __future__ import annotations

import functools
import threading
from typing import Any

import pytest

from tests.checker.mistakes.case import LONG, TICK, Case, Device, beside, line, run, spin
from udriver.errors import ContextError
from udriver.kernel.annotation import (
    completion_shares,
    lock_set_class,
)
from udriver.kernel.completion import (
    Completion,
    complete,
    reinit_completion,
    try_wait_for_completion,
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
        with lock:  # 2nd
            self.state = 1
        complete(x)

    def mistake(self) -> None:
        lock, x = threading.Lock(), Completion("x")
        run(self.worker, x, lock)
        with lock:
            assert wait_for_completion_timeout(x, LONG)  # 1st

    def mended(self) -> None:
        lock, x = threading.Lock(), Completion("x")
        run(self.worker, x, lock)
        with lock:
            self.state = 2
        assert wait_for_completion_timeout(x, LONG)


class M11_seen_as_it_happens(Case):
    def worker(self, x: Completion, lock: Any) -> None:
        with lock:  # 2nd
            self.state = 1
        complete(x)

    def mistake(self) -> None:
        lock, x = threading.Lock(), Completion("x")
        lock.acquire()
        with beside(self.worker, x, lock):
            assert not wait_for_completion_timeout(x, TICK * 20)  # 1st
            lock.release()

    def mended(self) -> None:
        lock, x = threading.Lock(), Completion("x")
        with lock:
            self.state = 2
        with beside(self.worker, x, lock):
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


class M16_after_the_waiter_is_back(Case):
    def worker(self, buffer: Any, *, late: bool) -> None:
        if not late:
            buffer.status = 1
        complete(self.x)  # 2nd
        spin(lambda: self.back)
        if late:
            buffer.status = 1  # 1st

    def drive(self, *, late: bool) -> None:
        self.x, self.back, buffer = Completion("x"), False, Buffer()
        completion_shares(self.x, buffer)
        for _ in range(2):  # the second thread may have the number of the first
            reinit_completion(self.x)
            with beside(functools.partial(self.worker, buffer, late=late)):
                assert wait_for_completion_timeout(self.x, LONG)
                self.back = True
            buffer.status = 0

    def mistake(self) -> None:
        self.drive(late=True)

    def mended(self) -> None:
        self.drive(late=False)
