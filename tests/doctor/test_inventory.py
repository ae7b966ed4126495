# SPDX-License-Identifier: MIT
"""``udriver list``: every port that exists, and each fact about it from where the kernel keeps it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from udriver.cli_list import report
from udriver.drivers.inventory import SerialPort, serial_ports
from udriver.drivers.system import container, processes
from udriver.drivers.udevdb import rules_files

if TYPE_CHECKING:
    from tests.doctor.conftest import Tree


def ports(tree: Tree) -> list[SerialPort]:
    return serial_ports(tree.root, processes(tree.root), rules_files(tree.root))


def test_every_fact_of_an_adapter(tree: Tree) -> None:
    tree.usb()
    tree.link("dev/serial/by-id/usb-FTDI_A1", "../../ttyUSB0")
    tree.link("dev/udriver/A1", "../ttyUSB0")
    tree.write("usr/lib/udev/rules.d/61-udriver.rules", "# packaged\nA=1")
    tree.write("etc/udev/rules.d/61-udriver.rules", "# mine\nA=1")
    tree.process(41, "tio", "tio /dev/ttyUSB0", "/dev/null", "/dev/ttyUSB0")
    (entry,) = json.loads(json.dumps(report(ports(tree))))["ports"]
    assert entry == {
        "device": "/dev/ttyUSB0",
        "chip": "FTDI FT232R, FT232B, FT245R",
        "driver": "ftdi_sio",
        "vid": "0403",
        "pid": "6001",
        "serial": "A1",
        "manufacturer": "FTDI",
        "product": "FT232R",
        "topology": "1-1",
        "interface": "00",
        "port_number": 0,
        "latency_timer": 1,
        "low_latency": None,
        "holders": [{"pid": 41, "command": "tio /dev/ttyUSB0"}],
        "holders_complete": True,
        "by_id": ["/dev/serial/by-id/usb-FTDI_A1"],
        "by_path": ["/dev/serial/by-path/pci-0-usb-0:1-1:1.0"],
        "link": "/dev/udriver/A1",
        "rule": "/etc/udev/rules.d/61-udriver.rules",
        "clone_of": [],
        "use_instead": None,
    }


def test_a_port_of_the_machine_has_the_driver_below_the_serial_core(tree: Tree) -> None:
    tree.platform()
    (port,) = ports(tree)
    assert (port.driver, port.chip, port.usb) == ("serial", "serial", None)


def test_a_cdc_acm_port_hangs_on_its_interface(tree: Tree) -> None:
    folder = tree.device(idVendor="2341", idProduct="0043")
    tree.link(f"{folder}/1-1:1.0/driver", "/sys/bus/usb/drivers/cdc_acm")
    tree._tty(f"{folder}/1-1:1.0", "ttyACM0", "166:0")
    (port,) = ports(tree)
    assert (port.driver, port.chip, port.interface) == ("cdc_acm", "Arduino Uno R3", "00")
    assert (port.topology, port.latency_timer) == ("1-1", None)


def test_a_pl011_of_a_kernel_without_the_serial_core_layer(tree: Tree) -> None:
    tree.link("sys/devices/platform/fe201000.serial/driver", "/sys/bus/amba/drivers/uart-pl011")
    tree._tty("sys/devices/platform/fe201000.serial", "ttyAMA0", "204:64")
    (port,) = ports(tree)
    assert (port.device, port.driver) == ("/dev/ttyAMA0", "uart-pl011")


@pytest.mark.parametrize(
    ("behind", "kind", "exists"),
    [
        ("pnp0/00:02", "4", True),
        ("pnp0/00:02", "0", False),  # PORT_UNKNOWN: no chip answered
        ("platform/serial8250", "0", False),
        ("platform/serial8250", "", False),  # who is not root may not read the type
        ("platform/serial8250", "4", True),
        ("pnp0/00:02", "", True),
    ],
)
def test_only_what_really_exists(tree: Tree, behind: str, kind: str, exists: bool) -> None:
    tree.platform(behind=behind, kind=kind)
    assert len(ports(tree)) == exists


def test_a_virtual_terminal_is_no_port(tree: Tree) -> None:
    tree.write("sys/devices/virtual/tty/tty1/dev", "4:1")
    tree.link("sys/class/tty/tty1", "../../devices/virtual/tty/tty1")
    assert ports(tree) == []


def test_no_sysfs_no_ports(tree: Tree) -> None:
    (tree.root.sys / "class/tty").rmdir()
    assert ports(tree) == []


def test_in_the_order_of_their_numbers(tree: Tree) -> None:
    for name in ("ttyUSB2", "ttyUSB1"):
        tree.usb(name, f"1-{name[-1]}", serial=name)
    tree.platform()
    assert [port.name for port in ports(tree)] == ["ttyS0", "ttyUSB1", "ttyUSB2"]


def test_clones_are_told_apart_by_their_place(tree: Tree) -> None:
    tree.usb("ttyUSB0", "1-1")
    tree.usb("ttyUSB1", "1-2")
    tree.usb("ttyUSB2", "1-3", serial="B2")
    first, second, other = ports(tree)
    assert first.clone_of == ("/dev/ttyUSB1",)
    assert second.clone_of == ("/dev/ttyUSB0",)
    assert first.use_instead == "/dev/serial/by-path/pci-0-usb-0:1-1:1.0"
    assert (other.clone_of, other.use_instead) == ((), "")


def test_clones_without_udev_are_named_by_their_usb_port(tree: Tree) -> None:
    for number in (0, 1):
        tree.usb(f"ttyUSB{number}", f"1-{number + 1}", serial="")
        (tree.root.dev / f"serial/by-path/pci-0-usb-0:1-{number + 1}:1.0").unlink()
    assert [port.use_instead for port in ports(tree)] == ["USB port 1-1", "USB port 1-2"]


def test_two_ports_of_one_adapter_are_no_clones(tree: Tree) -> None:
    folder = tree.usb("ttyUSB0", "1-1").removesuffix("/1-1:1.0/ttyUSB0")
    tree.write(f"{folder}/1-1:1.1/bInterfaceNumber", "01")
    tree._tty(f"{folder}/1-1:1.1/ttyUSB1", "ttyUSB1", "188:1")
    assert [(port.interface, port.clone_of) for port in ports(tree)] == [("00", ()), ("01", ())]


@pytest.mark.parametrize(("flags", "low"), [("0x10000040", False), ("0x10002040", True)])
def test_the_flag_of_an_8250(tree: Tree, flags: str, low: bool) -> None:
    tree.write(f"{tree.platform()}/flags", flags)
    (port,) = ports(tree)
    assert port.low_latency is low


def test_a_timer_above_1_ms_proves_that_the_flag_is_off(tree: Tree) -> None:
    tree.write(f"{tree.usb()}/latency_timer", "16")
    (port,) = ports(tree)
    assert (port.latency_timer, port.low_latency) == (16, False)


def test_the_rule_is_not_named_where_it_gave_no_link(tree: Tree) -> None:
    tree.usb()
    tree.write("etc/udev/rules.d/61-udriver.rules", "A=1")
    (port,) = ports(tree)
    assert (port.link, port.rule) == ("", "")


def test_a_masked_rules_file_is_not_in_force(tree: Tree) -> None:
    tree.write("usr/lib/udev/rules.d/61-udriver.rules", "A=1")
    tree.link("etc/udev/rules.d/61-udriver.rules", "/dev/null")
    assert [file.name for file in rules_files(tree.root)] == ["73-seat-late.rules"]


def test_rules_files_are_read_by_name_and_lines_are_joined(tree: Tree) -> None:
    tree.write("usr/lib/udev/rules.d/70-b.rules", "# no\n\nA==1, \\\n  B=2\nC=3")
    tree.write("run/udev/rules.d/60-a.rules", "A=1")
    tree.write("etc/udev/rules.d/50-not", "A=1")
    first, second, _ = rules_files(tree.root)
    assert (first.path, second.name) == ("/run/udev/rules.d/60-a.rules", "70-b.rules")
    assert second.rules == ((3, "A==1, B=2"), (5, "C=3"))


@pytest.mark.parametrize(
    ("path", "text", "kind"),
    [
        ("run/systemd/container", "systemd-nspawn", "systemd-nspawn"),
        (".dockerenv", "", "docker"),
        ("run/.containerenv", "", "podman"),
        ("proc/1/environ", "A=1\0container=lxc\0", "lxc"),
        ("proc/1/cgroup", "1:name=x:/kubepods/abc", "kubepods"),
        ("proc/1/cgroup", "0::/init.scope", ""),
    ],
)
def test_container(tree: Tree, path: str, text: str, kind: str) -> None:
    tree.write(path, text)
    assert container(tree.root) == kind
