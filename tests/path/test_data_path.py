# SPDX-License-Identifier: MIT
"""The data path, one test a station, in the order in which a byte comes by:

device -> tty FIFO -> irqchip -> ISR -> kfifo -> complete() -> waiter -> its caller

The line is masked at first, so that each station can be looked at before the next one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from udriver import UsbSerial
from udriver.kernel import tracepoint
from udriver.kernel.completion import Completion, completion_done
from udriver.kernel.irq import IRQ_HANDLED, IRQ_NONE, irq_stat

WATCHDOG_S = 20.0  # reached only by a bug


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Sleep in short waits: an inline irqchip takes interrupts only there."""
    end = time.monotonic() + WATCHDOG_S
    never = Completion("never")
    while not condition():
        assert time.monotonic() < end, f"still not: {what}"
        try:
            never.wait(0.001)
        except TimeoutError:
            pass


@pytest.fixture
def stopped(udriver_device: Any, udriver_driver: UsbSerial) -> Iterator[UsbSerial]:
    """The driver with its line masked and three bytes in the tty: nothing has moved yet."""
    driver = udriver_driver
    driver.chip.irq_mask(driver.irq)
    udriver_device.push(b"abc")
    wait_until(lambda: driver.port.in_waiting() == 3, "the device has sent")
    yield driver
    driver.chip.irq_unmask(driver.irq)


def test_1_device_fills_fifo(stopped: UsbSerial) -> None:
    assert stopped.port.in_waiting() == 3
    assert stopped.in_waiting == 3
    assert (len(stopped.fifo), irq_stat(stopped.irq).count) == (0, 0)


def test_2_irqchip_raises(stopped: UsbSerial) -> None:
    stopped.chip.irq_unmask(stopped.irq)
    wait_until(lambda: irq_stat(stopped.irq).count, "the interrupt")
    stat = irq_stat(stopped.irq)
    assert (stat.spurious, stat.exceptions, stat.chip) == (0, 0, stopped.chip.name)


def test_3_isr_drains_into_kfifo(stopped: UsbSerial) -> None:
    assert stopped.isr(stopped.irq, stopped) == IRQ_HANDLED
    assert stopped.fifo.peek(10) == b"abc"
    assert stopped.port.in_waiting() == 0
    assert stopped.isr(stopped.irq, stopped) == IRQ_NONE, "nothing more: not ours"


def test_4_isr_completes(stopped: UsbSerial) -> None:
    assert not completion_done(stopped.rx_ready)
    stopped.isr(stopped.irq, stopped)
    assert stopped.rx_ready.done == 1


def test_5_waiter_is_woken(stopped: UsbSerial) -> None:
    woken: list[str] = []

    def wait() -> None:
        stopped.rx_ready.wait(WATCHDOG_S)
        woken.append(threading.current_thread().name)

    waiter = threading.Thread(target=wait, name="waiter")
    waiter.start()
    wait_until(lambda: len(stopped.rx_ready.wait_queue) == 1, "it sleeps")
    assert woken == []
    stopped.isr(stopped.irq, stopped)
    waiter.join(WATCHDOG_S)
    assert woken == ["waiter"]
    assert stopped.rx_ready.done == 0, "its token is taken"


def test_6_waiter_returns(stopped: UsbSerial) -> None:
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(stopped.read(timeout=WATCHDOG_S)))
    reader.start()
    wait_until(lambda: len(stopped.rx_ready.wait_queue) == 1, "it sleeps")
    assert got == []
    stopped.chip.irq_unmask(stopped.irq)
    reader.join(WATCHDOG_S)
    assert got == [b"abc"]
    stats = stopped.stats()
    assert (stats.received, stats.read, stats.buffered) == (3, 3, 0)


STATIONS = [
    "sched_switch",
    "irq_handler_entry",
    "kfifo_in",
    "complete",
    "irq_handler_exit",
    "sched_waking",
    "kfifo_out",
]


def test_the_trace_shows_the_stations_in_order(stopped: UsbSerial) -> None:
    received: list[bytes] = []
    with tracepoint.recording() as events:
        reader = threading.Thread(
            target=lambda: received.append(stopped.read(timeout=WATCHDOG_S)), name="reader"
        )
        reader.start()
        end = time.monotonic() + WATCHDOG_S
        while not len(stopped.rx_ready.wait_queue):  # no wait of ours: it would be traced, too
            assert time.monotonic() < end
        stopped.chip.irq_unmask(stopped.irq)
        reader.join(WATCHDOG_S)
        while not any(event.name == "irq_handler_exit" for event in tuple(events)):
            assert time.monotonic() < end  # on another CPU the handler may end after its reader
    assert received == [b"abc"]
    seen = [event for event in events if event.name in STATIONS and about(event, stopped)]
    first = {name: next(i for i, e in enumerate(seen) if e.name == name) for name in STATIONS}
    path = ["irq_handler_entry", "kfifo_in", "complete", "kfifo_out"]
    assert sorted(path, key=first.__getitem__) == path
    assert first["complete"] < first["irq_handler_exit"]
    assert first["complete"] < first["sched_waking"] < first["kfifo_out"]
    by_name = {name: seen[index] for name, index in first.items()}
    assert by_name["kfifo_in"].values == (3, 3)
    assert by_name["kfifo_out"].values == (3,)
    assert by_name["kfifo_in"].context == f"isr of {stopped.port.name}"
    assert by_name["kfifo_out"].context == "process"
    assert by_name["kfifo_out"].thread == "reader"
    stamps = [event.timestamp_ns for event in events]
    assert stamps == sorted(stamps)


def about(event: tracepoint.Event, driver: UsbSerial) -> bool:
    """Whether it is about this driver's line, its completion, or its reader."""
    return event.subject in (driver.port.name, driver.rx_ready.name, "reader")


def test_the_trace_says_where_each_chip_runs_its_handler(stopped: UsbSerial) -> None:
    with tracepoint.recording() as events:
        stopped.chip.irq_unmask(stopped.irq)
        assert stopped.readexactly(3, WATCHDOG_S) == b"abc"
    entry = next(event for event in events if event.name == "irq_handler_entry")
    on = {"signal": "MainThread", "select": "irq/select", "inline": "MainThread"}
    assert entry.thread == on[stopped.chip.name]


def test_nothing_is_traced_when_nobody_asks() -> None:
    with tracepoint.recording() as events:
        pass
    Completion("x").complete()
    assert not events
    assert tracepoint.ring is None
