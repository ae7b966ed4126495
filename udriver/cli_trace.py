# SPDX-License-Identifier: MIT
"""Composition. ``udriver trace``: the stations of the data path as they are passed."""

from __future__ import annotations

import json
from collections.abc import Iterable

from rich.table import Table

from udriver.console import Console
from udriver.drivers.usbserial import UsbSerial
from udriver.kernel import tracepoint
from udriver.kernel.irq import synchronize_irq
from udriver.target import open_target

__all__ = ["trace_command"]


def trace_command(port: str | None, irq: str, frames: int, as_json: bool) -> int:
    """Send ``frames`` frames of 16 bytes and print what happened on the way."""
    with open_target(port) as target, UsbSerial.open(target.path, irqchip=irq) as driver:
        with tracepoint.recording() as events:
            for _ in range(frames):
                driver.transact(b"0123456789abcdef", 16, timeout=1)
            # its waiter is woken before the handler is done: on the select chip that is another thread
            synchronize_irq(driver.irq)
        _print_json(events) if as_json else _print_table(events)
    return 0


def _print_json(events: Iterable[tracepoint.Event]) -> None:
    for event in events:
        print(json.dumps({"schema": "udriver.trace/1", **event._asdict()}))


def _print_table(events: Iterable[tracepoint.Event]) -> None:
    table = Table("us", "thread", "context", "event", "of", "values")
    first = None
    for event in events:
        first = first or event.timestamp_ns
        table.add_row(
            f"{(event.timestamp_ns - first) / 1000:.1f}",
            event.thread,
            event.context,
            event.name,
            event.subject,
            " ".join(map(str, event.values)),
        )
    Console().print(table)
