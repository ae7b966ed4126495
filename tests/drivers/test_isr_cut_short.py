# SPDX-License-Identifier: MIT
"""A signal handler that raises anywhere in an interrupt leaves nobody asleep: no new event is needed.

KeyboardInterrupt comes out when the interrupt is over; an Exception is taken for one of the ISR's own,
and reported as such. Either may come between the drain and the wake-up.
"""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from tests.drivers.conftest import BarePty, Other, cuts_at_each_place, wait_until
from tests.drivers.test_usbserial import CtrlC, first_few, in_child
from udriver import UsbSerial
from udriver.errors import DeviceGone

ASLEEP_S = 5.0  # who is not awake by then, of a wake-up that was written already, is not woken
MISSED = 3  # so often an interrupt was over before the place: there is none behind it


class Stop(Exception):
    """What the signal handler raises."""


class CutInterrupt(CtrlC):
    """Raises at the n-th place below ``entry``, where CPython looks for signals."""

    def __init__(self, nth: int, kind: type[BaseException], entry: str) -> None:
        super().__init__(nth)
        self.kind = kind
        self.entry = entry
        self.inside: FrameType | None = None

    def __call__(self, frame: FrameType, event: str, arg: object) -> Any:
        if self.inside is None and event == "call" and frame.f_code.co_name == self.entry:
            self.inside = frame
        if self.inside is None:
            return None
        if event == "return" and frame is self.inside:
            self.inside = None
        try:
            return super().__call__(frame, event, arg)
        except KeyboardInterrupt:
            raise self.kind from None


def spin(condition: Callable[[], object]) -> bool:
    """Interrupts land on this loop; whether it was so in time."""
    end = time.monotonic() + ASLEEP_S
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0)
    return True


def bytes_come(device: BarePty) -> None:
    device.push(b"hello")


def it_goes(device: BarePty) -> None:
    device.unplug()


def asleep_after_any_cut(
    event: Callable[[BarePty], None], kind: type[BaseException], first: int, entry: str
) -> Iterator[str]:
    """Where a handler that raised left a reader asleep."""
    nth, missed = first, 0
    while missed < MISSED:
        gc.collect()
        device = BarePty()
        driver = UsbSerial.open(device.path, irqchip="signal", exclusive=False, low_latency=False)
        reader = Other(driver.readexactly, 5)
        assert spin(lambda queue=driver.rx_ready.wait_queue: len(queue))
        finger = CutInterrupt(nth, kind, entry)
        go = threading.Lock()
        go.acquire()
        happening = Other(lambda go=go, device=device: go.acquire() and event(device))
        try:
            sys.settrace(finger)
            go.release()
            while not finger.where and reader.is_alive():
                time.sleep(0.005)  # in C: what lands in the tracer's own function is not traced
        except kind:
            pass
        finally:
            sys.settrace(None)
        if not spin(lambda reader=reader: not reader.is_alive()):
            yield f"place {nth}, in {finger.where}: asleep"
        elif reader.result != b"hello" and not isinstance(reader.result, DeviceGone):
            yield f"place {nth}, in {finger.where}: {reader.result!r}"
        happening.join()
        driver.close()
        device.close()
        nth, missed = (nth + 1, 0) if finger.where else (nth, missed + 1)
    assert nth > 10


@cuts_at_each_place
@pytest.mark.parametrize("event", [bytes_come, it_goes])
@pytest.mark.parametrize(
    ("kind", "first", "entry"),
    [
        (KeyboardInterrupt, 1, "generic_handle_irq"),
        (Stop, 2, "isr"),  # the first is before the ISR has begun, which then knows of nothing
    ],
    ids=["Ctrl-C", "an Exception"],
)
def test_a_handler_that_raises_anywhere_in_an_interrupt_leaves_nobody_asleep(
    event: Callable[[BarePty], None], kind: type[BaseException], first: int, entry: str
) -> None:
    assert in_child(lambda: first_few(asleep_after_any_cut(event, kind, first, entry))) == ""


@pytest.mark.parametrize("irq", ["signal", "select", "inline"])
def test_a_writer_is_not_left_asleep_between_the_flag_and_its_wake_up(
    monkeypatch: pytest.MonkeyPatch, irq: str
) -> None:
    device = BarePty()
    reported: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: reported.append(args.err_msg))
    with UsbSerial.open(device.path, irqchip=irq) as driver:
        writer = Other(driver.write, bytes(70_000))
        wait_until(lambda: len(driver.tx_room.wait_queue), "the tty is full")
        set_interest = driver._set_interest

        def cut_once() -> None:
            set_interest()
            if not driver._tx_on and not reported:
                raise Stop

        monkeypatch.setattr(driver, "_set_interest", cut_once)
        heard = 0

        def all_heard() -> bool:
            nonlocal heard
            heard += len(device.heard(0))
            return heard == 70_000

        wait_until(all_heard, "the far end has it all")
        assert writer.end() == 70_000
    assert len(reported) == 1
    device.close()
