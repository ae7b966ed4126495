# SPDX-License-Identifier: MIT
"""In the guest: the driver on a chip whose lines move, whose bytes break, and which is pulled.

Usage: modem_lines.py CHIP IRQCHIP TIMES. Each edge has to wake a waiter, each error is made one by one; then
TIMES waits for an edge are ended by free_irq() and a quarter as many by an unplug. Prints one JSON object.
"""

from __future__ import annotations

import json
import sys
import termios
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from tests.vm.unplug_cycles import Hangup
from udriver import Completion, UsbSerial, complete
from udriver.drivers.edges import LINES, Edge
from udriver.drivers.modem import NOT_THERE
from udriver.kernel.irq import (
    IRQ_HANDLED,
    IRQF_TRIGGER_FALLING,
    IRQF_TRIGGER_RISING,
    IrqReturn,
    free_irq,
    request_irq,
)
from udriver.pytest_plugin import Resources
from udriver_hw.spawned import SpawnedUsb, spawn_usb

BOTH = IRQF_TRIGGER_RISING | IRQF_TRIGGER_FALLING
WATCHDOG = 20.0  # seconds
HELPERS = ("irq/modem", "irq/modem-look")
KINDS = {"break": b"\0", "parity": b"\xff", "framing": b"\0", "overrun": b"O"}
# what cdc_acm tells of with the byte it came with, or at all; others it counts, and the driver looks with the next
TOLD_AT_ONCE = {"cdc_acm": ("break",)}


class Waiter:
    """A handler for lines, and a waiter that it wakes."""

    def __init__(self, driver: UsbSerial, *lines: str) -> None:
        self.driver = driver
        self.lines = lines
        self.woken = Completion("edge")
        self.records: list[Edge] = []
        self.runs = 0
        self.run_ns = 0
        self.threads: set[str] = set()
        for line in lines:
            request_irq(driver.line_irq(line), self, BOTH, line, self)

    def __call__(self, irq: int, dev_id: object) -> IrqReturn:
        self.run_ns = time.monotonic_ns()
        for line in self.lines:
            self.records += self.driver.modem.events(line)
        self.runs += 1
        self.threads.add(threading.current_thread().name)
        complete(self.woken)
        return IRQ_HANDLED

    def wait(self) -> None:
        self.woken.wait(WATCHDOG)

    def free(self) -> float:
        """Milliseconds until free_irq() of all returned."""
        began = time.monotonic()
        for line in self.lines:
            free_irq(self.driver.line_irq(line), self)
        return (time.monotonic() - began) * 1000


def meanwhile(usb: SpawnedUsb, command: str) -> threading.Thread:
    """Do it from another thread: the one that waits takes the interrupt."""
    thread = threading.Thread(target=usb.tell, args=(command,))
    thread.start()
    return thread


def lines_of(driver: UsbSerial) -> list[str]:
    """Those that it has."""
    return [line for line in LINES if line not in NOT_THERE.get(driver.port.driver, ())]


def edges(usb: SpawnedUsb, driver: UsbSerial) -> dict[str, Any]:
    """Every line there and back, each time with somebody asleep; then a hundred without a pause."""
    lines = lines_of(driver)
    waiter = Waiter(driver, *lines)
    quick = lines[0]
    before = driver.port.icount()
    error_ns = driver.modem.error_ns
    for line in lines:
        for level in ("on", "off"):
            mover = meanwhile(usb, f"line {line} {level}")
            waiter.wait()
            mover.join()
    single = [asdict(record) for record in waiter.records]
    method = driver.modem.method
    if method == "TIOCMIWAIT":  # who polls knows of no edge that is shorter than his window
        for number in range(100):
            usb.tell(f"line {quick} {'off' if number % 2 else 'on'}")
        wait_for(caught_up(driver, quick), waiter)
    after = driver.port.icount()
    waiter.free()
    assert before is not None
    assert after is not None
    return {
        "method": method,
        "error_ns": error_ns,
        "threads": sorted(waiter.threads),
        "single": single,
        "storm": [asdict(record) for record in waiter.records[2 * len(lines) :]],
        "counted": {name: getattr(after, name) - getattr(before, name)
                    for name in ("cts", "dsr", "dcd", "rng")},
    }  # fmt: skip


def caught_up(driver: UsbSerial, line: str) -> Callable[[], bool]:
    """Whether the driver has seen what the kernel counted, and that stands still.

    Not a number: a pulse that is over before the host asks again is one that no chip tells of.
    """
    counts = [-1.0, time.monotonic()]  # the last, and when it was new

    def condition() -> bool:
        now = driver.port.icount()
        assert now is not None
        if getattr(now, line) != counts[0]:
            counts[:] = getattr(now, line), time.monotonic()
        still = time.monotonic() - counts[1] > 0.3
        return still and driver.modem.edges[line] == getattr(now, line)

    return condition


def wait_for(condition: Callable[[], bool], waiter: Waiter) -> None:
    """Sleep in short waits, in which the inline irqchip takes interrupts, and once more."""
    end = time.monotonic() + WATCHDOG
    reached = False
    while not reached:
        driver = waiter.driver
        told = driver.modem.edges, driver.port.icount(), driver.modem_lines()
        assert time.monotonic() < end, f"still not; edges, counters, levels: {told}"
        reached = condition()
        try:
            waiter.woken.wait(0.05)
        except TimeoutError:
            pass


def waits(usb: SpawnedUsb, driver: UsbSerial) -> list[str]:
    """wait_modem_lines() for each edge; what it gave."""
    seen = []
    for line in lines_of(driver):
        bit = LINES[line]
        for level in ("on", "off"):
            mover = threading.Thread(target=_move, args=(usb, driver, f"line {line} {level}"))
            mover.start()
            levels = driver.wait_modem_lines(bit, timeout=WATCHDOG)
            mover.join()
            seen.append(f"{line} {'on' if levels & bit else 'off'}")
    return seen


def _move(usb: SpawnedUsb, driver: UsbSerial, command: str) -> None:
    while driver.modem.method is None:
        time.sleep(0.001)  # nobody waits yet
    usb.tell(command)


def errors(usb: SpawnedUsb, path: str, irq: str) -> dict[str, Any]:
    """Each kind three times, between bytes that are good; what was counted and what was told."""
    with UsbSerial.open(path, irqchip=irq, line_errors=True) as driver:
        before = driver.port.icount()
        told: list[dict[str, Any]] = []
        for kind, byte in [*KINDS.items()] * 3:
            usb.tell('send b"good\\xff"')
            mover = meanwhile(usb, f"error {kind} {byte!r}")
            if kind in TOLD_AT_ONCE.get(driver.port.driver, KINDS):
                told += [asdict(error) for error in driver.wait_line_errors(timeout=WATCHDOG)]
            mover.join()
        usb.tell('send b"end"')
        data = driver.readexactly(3 * (4 * 5 + 3) + 3, timeout=WATCHDOG)
        after = driver.port.icount()
        assert before is not None
        assert after is not None
        assert driver.line_errors is not None
        told += [asdict(error) for error in driver.line_errors.take()]
        stats = driver.stats()
        return {
            "told": told,
            "data": data.hex(),
            "kernel": {name: getattr(after, name) - getattr(before, name)
                       for name in ("brk", "parity", "frame", "overrun")},
            "counted": driver.line_errors.counted,
            "seen": driver.line_errors.seen,
            "astray": stats.received - stats.read - stats.buffered,
            "iflag": termios.tcgetattr(driver.port.fd)[0],
        }  # fmt: skip


def freed(driver: UsbSerial, times: int) -> list[float]:
    """Milliseconds that free_irq() took, with the waiting thread at all stages of its way in."""
    took = []
    for number in range(times):
        waiter = Waiter(driver, "ri")
        time.sleep((0, 0.001, 0.005, 0.02)[number % 4])
        took.append(waiter.free())
        assert not any(thread.name in HELPERS for thread in threading.enumerate())
    return took


def pulled(usb: SpawnedUsb, irq: str, times: int) -> dict[str, Any]:
    """An unplug while nothing but a modem line is waited for; no byte is on its way.

    Milliseconds from the hangup, which is when a poll() of a second fd on the tty tells of it.
    """
    woken, ended, gone, freed_ms = [], [], [], []
    for _ in range(times):
        with UsbSerial.open(usb.path, irqchip=irq) as driver:
            waiter = Waiter(driver, "dcd")
            capture = driver.modem._capture
            assert capture is not None
            out: list[int] = []
            capture._ended = partial(_note, out, capture._ended)  # type: ignore[method-assign]
            hangup = Hangup(usb.path)
            mover = meanwhile(usb, "unplug")
            waiter.wait()
            gone.append(driver.gone)
            hangup.join()
            ended.append((out[0] - hangup.at_ns) / 1e6)
            woken.append((waiter.run_ns - hangup.at_ns) / 1e6)
            freed_ms.append(waiter.free())
            mover.join()
        path, _, _ = usb.tell("plug").rpartition(" ")
        assert path == usb.path
    return {"woken_ms": woken, "ended_ms": ended, "gone": gone, "freed_ms": freed_ms}


def _note(out: list[int], then: Callable[[OSError], None], error: OSError) -> None:
    out.append(time.monotonic_ns())
    then(error)


def main(chip: str, irq: str, times: int) -> int:
    """Run all of it; the judgement is the test's."""
    report: dict[str, Any] = {"chip": chip, "irq": irq}
    with spawn_usb(chip) as usb:
        with UsbSerial.open(usb.path, irqchip=irq) as driver:
            report["waits"] = waits(usb, driver)
            before = Resources()
            report["edges"] = edges(usb, driver)
            report["freed_ms"] = freed(driver, times)
            report["leaked"] = Resources().leaked_since(before)
        report["errors"] = errors(usb, usb.path, irq)
        report["pulled"] = pulled(usb, irq, times // 4)
    report["threads"] = [thread.name for thread in threading.enumerate()]
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
