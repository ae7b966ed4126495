# SPDX-License-Identifier: MIT
"""Waits as drivers have them, and right: each looks like a mistake to a checker that guesses."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
from collections.abc import Callable, Iterator
from errno import ETIMEDOUT

import pytest

from tests.checker.mistakes.case import LONG, WATCHDOG_S, Device, beside, line, run, signalled
from udriver import UsbSerial
from udriver.checker import checking
from udriver.kernel.completion import (
    DECLARE_COMPLETION,
    DECLARE_COMPLETION_ONSTACK,
    Completion,
    complete,
    complete_all,
    reinit_completion,
    wait_for_completion,
    wait_for_completion_interruptible,
    wait_for_completion_interruptible_timeout,
    wait_for_completion_killable,
    wait_for_completion_timeout,
)
from udriver.kernel.irq import (
    generic_handle_irq,
)
from udriver.kernel.sched import ERESTARTSYS, HZ, msecs_to_jiffies
from udriver_hw.loopback import Loopback

pytestmark = [
    pytest.mark.timeout(WATCHDOG_S * 2, method="thread"),
    pytest.mark.udriver_unchecked("it checks"),
    pytest.mark.usefixtures("silent"),
]


# results


def test_every_right_way_to_test_a_timed_wait() -> None:
    x = Completion("x")

    def status() -> int:
        status = 0
        left = wait_for_completion_timeout(x, HZ // 500)
        if left == 0:
            status = -ETIMEDOUT
        return status

    def conditional() -> int:
        return 0 if wait_for_completion_timeout(x, LONG) else -ETIMEDOUT

    def either() -> int:
        return wait_for_completion_timeout(x, LONG) or -ETIMEDOUT

    def raising() -> None:
        if not wait_for_completion_timeout(x, msecs_to_jiffies(2000)):
            raise TimeoutError

    assert status() == -ETIMEDOUT
    for way in (status, conditional, either, raising):
        reinit_completion(x)
        complete(x)
        assert (way() or 0) >= 0
    complete(x)
    left = wait_for_completion_timeout(x, LONG)
    spent, text = LONG - left, f"{left} jiffies, {left / HZ:.1f} s"
    assert (spent >= 0, "jiffies" in text) == (True, True)
    assert left > 0, "it timed out"


def test_timeouts_that_are_computed() -> None:
    x = Completion("x")
    short = False
    for timeout in (HZ, HZ // 2, msecs_to_jiffies(100), int(0.5 * HZ)):
        complete(x)
        assert wait_for_completion_timeout(x, timeout=timeout)
    complete(x)
    assert wait_for_completion_timeout(x, msecs_to_jiffies(1000))
    complete(x)
    assert wait_for_completion_timeout(x, 1 if short else HZ)


def test_every_right_way_to_test_an_interruptible_wait() -> None:
    x = Completion("x")

    def both() -> int:
        left = wait_for_completion_interruptible_timeout(x, LONG)
        if left <= 0:
            return -ETIMEDOUT if left == 0 else left
        return 0

    def matched() -> int:
        match wait_for_completion_interruptible_timeout(x, LONG):
            case 0:
                return -ETIMEDOUT
            case left if left < 0:
                return left
        return 0

    def truth_last() -> int:
        left = wait_for_completion_interruptible_timeout(x, LONG)
        if left < 0:
            return left
        return 0 if left else -ETIMEDOUT

    def truth_first() -> int:
        left = wait_for_completion_interruptible_timeout(x, LONG)
        if not left:
            return -ETIMEDOUT
        return min(left, 0)

    def untimed() -> int:
        status = wait_for_completion_killable(x)
        return status if status else 0

    def handed_on() -> int:
        return wait_for_completion_interruptible(x)

    for way in (both, matched, truth_last, truth_first, untimed, handed_on):
        complete(x)
        assert way() == 0
    for way in (both, truth_last, truth_first, handed_on):
        signalled()
        assert way() == -ERESTARTSYS


def test_waits_in_lambdas_and_partials() -> None:
    x = Completion("x")
    for wait in (
        lambda: wait_for_completion_timeout(x, LONG),
        functools.partial(wait_for_completion_timeout, x, LONG),
    ):
        complete(x)
        assert wait()
    complete(x)
    _ = wait_for_completion_interruptible(x)  # meant


# many events: who waits for the next one leaves and comes back


def test_a_reader_that_times_out_between_two_events() -> None:
    x, line_of_x = Completion("rx"), Device()
    line_of_x.done = x

    def read(timeout: int) -> bytes | None:
        if not wait_for_completion_timeout(x, timeout):
            return None
        return b"x"

    with line(line_of_x.isr, line_of_x) as irq:
        for _ in range(3):
            assert read(HZ // 500) is None
            generic_handle_irq(irq)
            assert read(LONG) == b"x"


def test_a_generator_of_events() -> None:
    x, device = Completion("rx"), Device()
    device.done = x

    def events() -> Iterator[int]:
        number = 0
        while wait_for_completion_timeout(x, HZ // 500):
            number += 1
            yield number

    with line(device.isr, device) as irq:
        for _ in range(2):
            generic_handle_irq(irq)
            assert list(events()) == [1]


def test_a_loop_that_tries_again_without_reinit() -> None:
    x = Completion("x")
    reinit_completion(x)
    tries = 0
    while not wait_for_completion_timeout(x, HZ // 500):
        tries += 1
        run(complete, x)  # between two waits
    assert tries == 1


def test_producers_that_are_faster_than_the_consumer() -> None:
    items = Completion("items")
    run(lambda: [complete(items) for _ in range(50)])
    run(lambda: [complete(items) for _ in range(50)])
    for _ in range(100):
        wait_for_completion(items)


def test_a_gate_for_all_who_come() -> None:
    gate = Completion("gate")
    with beside(wait_for_completion, gate), beside(wait_for_completion, gate):
        complete_all(gate)
    wait_for_completion(gate)
    reinit_completion(gate)


def test_two_waiters_and_two_tokens() -> None:
    x = Completion("x")

    def wait() -> None:
        assert wait_for_completion_timeout(x, LONG) > 0

    with beside(wait, asleep=x), beside(wait, asleep=x):
        complete(x)
        complete(x)


# lives


def test_declared_where_it_lives_on() -> None:
    class Driver:
        def __init__(self) -> None:
            self.done = DECLARE_COMPLETION("done")

    def made() -> Completion:
        done = DECLARE_COMPLETION("done")
        return done  # noqa: RET504 - that is the point

    def kept(store: list[Completion]) -> None:
        done = DECLARE_COMPLETION("done")
        store.append(done)

    store = [DECLARE_COMPLETION("done"), made(), Driver().done]
    kept(store)
    for x in store:
        complete(x)


def test_on_a_stack_and_waited_for() -> None:
    device = Device()

    def transfer() -> None:
        device.done = done = DECLARE_COMPLETION_ONSTACK("transfer")
        with beside(complete, device.done):
            wait_for_completion(done)

    transfer()


def test_shown_for_debugging() -> None:
    with Completion("x") as x:
        complete(x)
        with open(os.devnull, "w") as log:
            print(repr(x), x.done, file=log)
        x.wait()


def test_ctrl_c_in_a_wait() -> None:
    def handler(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    x = Completion("x")
    outer = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with pytest.raises(KeyboardInterrupt):
            x.wait(WATCHDOG_S)
    finally:
        signal.signal(signal.SIGALRM, outer)
    x.complete()
    assert x.wait(WATCHDOG_S)


def test_asyncio_with_a_task_that_is_cancelled() -> None:
    async def wait(x: Completion) -> None:
        await x

    async def main() -> None:
        x = Completion("x")
        cancelled = asyncio.create_task(wait(x))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        asyncio.get_running_loop().call_soon(x.complete)
        await x

    asyncio.run(main())


@pytest.mark.parametrize("irq", ["signal", "select", "inline"])
def test_a_driver_that_was_opened_before_the_block(irq: str) -> None:
    def talk() -> None:
        assert driver.transact(b"ping\n", 5, timeout=WATCHDOG_S) == b"ping\n"
        driver.flush(timeout=WATCHDOG_S)

    each: Callable[[], None] = talk
    with Loopback() as device, UsbSerial.open(device.path, irqchip=irq) as driver:
        talk()
        with checking(stderr=False) as inner:
            for _ in range(5):
                each()
        assert not inner, str(inner)
