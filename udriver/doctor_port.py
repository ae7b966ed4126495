# SPDX-License-Identifier: MIT
"""Composition. What can be wrong with a port that has a tty; each check is one function.

There is no check of ASYNC_LOW_LATENCY apart from the latency timer: of the USB drivers only
ftdi_sio acts on it, and it shows it there (latency_timer_show); elsewhere it is read by opening.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from shlex import quote

from udriver.doctor import Finding, Scene
from udriver.drivers.access import Node, group_members, group_name, may_use, named_users
from udriver.drivers.id_table import lookup
from udriver.drivers.inventory import SerialPort, UsbDevice
from udriver.drivers.system import Process, read
from udriver.drivers.udevdb import RulesFile, record

__all__ = ["CHECKS", "brltty_rule"]

_SEAT = "73-seat-late.rules"
_UACCESS = re.compile(r'TAG\s*\+=\s*"uaccess"')
_ATTRIBUTE = re.compile(r'ATTRS?\{(\w+)\}\s*==\s*"([^"]*)"')


def node(port: SerialPort, scene: Scene) -> Iterator[Finding]:
    """The kernel has the port and /dev does not: a container's own /dev, or none mounted."""
    found = scene.look(port.device)
    if found is not None and found.kind == "tty":
        return
    what = f"the kernel has the port, but in /dev there is {found.kind if found else 'nothing'}"
    if scene.container:
        fix = _into_container(port, scene)
    elif found is not None:
        fix = f"sudo rm {port.device}; then plug the device in again"
    else:
        fix = f"sudo mknod -m 660 {port.device} c {port.number.replace(':', ' ')}"
    yield Finding("error", "node", port.device, what, fix)


def _into_container(port: SerialPort, scene: Scene) -> str:
    tool = "podman" if scene.container == "podman" else "docker"
    return f"{tool} run --device={port.device} ..."


def permission(port: SerialPort, scene: Scene) -> Iterator[Finding]:
    """Whether is the kernel's word; mode and ACL say why, and if not they, something above them."""
    found = scene.look(port.device)
    if found is None or found.kind != "tty" or not found.refused:
        return
    if not may_use(found, scene.user):
        what, fix = _denied(port, found, scene)
        yield Finding("error", "permission", port.device, what, fix)
        return
    what, fix = "a device cgroup or a security module", "sudo journalctl -k --grep=denied"
    if scene.container:
        what, fix = f"the {scene.container} container", _into_container(port, scene)
    admits = f"its mode admits {scene.user.name}, but {what} refuses it"
    yield Finding("error", "refused", port.device, admits, fix)


def _denied(port: SerialPort, found: Node, scene: Scene) -> tuple[str, str]:
    user, group = scene.user.name, group_name(scene.root, found.gid)
    admits = f"mode {found.mode:04o}, group {group}, does not admit {user}"
    if found.gid in scene.user.groups or found.mode >> 3 & 6 != 6 or found.gid == 0:
        return admits, f"sudo setfacl -m u:{quote(user)}:rw {port.device}"
    if user in group_members(scene.root, found.gid):
        return f"{user} was put into group {group} after this login", f"newgrp {quote(group)}"
    return admits, f"sudo usermod -aG {quote(group)} {quote(user)}, then log in again"


def uaccess(port: SerialPort, scene: Scene) -> Iterator[Finding]:
    """73-seat-late.rules reads the tag, so a later file sets it in vain.

    Until systemd 258 logind made up for it, but only when the seat changed hands: its enumeration
    found the tag in the database (systemd/systemd#39206).
    """
    found = scene.look(port.device)
    if "uaccess" not in record(scene.root, port.number).tags or port.usb is None:
        return
    if found is None or named_users(found) or _SEAT not in [file.name for file in scene.rules]:
        return
    if any(_early(file, port.usb) for file in scene.rules):
        return
    for file in scene.rules:
        line = _tags(file, port.usb)
        if line and file.name > _SEAT:
            what = f'TAG+="uaccess" at {file.path}:{line} comes after {_SEAT}, which acts on it'
            yield Finding("warning", "uaccess", port.device, what, _rename(file))


def _early(file: RulesFile, usb: UsbDevice) -> bool:
    return file.name < _SEAT and bool(_tags(file, usb))


def _tags(file: RulesFile, usb: UsbDevice) -> int:
    """The line that sets the tag, in a file that names this vendor; 0 if there is none."""
    names = re.compile(rf'["|]{re.escape(usb.vid)}["|]', re.IGNORECASE)
    if not any(names.search(text) for _, text in file.rules):
        return 0
    lines = [(number, text) for number, text in file.rules if _UACCESS.search(text)]
    named = [number for number, text in lines if names.search(text)]
    return (named or [number for number, _ in lines] or [0])[0]


def _rename(file: RulesFile) -> str:
    better = "/etc/udev/rules.d/61-" + re.sub(r"^\d+-", "", file.name)
    verb = "mv" if file.path.startswith("/etc/") else "cp"
    return f"sudo {verb} {quote(file.path)} {quote(better)} && sudo udevadm control --reload && sudo udevadm trigger"


def modem_manager(port: SerialPort, scene: Scene) -> Iterator[Finding]:
    """It opens candidates and writes AT to them unless told not to (ModemManager's udev tags)."""
    daemon = next((process for process in scene.running if process.name == "ModemManager"), None)
    if daemon is None or port.usb is None:
        return
    of_port = record(scene.root, port.number).properties
    of_device = record(scene.root, port.usb.number).properties
    known = of_device | of_port
    ignored = {"ID_MM_DEVICE_IGNORE", "ID_MM_PORT_IGNORE"}
    if of_port.get("ID_MM_CANDIDATE") != "1" or any(known.get(name) == "1" for name in ignored):
        return
    if re.search(r"(allow|white)list-only", daemon.command, re.IGNORECASE):
        return
    what = f"ModemManager ({daemon.pid}) runs, has it as a candidate, and was not told to leave it"
    covered = lookup(port.usb.vid, port.usb.pid) is not None
    stop = "systemctl stop ModemManager" if scene.systemd else f"kill {daemon.pid}"
    fix = "udriver udev install" if covered else f"sudo {stop}"
    yield Finding("warning", "modemmanager", port.device, what, fix)


def brltty(port: SerialPort, scene: Scene) -> Iterator[Finding]:
    """It takes adapters whose ids a Braille display has too, CH340 and CP210x among them."""
    rule = brltty_rule(port.usb, scene.rules) if port.usb else None
    if rule is not None:
        what = f"brltty's rule {rule[0]} starts it for this adapter, and it detaches the driver"
        yield Finding("warning", "brltty", port.device, what, rule[1])


def brltty_rule(usb: UsbDevice, rules: list[RulesFile]) -> tuple[str, str] | None:
    """(path:line, fix) of the rule that hands the device to brltty.

    The fix takes out this one line: the file as a whole serves people who need it.
    """
    product = f"{int(usb.vid or '0', 16):x}/{int(usb.pid or '0', 16):x}/"
    strings = {"manufacturer": usb.manufacturer, "product": usb.product}
    for file in rules:
        if "brltty" not in file.name:
            continue
        for number, text in file.rules:
            named = f'"{product}' in text and "BRLTTY" in text.upper()
            asked = _ATTRIBUTE.findall(text)
            if named and all(fnmatchcase(strings.get(key, ""), want) for key, want in asked):
                copy = f"/etc/udev/rules.d/{file.name}"
                fix = f"sudo sed -i.orig {number}d {quote(copy)} && sudo udevadm control --reload"
                first = "" if file.path == copy else f"sudo cp {quote(file.path)} {quote(copy)} && "
                return f"{file.path}:{number}", first + fix
    return None


def getty(port: SerialPort, scene: Scene) -> Iterator[Finding]:
    """A login prompt is on the port; root's, so it may be visible only by its command line."""
    for process in _gettys(port, scene):
        what = f"{process} asks for a login on it"
        unit = f"systemctl stop serial-getty@{port.name}.service"
        fix = f"sudo {unit}" if scene.systemd else f"sudo kill {process.pid}"
        yield Finding("error", "getty", port.device, what, fix)


def _gettys(port: SerialPort, scene: Scene) -> list[Process]:
    return [
        process
        for process in scene.running
        if process.name.endswith("getty")
        and {port.name, port.device} & set(process.command.split()[1:])
    ]


def holder(port: SerialPort, scene: Scene) -> Iterator[Finding]:
    """Two readers of one tty each get a part of the bytes."""
    gettys = {process.pid for process in _gettys(port, scene)}
    for found in port.holders:
        if found.pid not in gettys:
            what = f"is held by {found}"
            yield Finding("error", "holder", port.device, what, f"kill {found.pid}")


def console(port: SerialPort, scene: Scene) -> Iterator[Finding]:
    """The kernel writes its messages into the data (admin-guide/serial-console.rst)."""
    tty = scene.root.sys / "class/tty"
    if port.name not in read(tty / "console/active").split():
        return
    what = "the kernel's console is on it: its messages mix with the data"
    fix = f"take console={port.name} out of the kernel's command line and restart"
    if (tty / port.name / "console").exists():  # since Linux 5.7: sysfs-tty
        fix = f"echo N | sudo tee /sys/class/tty/{port.name}/console"
    yield Finding("warning", "console", port.device, what, fix)


def autosuspend(port: SerialPort, scene: Scene) -> Iterator[Finding]:
    """An idle device is switched off (driver-api/usb/power-management.rst)."""
    if port.usb is None or read(port.usb.path / "power/control") != "auto":
        return
    delay = read(port.usb.path / "power/autosuspend_delay_ms")
    if delay.startswith("-"):
        return  # auto, and never
    what = f"USB autosuspend is on: the adapter sleeps when idle for {delay or '?'} ms"
    fix = f"echo on | sudo tee /sys/bus/usb/devices/{port.topology}/power/control"
    yield Finding("warning", "autosuspend", port.device, what, fix)


def latency(port: SerialPort, scene: Scene) -> Iterator[Finding]:
    """A short packet waits in the chip until the timer ends (FTDI AN232B-04)."""
    if port.latency_timer is None or port.latency_timer <= 1:
        return
    what = f"latency_timer is {port.latency_timer} ms and low_latency is off: short reads come late"
    fix = f"echo 1 | sudo tee /sys/bus/usb-serial/devices/{port.name}/latency_timer"
    yield Finding("warning", "latency", port.device, what, fix)


CHECKS: tuple[Callable[[SerialPort, Scene], Iterator[Finding]], ...] = (
    node, permission, uaccess, holder, getty, console, modem_manager, brltty, autosuspend, latency,
)  # fmt: skip
