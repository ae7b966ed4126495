# SPDX-License-Identifier: MIT
"""A system in a folder: sysfs, /proc, /dev, udev's database and rules, as the kernel lays them out.

The shapes are those of Linux 6.12 with an FT232 (tests/doctor/test_in_guest.py reads the real one).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.vm.conftest import rung_qemu
from udriver.doctor import Diagnosis, Finding, Scene, diagnose
from udriver.drivers.access import Node, User, may_use
from udriver.drivers.system import Root
from vm.machine import Machine

__all__ = ["rung_qemu"]

RELEASE = "6.12.1"
DIALOUT = 20
FTDI = "usb:v0403p6001d0600dc00dsc00dp00icFFiscFFipFFin00"


class Tree:
    """A healthy system to break. Ports are added by ``usb()`` and ``platform()``."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.root = Root.under(top)
        self.nodes: dict[str, Node] = {}
        self.user = User("ann", 1000, frozenset({1000, DIALOUT}))
        for folder in (
            "sys/class/tty",
            "sys/bus/usb/devices",
            "dev",
            "run/udev",
            "run/systemd/system",
            "proc",
        ):
            (top / folder).mkdir(parents=True)
        self.write("proc/sys/kernel/osrelease", RELEASE)
        self.write("etc/group", "root:x:0:\ndialout:x:20:ann\n")
        self.write("usr/lib/udev/rules.d/73-seat-late.rules", 'TAG=="uaccess"')
        self.modules("ftdi_sio", "cdc_acm")

    def write(self, path: str, text: str) -> None:
        place = self.top / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text + "\n")

    def link(self, path: str, target: str) -> None:
        place = self.top / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)

    def modules(self, *names: str) -> None:
        """What is on disk for the running kernel."""
        folder = f"usr/lib/modules/{RELEASE}"
        self.write(f"{folder}/modules.dep", "\n".join(f"kernel/x/{name}.ko.xz:" for name in names))
        aliases = {"ftdi_sio": "usb:v0403p6001d*dc*dsc*dp*ic*isc*ip*in*"}
        lines = [f"alias {aliases[name]} {name}" for name in names if name in aliases]
        self.write(f"{folder}/modules.alias", "\n".join(lines))

    def device(self, topology: str = "1-1", **attributes: str) -> str:
        """A USB device with one interface that no driver has; gives its folder."""
        folder = f"sys/devices/pci0/usb1/{topology}"
        known = {
            "idVendor": "0403", "idProduct": "6001", "serial": "A1", "product": "FT232R",
            "manufacturer": "FTDI", "busnum": "1", "devnum": topology[-1],
            "dev": f"189:{topology[-1]}", "power/control": "on", "power/autosuspend_delay_ms": "2000",
        }  # fmt: skip
        for name, value in {**known, **attributes}.items():
            self.write(f"{folder}/{name}", value)
        self.write(f"{folder}/{topology}:1.0/bInterfaceNumber", "00")
        self.write(f"{folder}/{topology}:1.0/modalias", FTDI)
        self.link(f"sys/bus/usb/devices/{topology}", f"../../../devices/pci0/usb1/{topology}")
        return folder

    def usb(self, name: str = "ttyUSB0", topology: str = "1-1", **attributes: str) -> str:
        """An FT232 bound by ftdi_sio, well set up; gives the folder of its usb-serial port."""
        folder = self.device(topology, **attributes)
        self.link(f"{folder}/{topology}:1.0/driver", "/sys/bus/usb/drivers/ftdi_sio")
        (self.root.sys / "bus/usb/drivers/ftdi_sio").mkdir(parents=True, exist_ok=True)
        port = f"{folder}/{topology}:1.0/{name}"
        self.write(f"{port}/port_number", "0")
        self.write(f"{port}/latency_timer", "1")
        self.link(f"{port}/driver", "/sys/bus/usb-serial/drivers/ftdi_sio")
        self._tty(port, name, f"188:{name[-1]}")
        self.link(f"dev/serial/by-path/pci-0-usb-0:{topology}:1.0", f"../../{name}")
        return port

    def platform(self, name: str = "ttyS0", behind: str = "pnp0/00:02", kind: str = "4") -> str:
        """An 8250, below the serial core's own layer."""
        core = f"sys/devices/{behind}/{name}.core"
        self.link(f"sys/devices/{behind}/driver", "/sys/bus/pnp/drivers/serial")
        self.link(f"{core}/subsystem", "/sys/bus/serial-base")
        self._tty(core, name, f"4:{64 + int(name[-1])}")
        if kind:
            self.write(f"{core}/tty/{name}/type", kind)
        return f"{core}/tty/{name}"

    def _tty(self, parent: str, name: str, number: str) -> None:
        self.write(f"{parent}/tty/{name}/dev", number)
        self.link(f"{parent}/tty/{name}/device", f"../../../{Path(parent).name}")
        self.link(f"sys/class/tty/{name}", os.path.relpath(f"{parent}/tty/{name}", "sys/class/tty"))
        self.write(f"dev/{name}", "")
        self.nodes[f"/dev/{name}"] = Node("tty", gid=DIALOUT)

    def process(self, pid: int, name: str, command: str = "", *opens: str) -> None:
        self.write(f"proc/{pid}/comm", name)
        self.write(f"proc/{pid}/cmdline", (command or name).replace(" ", "\0") + "\0")
        (self.top / f"proc/{pid}/fd").mkdir()
        for fd, target in enumerate(opens):
            self.link(f"proc/{pid}/fd/{fd}", target)

    def end(self, pid: int) -> None:
        """The process is gone."""
        (self.top / f"proc/{pid}").rename(self.top / "ended")

    def record(self, number: str, properties: Mapping[str, str], *tags: str) -> None:
        lines = [f"E:{name}={value}" for name, value in properties.items()]
        self.write(f"run/udev/data/c{number}", "\n".join(lines + [f"G:{tag}" for tag in tags]))

    def scene(self) -> Scene:
        return replace(Scene.of(self.root, self.user), look=self.look)

    def look(self, path: str) -> Node | None:
        node = self.nodes.get(path)
        return node and replace(node, refused=node.refused or not may_use(node, self.user))

    def diagnose(self, spec: str | None = None) -> Diagnosis:
        return diagnose(spec, self.scene())

    def findings(self, spec: str | None = None) -> list[Finding]:
        return self.diagnose(spec).findings


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A healthy system without a port."""
    return Tree(tmp_path)


@pytest.fixture(scope="module")
def guest(rung_qemu: None) -> Iterator[Machine]:
    """A real kernel with two adapters of one serial; a named skip where the rig is not."""
    from vm.adapters import Adapter

    with Machine(adapters=[Adapter(), Adapter("adapter1", port=2)]) as machine:
        yield machine
