# SPDX-License-Identifier: MIT
"""Composition. ``udriver doctor``: what keeps a port from being used, each with its fix.

1. A finding is read from the system, never supposed: a file that cannot be read finds nothing.
2. Nothing is opened: opening a port raises DTR, which resets many a board.
3. A fix is a command for the shell. Names in it are the kernel's and udev's; strings that a
   device gave itself are not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from shlex import quote
from typing import Literal

from udriver.drivers import access
from udriver.drivers.access import Node, User
from udriver.drivers.holders import holders
from udriver.drivers.inventory import SerialPort, UsbDevice, serial_ports, usb_devices
from udriver.drivers.system import Modules, Process, Root, container, processes
from udriver.drivers.udevdb import RulesFile, rules_files

__all__ = ["Diagnosis", "Finding", "Scene", "diagnose"]

_VID_PID = re.compile(r"([0-9a-fA-F]{4}):([0-9a-fA-F]{4})(?::(.+))?", re.DOTALL)

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: an error keeps ``device`` from being used, a warning spoils it."""

    severity: Severity
    check: str
    device: str
    what: str
    fix: str


@dataclass(frozen=True, slots=True)
class Scene:
    """The system as it was at one moment, and who asks."""

    root: Root
    user: User
    running: list[Process]
    rules: list[RulesFile]
    ports: list[SerialPort]
    devices: list[UsbDevice]
    modules: Modules
    container: str
    systemd: bool
    look: Callable[[str], Node | None]

    @classmethod
    def of(cls, root: Root, user: User) -> Scene:
        """Read the system below ``root``."""
        running, rules = processes(root), rules_files(root)
        return cls(
            root=root,
            user=user,
            running=running,
            rules=rules,
            ports=serial_ports(root, running, rules),
            devices=usb_devices(root),
            modules=Modules(root),
            container=container(root),
            systemd=(root.run / "systemd/system").exists(),  # sd_booted(3)
            look=lambda path: access.look(root.real(path)),
        )


@dataclass(slots=True)
class Diagnosis:
    """What was examined and found; ``absent`` says why PORT is no device, if it is none."""

    examined: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    absent: bool = False

    @property
    def prevented(self) -> bool:
        """Whether something cannot be used."""
        return any(finding.severity == "error" for finding in self.findings)


def diagnose(spec: str | None, scene: Scene) -> Diagnosis:
    """Examine the port that ``spec`` names, or with None all ports and all of USB."""
    if spec is not None:
        return _one(spec, scene)
    from udriver.doctor_usb import of_the_system, without_tty

    result = Diagnosis([port.device for port in scene.ports])
    result.findings += of_the_system(scene)
    for device in scene.devices:
        found = list(without_tty(device, scene))
        result.examined += [f"USB {device.topology}"] * bool(found)
        result.findings += found
    for port in scene.ports:
        result.findings += _of_port(port, scene)
    return result


def _of_port(port: SerialPort, scene: Scene) -> Iterator[Finding]:
    from udriver.doctor_port import CHECKS

    for check in CHECKS:
        yield from check(port, scene)


def _one(spec: str, scene: Scene) -> Diagnosis:
    from udriver.doctor_usb import of_the_system, without_tty

    named = _VID_PID.fullmatch(spec)
    if named:
        return _by_ids(spec, named, scene)
    path = _path(spec, scene.root)
    real = scene.root.shown(scene.root.real(os.path.realpath(scene.root.real(path))))
    port = next((port for port in scene.ports if port.device == real), None)
    if port is not None:
        findings = [*of_the_system(scene), *_of_port(port, scene)]
        return Diagnosis([port.device], findings)
    node = scene.look(path)
    if real.startswith("/dev/pts/") and node is not None and node.kind == "tty":
        return Diagnosis([real], list(_of_port(_pty(real), scene)))
    if node is None:
        unbound = (finding for device in scene.devices for finding in without_tty(device, scene))
        return Diagnosis(findings=[_nothing_at(path, scene), *unbound], absent=True)
    return Diagnosis([path], [_no_port(path, node)])


def _pty(device: str) -> SerialPort:
    """A pty as a port, so that who may open it and who has it is examined."""
    held = tuple(holders(device))
    return SerialPort(
        device, "", "pty", "pty", None, "", 0, None, None, held, True, (), (), link="", rule=""
    )


def _path(spec: str, root: Root) -> str:
    """A path stays one; a bare name is one of /dev/serial/by-id or of /dev."""
    if "/" in spec:
        return spec
    by_id = f"/dev/serial/by-id/{spec}"
    return by_id if os.path.lexists(root.real(by_id)) else f"/dev/{spec}"


def _by_ids(spec: str, named: re.Match[str], scene: Scene) -> Diagnosis:
    from udriver.doctor_usb import of_the_system, without_tty

    ids, serial = (named[1].lower(), named[2].lower()), named[3]

    def fits(usb: UsbDevice | None) -> bool:
        return usb is not None and (usb.vid, usb.pid) == ids and serial in (None, usb.serial)

    result = Diagnosis(findings=list(of_the_system(scene)))
    for device in filter(fits, scene.devices):
        result.findings += without_tty(device, scene)
        result.examined.append(f"USB {device.topology}")
    for port in scene.ports:
        if fits(port.usb):
            result.findings += _of_port(port, scene)
            result.examined.append(port.device)
    if not result.examined:
        what = f"no such device is on USB; there is {_there(scene)}"
        return Diagnosis(
            findings=[Finding("error", "no-device", spec, what, "udriver list")], absent=True
        )
    if not any(fits(port.usb) for port in scene.ports) and not result.prevented:
        what = "is on USB, but has no tty, and no serial module here knows it"
        result.findings.append(Finding("error", "no-tty", spec, what, "udriver list"))
    return result


def _there(scene: Scene) -> str:
    return ", ".join(port.device for port in scene.ports) or "no serial port at all"


def _nothing_at(path: str, scene: Scene) -> Finding:
    place = scene.root.real(path)
    if place.is_symlink():
        what = f"is a link to {os.readlink(place)}, which is not there"
        return Finding(
            "error", "dangling", path, f"{what}; there is {_there(scene)}", "udriver list"
        )
    what = f"does not exist; there is {_there(scene)}"
    return Finding("error", "no-device", path, what, "udriver list")


def _no_port(path: str, node: Node) -> Finding:
    """Writing to a missing /dev/ttyUSB0 as root makes a regular file there, which then stays."""
    if node.kind == "a regular file" and path.startswith("/dev/"):
        what = "is a regular file where a device should be, made by a program that wrote to it"
        fix = f"sudo rm {quote(path)}, then plug the device in again"
        return Finding("error", "not-a-port", path, what, fix)
    kind = "not a serial port of this system" if node.kind == "tty" else node.kind
    return Finding("error", "not-a-port", path, f"is {kind}", "udriver list")
