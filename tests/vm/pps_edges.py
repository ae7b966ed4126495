# SPDX-License-Identifier: MIT
"""In the guest, with pps_ldisc: edges of dcd, which the kernel times, and of cts, which it does not.

Usage: pps_edges.py TIMES. Prints one JSON object.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import sys
import termios
import time
from dataclasses import asdict
from typing import Any

from udriver import Completion, UsbSerial, complete
from udriver.drivers.edges import Edge
from udriver.kernel.irq import IRQ_HANDLED, IrqReturn, free_irq, request_irq
from udriver_hw.spawned import spawn_usb

WATCHDOG = 20.0  # seconds
LINES = ("dcd", "cts")


def main(times: int) -> int:
    """Each edge with the moment before it was asked for and the one when its handler ran."""
    told: list[dict[str, Any]] = []
    woken = Completion("edge")
    taken: list[Edge] = []
    with spawn_usb("ft232r") as usb:
        with UsbSerial.open(usb.path, irqchip="select") as driver:
            source = driver.modem.attach_pps()

            def handler(irq: int, line: str) -> IrqReturn:
                taken.extend(driver.modem.events(line))
                complete(woken)
                return IRQ_HANDLED

            for line in LINES:
                request_irq(driver.line_irq(line), handler, 0, line, line)
            for number in range(times):
                for line in LINES:
                    asked_ns = time.monotonic_ns()
                    usb.tell(f"line {line} {'off' if number % 2 else 'on'}")
                    woken.wait(WATCHDOG)
                    (record,) = taken
                    taken.clear()
                    told.append(
                        {"asked_ns": asked_ns, "woken_ns": time.monotonic_ns(), **asdict(record)}
                    )
            data = bytes(range(256))
            same = driver.transact(data, len(data), timeout=WATCHDOG) == data
            for line in LINES:
                free_irq(driver.line_irq(line), line)
            during = discipline(driver.port.fd)
        fd = os.open(usb.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        after = discipline(fd)
        os.close(fd)
    report = {"source": source, "told": told, "same": same, "disciplines": [during, after]}
    print(json.dumps(report))
    return 0


def discipline(fd: int) -> int:
    """TIOCGETD."""
    return int(struct.unpack("i", fcntl.ioctl(fd, termios.TIOCGETD, bytes(4)))[0])


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
