# SPDX-License-Identifier: MIT
"""Composition. ``udriver list``: every serial port and what there is to know before opening it."""

from __future__ import annotations

import json
import sys

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from udriver.cli import Status
from udriver.cli_doctor import plain
from udriver.console import Console
from udriver.drivers.inventory import SerialPort, serial_ports
from udriver.drivers.system import Root, processes
from udriver.drivers.udevdb import rules_files

__all__ = ["list_command", "report"]

SCHEMA = "udriver.list/1"
_HEADINGS = (
    "device", "chip", "driver", "VID:PID", "serial", "place", "latency", "held by", "rule",
)  # fmt: skip
_SHORT = {"device", "driver", "VID:PID", "place", "latency"}


def list_command(as_json: bool) -> int:
    """Print the ports; an empty list is no error."""
    root = Root()
    ports = serial_ports(root, processes(root), rules_files(root))
    if as_json:
        print(json.dumps(report(ports)), flush=True)
    elif ports:
        _print(ports)
    if not ports:
        print(
            "udriver: no serial port here; `udriver sim` serves one on a pty, "
            "and `udriver doctor` looks for adapters without a driver",
            file=sys.stderr,
        )
    return Status.OK


def report(ports: list[SerialPort]) -> dict[str, object]:
    """The ports as --json prints them."""
    return {"schema": SCHEMA, "ports": [_entry(port) for port in ports]}


def _entry(port: SerialPort) -> dict[str, object]:
    usb = port.usb
    return {
        "device": port.device,
        "chip": port.chip,
        "driver": port.driver,
        "vid": usb.vid if usb else None,
        "pid": usb.pid if usb else None,
        "serial": usb.serial if usb else None,
        "manufacturer": usb.manufacturer if usb else None,
        "product": usb.product if usb else None,
        "topology": port.topology or None,
        "interface": port.interface or None,
        "port_number": port.port_number if usb else None,
        "latency_timer": port.latency_timer,
        "low_latency": port.low_latency,
        "holders": [{"pid": held.pid, "command": held.command} for held in port.holders],
        "holders_complete": port.holders_complete,
        "by_id": list(port.by_id),
        "by_path": list(port.by_path),
        "link": port.link or None,
        "rule": port.rule or None,
        "clone_of": list(port.clone_of),
        "use_instead": port.use_instead or None,
    }


def _print(ports: list[SerialPort]) -> None:
    console = Console()
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    rows = [_cells(port) for port in ports]
    told = [column for column in range(len(_HEADINGS)) if any(row[column] for row in rows)]
    for column in told:
        heading = _HEADINGS[column]
        table.add_column(heading, overflow="fold", no_wrap=heading in _SHORT)
    for row in rows:
        table.add_row(*(Text(plain(row[column])) for column in told))
    console.print(table)
    if not all(port.holders_complete for port in ports):
        print(
            "udriver: ? where some processes are not ours to look into; ask as root",
            file=sys.stderr,
        )
    for port in ports:
        if port.use_instead:
            others = ", ".join(port.clone_of)
            text = f"{port.device} has the same ids and serial as {others}: use {port.use_instead}"
            console.print(Text(text), soft_wrap=True)


def _cells(port: SerialPort) -> tuple[str, ...]:
    usb = port.usb
    place = f"{port.topology}:{port.interface}.{port.port_number}" if usb else ""
    return (
        port.device,
        port.chip,
        port.driver,
        f"{usb.vid}:{usb.pid}" if usb else "",
        (usb.serial + (" (clone)" if port.clone_of else "")) if usb else "",
        place,
        "" if port.latency_timer is None else f"{port.latency_timer} ms",
        ", ".join(map(str, port.holders)) or ("" if port.holders_complete else "?"),
        f"{port.link} by {port.rule}" if port.rule else port.link,
    )
