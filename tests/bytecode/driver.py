# SPDX-License-Identifier: MIT
"""UsbSerial's read and write paths under test, on a pty whose TX is wired to its RX.

The handler calls complete() on what the reader and the writer sleep on (a wake-up for nothing),
complete_all() on a completion of its own (on the driver's it means that the device is gone), takes the
reader's token and gives it back, looks at it, and raises the interrupt line.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from tests.bytecode.ours import OnCompletion, program
from tests.bytecode.program import Program
from udriver.drivers.irqchip import IRQCHIPS
from udriver.drivers.usbserial import UsbSerial
from udriver.kernel import completion as c
from udriver.kernel import irq

__all__ = ["programs"]

LINE = b"0123456789abcde\n"
LONG = bytes(range(256)) * 24  # more than the tty holds: the writer sleeps, too


class OnDriver(OnCompletion):
    """One driver for each process; each case begins with nothing on the wire."""

    group = "driver"
    files: ClassVar[tuple[str, ...]] = ("/udriver/kernel/", "/udriver/drivers/")
    ops: ClassVar[tuple[str, ...]] = ("complete", "complete_all", "try", "done", "irq")
    posts: ClassVar[tuple[str, ...]] = ()  # none of these is a byte
    chip: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.driver = driver_of(os.getpid(), self.chip)
        self.sent: list[bytes] = []
        self.received: list[bytes] = []
        for event in (self.driver.rx_ready, self.driver.tx_room):
            c.reinit_completion(event)

    def op(self, name: str) -> None:
        rx_ready = self.driver.rx_ready
        if name == "complete":
            c.complete(rx_ready)
            c.complete(self.driver.tx_room)
        elif name == "complete_all":
            super().op(name)
        elif name == "try":
            if c.try_wait_for_completion(rx_ready):
                c.complete(rx_ready)
        elif name == "done":
            c.completion_done(rx_ready)
        else:
            irq.generic_handle_irq(self.driver.irq)

    def available(self) -> bool:
        """Everybody sleeps: the bytes are somewhere, and nobody is told."""
        return True

    def check(self) -> str:
        driver = self.driver
        sent, received = b"".join(self.sent), b"".join(self.received)
        if sent != received:
            return f"W {len(sent)} bytes sent, {len(received)} received, or others"
        stats = driver.stats()
        if (stats.received, stats.dropped) != (stats.read + stats.buffered, 0):
            return f"W {stats}"
        if (driver._read_turn.done, driver._write_turn.done, driver.inside) != (1, 1, {}):
            return f"W turns {driver._read_turn!r} {driver._write_turn!r} {driver.inside}"
        return super().check()


@functools.cache
def driver_of(pid: int, chip: str) -> UsbSerial:
    """The driver of this process, on a device of its own; both end with it."""
    from udriver_hw.loopback import Loopback

    return UsbSerial.open(Loopback("jumper").path, irqchip=chip)


class WithLine(OnDriver):
    """A line has been received already."""

    def __init__(self) -> None:
        super().__init__()
        self.driver.write(LINE)
        self.sent.append(LINE)
        while self.driver.in_waiting < len(LINE):
            os.sched_yield()


def _transact(self: OnDriver) -> None:
    self.sent.append(LINE)
    self.received.append(self.driver.transact(LINE, len(LINE)))


def _transact_timed(self: OnDriver) -> None:
    self.sent.append(LINE)
    self.received.append(self.driver.transact(LINE, len(LINE), 3600))


def _write_long(self: OnDriver) -> None:
    self.sent.append(LONG)
    self.driver.write(LONG)
    self.received.append(self.driver.readexactly(len(LONG)))


def _flush(self: OnDriver) -> None:
    self.sent.append(LINE)
    self.driver.write(LINE)
    self.driver.flush()
    self.received.append(self.driver.readexactly(len(LINE)))


def _read(self: OnDriver) -> None:
    while sum(map(len, self.received)) < len(LINE):
        self.received.append(self.driver.read(9))


def _readline(self: OnDriver) -> None:
    self.received.append(self.driver.readline())


def _reset(self: OnDriver) -> None:
    end = self.driver.stats().read + len(LINE)
    self.driver.reset_input_buffer()  # of the kfifo; what is in the tty still is to be read
    assert self.driver.in_waiting >= 0
    while self.driver.stats().read < end:
        self.driver.read()
    self.sent.clear()


@functools.cache
def programs() -> list[type[Program]]:
    """All of them, on each irqchip."""
    return list(_programs())


def _programs() -> Iterator[type[Program]]:
    table: list[tuple[type[OnDriver], str, Callable[[Any], object]]] = [
        (OnDriver, "transact", _transact),
        (OnDriver, "transact with a timeout", _transact_timed),
        (OnDriver, "write more than the tty holds", _write_long),
        (OnDriver, "write, flush, readexactly", _flush),
        (WithLine, "read", _read),
        (WithLine, "readline", _readline),
        (WithLine, "reset_input_buffer, in_waiting, stats", _reset),
    ]
    for chip in IRQCHIPS:
        for base, name, act in table:
            made = program(base, f"{chip}: {name}", act)
            made.chip = chip  # type: ignore[attr-defined]
            yield made
