# SPDX-License-Identifier: MIT
"""An open that fails, or is cut short by Ctrl-C, leaves no line, thread, fd or setting behind.

Nor does what an irqchip ends on the main thread. close() is cut in test_usbserial.py: it ends its line on
a thread of its own, where no Ctrl-C comes, so that a cut there says nothing of the chip.
"""

from __future__ import annotations

import errno
import gc
import itertools
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from tests.drivers.conftest import BarePty, cuts_at_each_place, open_files
from tests.drivers.test_usbserial import CtrlC, first_few, in_child
from udriver import UsbSerial
from udriver.drivers import realtime
from udriver.drivers.fd_irqchip import FdIrqChip
from udriver.drivers.irqchip import IRQCHIPS
from udriver.drivers.port import Port
from udriver.drivers.realtime import Realtime, Recipe
from udriver.kernel.irqdesc import _descs
from udriver_hw.loopback import Loopback

CHIPS = ["signal", "select", "inline"]
TRACED = (
    "/usbserial.py", "/hotplug.py", "irqchip.py", "_chip.py", "/epoll_thread.py", "/fds.py", "/realtime.py", "/udriver/kernel/"
)  # fmt: skip
WHOLE = Recipe(priority=None)  # who may not have SCHED_FIFO sees the same places


def held() -> dict[str, object]:
    """All that an open driver holds of the process."""
    return {
        "fds": open_files(),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "lines": sorted(_descs),
        "sources": {name: list(chip._sources) for name, chip in IRQCHIPS.items()},
        "started": {name: chip._started for name, chip in IRQCHIPS.items()},
        "switch interval": sys.getswitchinterval(),
        "handler": signal.getsignal(signal.SIGURG),
        "steps": list(realtime._held),
    }


def left(before: dict[str, object]) -> str:
    """What is held more than ``before``; a thread whose start was cut short ends on its own."""
    end = time.monotonic() + 5
    while (now := held()) != before:
        gc.collect()
        if time.monotonic() > end:
            return str(
                {name: (before[name], now[name]) for name in now if now[name] != before[name]}
            )
    return ""


class CtrlCInOpen(CtrlC):
    """At the n-th place of what comes after the tty is open: an fd of that is CPython's to lose."""

    def __call__(self, frame: FrameType, event: str, arg: object) -> Any:
        file = frame.f_code.co_filename
        if event == "call" and not any(name in file for name in TRACED):
            self._called = None
            return None
        return super().__call__(frame, event, arg)


def left_by_any_cut(path: str, irq: str) -> Iterator[str]:
    """Where a Ctrl-C while a driver is opened left something behind."""
    UsbSerial.open(path, irqchip=irq, realtime=WHOLE).close()
    before = held()
    for nth in itertools.count(1):
        drivers: list[UsbSerial] = []
        finger = CtrlCInOpen(nth)
        try:
            sys.settrace(finger)
            drivers.append(
                UsbSerial.open(
                    path, irqchip=irq, realtime=WHOLE, exclusive=False, low_latency=False
                )
            )
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        for driver in drivers:
            driver.close()
        if why := left(before):
            yield f"place {nth}, in {finger.where}: {why}"
            return
        if not finger.where:
            break
    assert nth > 100


@cuts_at_each_place
@pytest.mark.parametrize("irq", CHIPS)
def test_ctrl_c_anywhere_in_open_leaves_nothing(irq: str) -> None:
    with Loopback() as device:
        assert in_child(lambda: first_few(left_by_any_cut(device.path, irq))) == ""


Calls = tuple[Callable[[], object], Callable[[], object]]
"""What is cut short, and what is to be done afterwards."""


def hold(chip: FdIrqChip) -> Calls:
    holding: list[object] = []

    def call() -> None:
        chip.hold("test")
        holding.append("test")

    return call, lambda: [chip.drop(who) for who in holding]


def drop(chip: FdIrqChip) -> Calls:
    chip.hold("test")
    return lambda: chip.drop("test"), lambda: chip.drop("test")


def detach(chip: FdIrqChip) -> Calls:
    far, fd = os.openpty()
    irq = chip.attach(fd, "dev0")

    def again() -> None:
        chip.detach(irq)
        os.close(far)
        os.close(fd)

    return lambda: chip.detach(irq), again


def spoilt(path: str, irq: str) -> str:
    """What keeps the next port from working."""
    try:
        with UsbSerial.open(path, irqchip=irq) as driver:
            return "" if driver.transact(b"ping", 4, 5) == b"ping" else "other bytes"
    except (OSError, ValueError) as exc:
        return repr(exc)


def spoilt_by_any_cut(path: str, irq: str, way: Callable[[FdIrqChip], Calls]) -> Iterator[str]:
    """Where a Ctrl-C in ``way`` spoilt the chip for the next port, or left something for good."""
    UsbSerial.open(path, irqchip=irq).close()
    before = held()
    for nth, port_first in ((nth, first) for nth in itertools.count(1) for first in (True, False)):
        call, again = way(IRQCHIPS[irq])
        finger = CtrlCInOpen(nth)
        try:
            sys.settrace(finger)
            call()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        why = spoilt(path, irq) if port_first else ""
        again()
        if why := why or left(before) or spoilt(path, irq):
            yield f"place {nth}, in {finger.where}: {why}"
            return
        if not finger.where:
            break
    assert nth > 5


@cuts_at_each_place
@pytest.mark.parametrize("way", [hold, drop, detach])
@pytest.mark.parametrize("irq", CHIPS)
def test_ctrl_c_anywhere_in_what_starts_or_ends_a_chip_spoils_nothing(
    irq: str, way: Callable[[FdIrqChip], Calls]
) -> None:
    with Loopback() as device:
        assert in_child(lambda: first_few(spoilt_by_any_cut(device.path, irq, way))) == ""


# what a step of realtime= raises


@pytest.mark.parametrize(
    "wrong",
    [
        {"switch_interval": 0},
        {"switch_interval": math.nan},
        {"switch_interval": 1e9},
        {"priority": 0},
        {"priority": 100},
        {"cpu": -2},
        {"cpu": 2**40},
        {"dma_latency": -1},
        {"dma_latency": 2**40},
    ],
    ids=str,
)
def test_a_value_that_no_system_has_is_refused_in_a_sentence(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=f"^{name} is .*, or None, not {wrong[name]}$"):
        Recipe(**wrong)


@pytest.mark.parametrize("irq", CHIPS)
def test_a_step_that_raises_is_undone_with_all_before_it(
    monkeypatch: pytest.MonkeyPatch, irq: str
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(realtime, "_dma_latency", broken)
    with BarePty() as device:
        UsbSerial.open(device.path, irqchip=irq).close()
        before = held()
        with pytest.raises(ZeroDivisionError):
            UsbSerial.open(device.path, irqchip=irq, realtime=True)
        assert left(before) == ""


@pytest.mark.parametrize("irq", CHIPS)
def test_a_driver_that_never_was_reads_nobodys_bytes(
    monkeypatch: pytest.MonkeyPatch, irq: str
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(realtime, "_dma_latency", broken)
    with BarePty() as device, Loopback() as second:
        port = Port(device.path)
        with pytest.raises(ZeroDivisionError):
            UsbSerial(port, irq, realtime=True)
        number = port.fd
        reader, writer = os.pipe2(os.O_NONBLOCK)
        port.close()
        os.dup2(reader, number)  # the number is the next file's
        try:
            with UsbSerial.open(second.path, irqchip=irq) as driver:
                os.write(writer, b"the user's own")
                assert driver.transact(b"ping", 4, 5) == b"ping"
                assert os.read(number, 99) == b"the user's own"
        finally:
            for fd in (reader, writer, number):
                os.close(fd)


def test_a_latency_that_cannot_be_written_leaves_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(realtime, "DMA_LATENCY", "/dev/full")
    before = held()
    steps = Realtime(Recipe(None, None, None, 0), None).steps
    assert (steps[3].taken, steps[3].what) == (False, os.strerror(errno.ENOSPC))
    assert left(before) == ""


# what undoing a step raises


def test_a_thread_that_has_ended_keeps_no_other_step_from_being_undone() -> None:
    before = held()
    going, gone = threading.Event(), threading.Thread(target=lambda: going.wait(20))
    gone.start()
    taken = Realtime(WHOLE, gone)
    assert taken.steps[2].taken
    going.set()
    gone.join()
    taken.stop()
    assert left(before) == ""


def test_what_is_not_undone_is_warned_of_and_the_line_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_affinity = os.sched_setaffinity
    calls: list[int] = []

    def once(tid: int, cpus: set[int]) -> None:
        calls.append(tid)
        if len(calls) > 1:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        set_affinity(tid, cpus)

    monkeypatch.setattr(os, "sched_setaffinity", once)
    with BarePty() as device:
        before = held()
        driver = UsbSerial.open(device.path, irqchip="select", realtime=WHOLE)
        taken = driver.realtime
        assert taken is not None
        warned: list[str] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(realtime.warnings, "warn", lambda why, *_, **__: warned.append(why))
            driver.close()
        assert warned == ["affinity is not undone: Operation not permitted"]
        assert left(before) == ""


def test_an_undo_that_raises_keeps_nothing_of_the_port(other: Any) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    with Loopback() as device:
        before = held()
        driver = UsbSerial.open(device.path, irqchip="select", realtime=Recipe(None, None, None))
        assert driver.realtime is not None
        driver.realtime.stop, stop = broken, driver.realtime.stop  # type: ignore[method-assign]
        closing = other(driver.close)
        assert isinstance(closing.end(), ZeroDivisionError)
        stop()
        assert left(before) == ""
        with UsbSerial.open(device.path, irqchip="select") as again:
            assert again.transact(b"ping", 4, 5) == b"ping"


def test_an_interval_that_was_set_since_stays() -> None:
    before = sys.getswitchinterval()
    try:
        taken = Realtime(Recipe(1e-3, None, None, None), None)
        sys.setswitchinterval(2e-3)
        taken.stop()
        assert sys.getswitchinterval() == pytest.approx(2e-3)
    finally:
        sys.setswitchinterval(before)
