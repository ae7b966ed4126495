# SPDX-License-Identifier: MIT
"""Composition. What is wrong before there is a tty: no driver, another program's claim, no udev.

A USB serial device is one that a module of ours claims by its modalias (modules.alias), or that
id_table names, or whose interface says CDC ACM (class 02, subclass 02: usb.org's CDC 1.2, 4.3).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from udriver.doctor import Finding, Scene
from udriver.doctor_port import brltty_rule
from udriver.drivers.id_table import ID_TABLE, lookup
from udriver.drivers.inventory import UsbDevice
from udriver.drivers.system import holding, read

__all__ = ["of_the_system", "without_tty"]

_UDEVD = "/lib/systemd/systemd-udevd"
_ACM = re.compile(r"ic02isc02ip0[0-6]")
_SERIAL_MODULES = {row.driver for row in ID_TABLE} | {
    "ark3116", "ch9344", "cypress_m8", "f81232", "io_ti", "keyspan", "mct_u232", "mos7720", "mos7840",
    "mxuport", "oti6858", "spcp8x5", "ti_usb_3410_5052", "usb_serial_simple", "xr_serial",
}  # fmt: skip  # drivers/usb/serial/Makefile, those of adapters
_KCONFIG = {
    "cdc_acm": "CONFIG_USB_ACM",
    "ftdi_sio": "CONFIG_USB_SERIAL_FTDI_SIO",
    "cp210x": "CONFIG_USB_SERIAL_CP210X",
    "ch341": "CONFIG_USB_SERIAL_CH341",
    "pl2303": "CONFIG_USB_SERIAL_PL2303",
}


def of_the_system(scene: Scene) -> Iterator[Finding]:
    """Without udevd the kernel's names are all there is, and root's."""
    if (scene.root.run / "udev").exists():
        return
    if scene.container:
        what = f"the {scene.container} container has no /run/udev: no links, no properties"
        tool = "podman" if scene.container == "podman" else "docker"
        fix = f"{tool} run -v /run/udev:/run/udev:ro -v /dev/serial:/dev/serial:ro ..."
    else:
        what = "udevd does not run: no links, no groups, no rules"
        start = "systemctl start systemd-udevd" if scene.systemd else f"{_UDEVD} --daemon"
        fix = f"sudo {start} && sudo udevadm trigger"
    yield Finding("warning", "udev", "/run/udev", what, fix)


def without_tty(device: UsbDevice, scene: Scene) -> Iterator[Finding]:
    """A serial interface that no serial driver has."""
    for interface in sorted(device.path.glob(f"{device.topology}:*")):
        claimed = _driver(interface)
        module = "" if claimed not in ("", "usbfs") else _module(device, interface, scene)
        if module:
            what, fix = _unbound(device, interface, module, claimed, scene)
            named = f"{device.vid}:{device.pid} in USB port {device.topology}"
            yield Finding("error", "driver", named, f"{what}, so there is no tty", fix)


def _driver(interface: Path) -> str:
    link = interface / "driver"
    return link.readlink().name if link.is_symlink() else ""


def _module(device: UsbDevice, interface: Path, scene: Scene) -> str:
    """The module that ought to drive it; "" if it is nothing serial."""
    modalias = read(interface / "modalias")
    for module in scene.modules.of(modalias):
        if module in _SERIAL_MODULES:
            return module
    row = lookup(device.vid, device.pid)
    if row is not None and row.driver != "cdc_acm" and "icFF" in modalias:  # vendor specific
        return row.driver
    return "cdc_acm" if _ACM.search(modalias) else ""


def _unbound(
    device: UsbDevice, interface: Path, module: str, claimed: str, scene: Scene
) -> tuple[str, str]:
    bind = f"echo {interface.name} | sudo tee /sys/bus/usb/drivers/{module}/bind"
    taker = holding(scene.running, device.node, device.number)
    if claimed == "usbfs":
        who = str(taker[0]) if taker else "a program"
        stop = f"sudo kill {taker[0].pid} && " if taker else ""
        return f"{who} has taken interface {interface.name} through usbfs", stop + bind
    rule = brltty_rule(device, scene.rules)
    if rule is not None and scene.modules.loaded(module):
        return (
            f"{module} was detached, and brltty's rule {rule[0]} claims it",
            f"{rule[1]} && {bind}",
        )
    if scene.modules.loaded(module):
        return f"{module} is loaded, but not bound to {interface.name}", bind
    if scene.modules.has(module):
        return f"its driver {module} is not loaded", f"sudo modprobe {module}"
    return _missing(module, scene)


def _missing(module: str, scene: Scene) -> tuple[str, str]:
    release = scene.modules.release
    if scene.container:
        what = f"its driver {module} is not loaded, and a container cannot load it"
        return what, f"sudo modprobe {module}  # on the host"
    if not scene.modules.listed:
        what = (
            f"its driver {module} is not loaded, and /lib/modules has nothing for Linux {release}"
        )
        return what, "sudo reboot  # into the kernel that is installed"
    return f"Linux {release} has no {module}", _other_kernel(module, release, scene)


def _other_kernel(module: str, release: str, scene: Scene) -> str:
    system = re.search(r'^ID="?(\w+)', read(scene.root.etc / "os-release"), re.MULTILINE)
    if system and system[1] == "ubuntu":
        return f"sudo apt-get install linux-modules-extra-{release} && sudo modprobe {module}"
    if system and system[1] == "debian" and "cloud" in release:
        return "sudo apt-get install linux-image-amd64 && sudo reboot"
    option = _KCONFIG.get(module, f"CONFIG_USB_SERIAL_{module.upper()}")
    return f"build or install a kernel with {option}=m"
