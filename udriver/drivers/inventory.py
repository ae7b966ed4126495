# SPDX-License-Identifier: MIT
"""Process context. Every serial port of this system and what sysfs, udev and /proc say of it.

Nothing is opened: opening raises DTR, and many a board resets on that. Sources: the kernel's
Documentation/ABI/testing/sysfs-tty and sysfs-bus-usb; drivers/usb/serial/ftdi_sio.c
(latency_timer_show gives 1 while ASYNC_LOW_LATENCY is set); drivers/tty/serial/serial_base_bus.c.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from udriver.drivers.holders import Holder
from udriver.drivers.id_table import lookup
from udriver.drivers.system import Process, Root, holding, read
from udriver.drivers.udevdb import OUR_RULE, RulesFile

__all__ = ["SerialPort", "UsbDevice", "serial_ports", "usb_device", "usb_devices"]

_LOW_LATENCY = 1 << 13  # linux/serial.h, ASYNC_LOW_LATENCY, as 8250's `flags` shows it
_PHANTOMS = "/platform/serial8250/"  # 8250.nr_uarts places where a chip might have been


@dataclass(frozen=True, slots=True)
class UsbDevice:
    """A device on USB; strings as it gives them, so not to be trusted in a command."""

    path: Path
    topology: str
    vid: str
    pid: str
    serial: str
    manufacturer: str
    product: str
    number: str
    node: str


@dataclass(frozen=True, slots=True)
class SerialPort:
    """A serial port. ``clone_of``: other ports with the same VID:PID and serial (or with none).

    ``low_latency`` is None where it cannot be known without opening. ``rule`` is our rules file in
    force if it gave the port its ``link``. ``holders_complete``: we might look at every process.
    """

    device: str
    number: str
    chip: str
    driver: str
    usb: UsbDevice | None
    interface: str
    port_number: int
    latency_timer: int | None
    low_latency: bool | None
    holders: tuple[Holder, ...]
    holders_complete: bool
    by_id: tuple[str, ...]
    by_path: tuple[str, ...]
    link: str
    rule: str
    clone_of: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The kernel's name, ``ttyUSB0``."""
        return self.device.removeprefix("/dev/")

    @property
    def topology(self) -> str:
        """Where it is plugged in, ``1-1.4``; "" if not on USB."""
        return self.usb.topology if self.usb else ""

    @property
    def use_instead(self) -> str:
        """The name that tells a clone from the other; "" if its serial does."""
        if not self.clone_of:
            return ""
        return self.by_path[0] if self.by_path else f"USB port {self.topology}"


def serial_ports(
    root: Root, running: list[Process], rules: Iterable[RulesFile]
) -> list[SerialPort]:
    """The ports that really exist, in the order of their names."""
    links = _links(root)
    rule = next((file.path for file in rules if file.name == OUR_RULE), "")
    try:
        ttys = sorted((root.sys / "class/tty").iterdir(), key=_order)
    except OSError:
        return []
    ports = [_port(root, tty, running, links, rule) for tty in ttys if _exists(tty)]
    return [replace(port, clone_of=_clones(port, ports)) for port in ports]


def _order(tty: Path) -> tuple[str, int]:
    stem = tty.name.rstrip("0123456789")
    return stem, int(tty.name[len(stem) :] or 0)


def _exists(tty: Path) -> bool:
    """A virtual terminal has no device behind it; an 8250 without a chip is PORT_UNKNOWN, 0."""
    if not (tty / "device").exists():
        return False
    kind = read(tty / "type")  # only root may read it on some kernels
    return kind != "0" if kind else _PHANTOMS not in os.path.realpath(tty)


def _port(
    root: Root, tty: Path, running: list[Process], links: dict[str, list[str]], rule: str
) -> SerialPort:
    behind = Path(os.path.realpath(tty / "device"))
    while _target(behind / "subsystem") == "serial-base":  # the core's own layer, since Linux 6.5
        behind = behind.parent
    usb = _above(behind, "idVendor", root.sys)
    interface = _above(behind, "bInterfaceNumber", root.sys)
    device, number = f"/dev/{tty.name}", read(tty / "dev")
    found = usb_device(usb) if usb else None
    mine = links.get(tty.name, [])
    link = next((name for name in mine if name.startswith("/dev/udriver/")), "")
    latency = read(behind / "latency_timer")
    timer = int(latency) if latency.isdigit() else None
    driver = _target(behind / "driver")
    return SerialPort(
        device=device,
        number=number,
        chip=_chip(found, driver),
        driver=driver,
        usb=found,
        interface=read(interface / "bInterfaceNumber") if interface else "",
        port_number=int(read(behind / "port_number") or 0),
        latency_timer=timer,
        low_latency=_low_latency(tty, timer),
        holders=tuple(holding(running, device, number)),
        holders_complete=all(process.opened is not None for process in running),
        by_id=tuple(name for name in mine if "/by-id/" in name),
        by_path=tuple(name for name in mine if "/by-path/" in name),
        link=link,
        rule=rule if link else "",
    )


def _target(link: Path) -> str:
    try:
        return os.path.basename(os.readlink(link))
    except OSError:
        return ""


def _above(device: Path, attribute: str, top: Path) -> Path | None:
    """The nearest ancestor, or the device itself, that has the attribute."""
    chain = (device, *device.parents)
    below = (place for place in chain if top.resolve() in place.parents)
    return next((place for place in below if (place / attribute).exists()), None)


def _low_latency(tty: Path, timer: int | None) -> bool | None:
    if timer is not None and timer != 1:
        return False
    try:
        return bool(int(read(tty / "flags"), 16) & _LOW_LATENCY)
    except ValueError:
        return None


def _chip(usb: UsbDevice | None, driver: str) -> str:
    row = lookup(usb.vid, usb.pid) if usb else None
    return row.chip if row else (usb.product if usb else "") or driver


def usb_device(path: Path) -> UsbDevice:
    """A USB device by its folder in sysfs."""
    bus, number = read(path / "busnum"), read(path / "devnum")
    return UsbDevice(
        path=path,
        topology=path.name,
        vid=read(path / "idVendor"),
        pid=read(path / "idProduct"),
        serial=read(path / "serial"),
        manufacturer=read(path / "manufacturer"),
        product=read(path / "product"),
        number=read(path / "dev"),
        node=f"/dev/bus/usb/{bus:0>3}/{number:0>3}",
    )


def usb_devices(root: Root) -> list[UsbDevice]:
    """Every USB device, hubs too."""
    try:
        places = sorted((root.sys / "bus/usb/devices").iterdir())
    except OSError:
        return []
    return [
        usb_device(Path(os.path.realpath(place)))
        for place in places
        if (place / "idVendor").exists()
    ]


def _links(root: Root) -> dict[str, list[str]]:
    """The names that udev gave, by the kernel's name they lead to."""
    found: dict[str, list[str]] = {}
    for folder in ("udriver", "serial/by-id", "serial/by-path"):
        for path in sorted((root.dev / folder).rglob("*")):
            if path.is_symlink():
                target = os.path.normpath(path.parent / os.readlink(path))
                found.setdefault(os.path.relpath(target, root.dev), []).append(root.shown(path))
    return found


def _clones(port: SerialPort, ports: list[SerialPort]) -> tuple[str, ...]:
    if port.usb is None:
        return ()
    return tuple(
        other.device
        for other in ports
        if other.usb and other.topology != port.topology and _key(other) == _key(port)
    )


def _key(port: SerialPort) -> tuple[str, str, str, str, int]:
    assert port.usb is not None
    usb = port.usb
    return usb.vid, usb.pid, usb.serial, port.interface, port.port_number
