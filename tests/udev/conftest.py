# SPDX-License-Identifier: MIT
"""A machine made of files: a sysfs, a /dev, a /run, and an udevadm that answers from a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from udriver.udev import link_name
from udriver.udev_system import Result, System


@dataclass
class Machine:
    """``run`` is what System runs; it answers `info` and writes down the rest."""

    root: Path
    properties: dict[str, dict[str, str]] = field(default_factory=dict)
    ran: list[list[str]] = field(default_factory=list)
    answers: dict[str, Result] = field(default_factory=dict)

    @property
    def system(self) -> System:
        return System(self.root, self.run, "/usr/bin/udevadm")

    def run(self, argv: Sequence[str]) -> Result:
        verb = argv[1]
        if verb == "info":
            found = self.properties.get(argv[3].removeprefix("--path="), {})
            return Result(0, "".join(f"{name}={value}\n" for name, value in found.items()))
        self.ran.append(list(argv[1:]))
        return self.answers.get(verb, Result(0))

    def plug(
        self, number: int = 0, serial: str = "S1", ids: str = "0403:6001", latency: str = "1"
    ) -> Path:
        """A device whose rule took; the folder of its tty."""
        usb = self.root / f"sys/devices/usb1/1-{number + 1}"
        name = f"ttyUSB{number}"
        port = usb / "1-1:1.0" / name
        tty = port / "tty" / name
        tty.mkdir(parents=True)
        for file, text in zip(("idVendor", "idProduct"), ids.split(":"), strict=True):
            (usb / file).write_text(text + "\n")
        (port / "latency_timer").write_text(latency + "\n")
        bus = self.root / "sys/bus/usb-serial"
        bus.mkdir(parents=True, exist_ok=True)
        (port / "subsystem").symlink_to(bus)
        (self.root / "sys/class/tty").mkdir(parents=True, exist_ok=True)
        (self.root / "sys/class/tty" / name).symlink_to(tty)
        node = self.root / "dev" / name
        node.parent.mkdir(exist_ok=True)
        node.touch(0o660)
        of_tty = {
            "ID_SERIAL_SHORT": serial, "ID_USB_INTERFACE_NUM": "00", "ID_MM_PORT_IGNORE": "1",
            "ID_PATH": f"pci-0-usb-0:{number}", "TAGS": ":systemd:uaccess:seat:",
        }  # fmt: skip
        self.properties[str(tty)] = of_tty
        self.properties[str(usb)] = {"ID_MM_DEVICE_IGNORE": "1"}
        self.properties[str(port)] = {"UDRIVER_LATENCY_WAS": "16"}
        link = self.root / "dev" / (link_name(of_tty) or "")
        link.parent.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(f"../{name}")
        return tty


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with a running udevd and nothing plugged in."""
    root = tmp_path / "machine"
    (root / "run/udev").mkdir(parents=True)
    (root / "run/udev/control").touch()
    (root / "etc").mkdir()
    return Machine(root)
