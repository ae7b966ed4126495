# SPDX-License-Identifier: MIT
"""Handlers and locks as drivers have them, and right; see test_correct_waits.py."""

from __future__ import annotations

import threading
from errno import ETIMEDOUT
from typing import Any

import pytest

from tests.checker.mistakes.case import LONG, WATCHDOG_S, Device, beside, line, spin
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
from udriver.kernel.irq import (
    IRQ_HANDLED,
    IRQ_NONE,
    IRQ_WAKE_THREAD,
    IRQF_ONESHOT,
    IrqReturn,
    disable_irq,
    enable_irq,
    free_irq,
    generic_handle_irq,
    irq_alloc_desc,
    irq_free_desc,
    request_irq,
    request_threaded_irq,
)
from udriver.kernel.sched import HZ

pytestmark = [
    pytest.mark.timeout(WATCHDOG_S * 2, method="thread"),
    pytest.mark.udriver_unchecked("it checks"),
    pytest.mark.usefixtures("silent"),
]


class TwoEvents:
    """A status register with a bit for each of two events."""

    def __init__(self) -> None:
        self.status = 0
        self.rx, self.tx = Completion("rx"), Completion("tx")

    def isr(self, irq: int, dev_id: Any) -> IrqReturn:
        """Complete what the bits say."""
        status, self.status = self.status, 0
        if status & 1:
            complete(self.rx)
        if status & 2:
            complete(self.tx)
        return IRQ_HANDLED if status else IRQ_NONE


def test_another_event_comes_while_this_one_times_out() -> None:
    device = TwoEvents()

    def rx() -> None:
        spin(lambda: len(device.tx.wait_queue))
        device.status = 1
        generic_handle_irq(irq)

    with line(device.isr, device) as irq:
        device.status = 2
        generic_handle_irq(irq)
        assert wait_for_completion_timeout(device.tx, LONG)
        with beside(rx):
            assert not wait_for_completion_timeout(device.tx, HZ // 20)
        disable_irq(irq)
        assert not completion_done(device.tx)
        enable_irq(irq)
        assert wait_for_completion_timeout(device.rx, LONG)


def test_a_frame_that_takes_several_interrupts_and_stays_incomplete() -> None:
    x, bytes_in = Completion("frame"), 0

    def isr(irq: int, dev_id: Any) -> IrqReturn:
        nonlocal bytes_in
        bytes_in += 1
        if bytes_in % 3 == 0:
            complete(x)
        return IRQ_HANDLED

    def one_byte() -> None:
        spin(lambda: len(x.wait_queue))
        generic_handle_irq(irq)

    with line(isr, 1) as irq:
        for _ in range(3):
            generic_handle_irq(irq)
        assert wait_for_completion_timeout(x, LONG)
        with beside(one_byte):
            assert not wait_for_completion_timeout(x, HZ // 20)


def test_a_completion_for_each_request() -> None:
    queue: list[Completion] = []

    def isr(irq: int, dev_id: Any) -> IrqReturn:
        if not queue:
            return IRQ_NONE
        complete(queue.pop())
        return IRQ_HANDLED

    with line(isr, 1) as irq:
        for number in range(3):
            with Completion(f"request {number}") as request:
                queue.append(request)
                generic_handle_irq(irq)
                assert wait_for_completion_timeout(request, LONG)


def test_one_request_at_a_time_in_an_attribute() -> None:
    class Driver:
        current: Completion | None = None

        def isr(self, irq: int, dev_id: Any) -> IrqReturn:
            request, self.current = self.current, None
            if request is None:
                return IRQ_NONE
            complete(request)
            return IRQ_HANDLED

    driver = Driver()
    with line(driver.isr, driver) as irq:
        for _ in range(3):
            driver.current = request = Completion("request")
            generic_handle_irq(irq)
            assert wait_for_completion_timeout(request, LONG)


def test_a_timeout_that_is_cleaned_up_in_finally() -> None:
    device = Device()

    def transfer() -> None:
        reinit_completion(device.done)
        try:
            if not wait_for_completion_timeout(device.done, HZ // 500):
                raise TimeoutError
        finally:
            disable_irq(irq)
            enable_irq(irq)

    with line(device.isr, device) as irq:
        with pytest.raises(TimeoutError):
            transfer()
        generic_handle_irq(irq)
        assert try_wait_for_completion(device.done)


def test_a_timeout_that_the_caller_of_the_wait_cleans_up() -> None:
    device = Device()

    def wait() -> int:
        if not wait_for_completion_timeout(device.done, HZ // 500):
            return -ETIMEDOUT
        return 0

    def transfer() -> bool:
        reinit_completion(device.done)
        if wait():
            generic_handle_irq(irq)  # late
            disable_irq(irq)
            late = try_wait_for_completion(device.done)
            enable_irq(irq)
            return late
        return True

    with line(device.isr, device) as irq:
        assert transfer()
        assert transfer()


def test_a_handler_that_is_gone_completes_nothing_any_more() -> None:
    first = Device()
    for _ in range(20):  # the next handler may be where the last one was
        other = Device()
        with line(first.isr, first) as irq:
            generic_handle_irq(irq)
            assert wait_for_completion_timeout(first.done, LONG)
        with line(other.isr, other) as irq:
            generic_handle_irq(irq)
            assert wait_for_completion_timeout(other.done, LONG)
            with beside(complete, first.done):
                wait_for_completion(first.done)  # untimed, but no hardware any more


@pytest.mark.parametrize("oneshot", [False, True])
def test_a_threaded_handler(oneshot: bool) -> None:
    x = Completion("x")

    def thread_fn(irq: int, dev_id: Any) -> IrqReturn:
        complete(x)
        return IRQ_HANDLED

    irq = irq_alloc_desc("dev")
    handler = None if oneshot else lambda irq, dev_id: IRQ_WAKE_THREAD
    request_threaded_irq(irq, handler, thread_fn, IRQF_ONESHOT if oneshot else 0, "dev", 1)
    for _ in range(3):
        reinit_completion(x)
        generic_handle_irq(irq)
        assert wait_for_completion_timeout(x, LONG)
    disable_irq(irq)
    free_irq(irq, 1)
    irq_free_desc(irq)


def test_a_line_that_is_never_enabled_again_since_it_is_freed() -> None:
    device = Device()
    irq = irq_alloc_desc("dev")
    request_irq(irq, device.isr, 0, "dev", device)
    disable_irq(irq)
    complete_all(device.done)
    free_irq(irq, device)
    irq_free_desc(irq)


# locks


def test_a_lock_over_the_whole_transfer_that_no_completer_takes() -> None:
    device, bus = Device(), threading.Lock()
    with line(device.isr, device) as irq:
        for _ in range(2):
            with bus:
                reinit_completion(device.done)
                generic_handle_irq(irq)  # on top of who holds the lock, as an interrupt is
                assert wait_for_completion_timeout(device.done, LONG)


def test_who_completes_for_itself_under_a_lock() -> None:
    bus, x = threading.Lock(), Completion("x")
    for _ in range(2):
        with bus:
            complete(x)
            assert wait_for_completion_timeout(x, LONG)


def test_condition_variables_over_watched_locks() -> None:
    ready, x, seen = threading.Condition(threading.RLock()), Completion("x"), []

    def wait() -> None:
        with ready:
            ready.wait_for(lambda: seen, WATCHDOG_S)
        complete(x)

    with beside(wait):
        with ready:
            seen.append(1)
            ready.notify()
        wait_for_completion(x)
