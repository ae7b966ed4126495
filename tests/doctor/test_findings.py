# SPDX-License-Identifier: MIT
"""Every finding: made when its fault is there, gone when the fault is mended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from udriver.doctor import diagnose
from udriver.drivers.access import Node, User

if TYPE_CHECKING:
    from tests.doctor.conftest import Tree

USB = "/dev/ttyUSB0"
LATE = "etc/udev/rules.d/99-mine.rules"
TAG = 'SUBSYSTEM=="tty", ATTRS{idVendor}=="0403", TAG+="uaccess"'
CANDIDATE = {"ID_MM_CANDIDATE": "1"}
BRLTTY = "usr/lib/udev/rules.d/85-brltty.rules"
BAUM = 'ENV{PRODUCT}=="403/6001/*", ATTR{manufacturer}=="FTDI", ENV{BRLTTY_BRAILLE_DRIVER}="bm"'
NOBODY = User("ann", 1000, frozenset({1000}))


@dataclass(frozen=True)
class Fault:
    """How to break a healthy system, how to mend it, and what is said in between."""

    check: str
    severity: str
    fix: str
    harm: Callable[[Tree], object]
    mend: Callable[[Tree], object]
    says: str = ""


def steps(*actions: Callable[[Tree], object]) -> Callable[[Tree], None]:
    def all_of_them(tree: Tree) -> None:
        for action in actions:
            action(tree)

    return all_of_them


def write(path: str, text: str) -> Callable[[Tree], None]:
    return lambda tree: tree.write(path, text)


def node(**changes: object) -> Callable[[Tree], None]:
    def change(tree: Tree) -> None:
        tree.nodes[USB] = replace(tree.nodes.get(USB, Node("tty", gid=20)), **changes)  # type: ignore[arg-type]

    return change


def user(who: User) -> Callable[[Tree], None]:
    return lambda tree: setattr(tree, "user", who)


def remove(path: str) -> Callable[[Tree], None]:
    return lambda tree: (tree.top / path).unlink()


def adapter(tree: Tree) -> None:
    tree.usb()


def bare(tree: Tree) -> None:
    tree.device()


def bound(tree: Tree) -> None:
    interface = tree.top / "sys/devices/pci0/usb1/1-1/1-1:1.0/driver"
    interface.unlink(missing_ok=True)
    interface.symlink_to("/sys/bus/usb/drivers/ftdi_sio")


def loaded(tree: Tree) -> None:
    (tree.root.sys / "bus/usb/drivers/ftdi_sio").mkdir(parents=True)


def taken(tree: Tree) -> None:
    tree.link("sys/devices/pci0/usb1/1-1/1-1:1.0/driver", "/sys/bus/usb/drivers/usbfs")
    tree.process(77, "openocd", "openocd -f x", "/dev/bus/usb/001/001")


DRIVER = "sys/bus/usb-serial/devices/ttyUSB0"
POWER = "sys/devices/pci0/usb1/1-1/power/control"
TIMER = "sys/devices/pci0/usb1/1-1/1-1:1.0/ttyUSB0/latency_timer"

FAULTS = {
    "not in the group": Fault(
        "permission", "error", "sudo usermod -aG dialout ann, then log in again",
        steps(adapter, user(NOBODY), write("etc/group", "dialout:x:20:")),
        user(User("ann", 1000, frozenset({20}))), "mode 0660, group dialout, does not admit ann",
    ),
    "in the group since after the login": Fault(
        "permission", "error", "newgrp dialout",
        steps(adapter, user(NOBODY)), user(User("ann", 1000, frozenset({1000, 20}))),
        "after this login",
    ),
    "group may not write": Fault(
        "permission", "error", f"sudo setfacl -m u:ann:rw {USB}",
        steps(adapter, node(mode=0o640)), node(mode=0o660), "mode 0640",
    ),
    "root's alone, mended by an ACL": Fault(
        "permission", "error", f"sudo setfacl -m u:ann:rw {USB}",
        steps(adapter, node(gid=0, mode=0o600)),
        node(acl=((1, 6, 0), (2, 6, 1000), (4, 0, 0), (16, 6, 0), (32, 0, 0))),
    ),
    "device cgroup": Fault(
        "refused", "error", f"docker run --device={USB} ...",
        steps(adapter, node(refused=True), write("run/systemd/container", "docker")),
        node(refused=False), "the docker container refuses it",
    ),
    "refused, and no container": Fault(
        "refused", "error", "sudo journalctl -k --grep=denied",
        steps(adapter, node(refused=True)), node(refused=False), "a security module refuses it",
    ),
    "no node in the container": Fault(
        "node", "error", f"podman run --device={USB} ...",
        steps(adapter, write("run/.containerenv", ""), lambda tree: tree.nodes.clear()), node(),
    ),
    "no node": Fault(
        "node", "error", f"sudo mknod -m 660 {USB} c 188 0",
        steps(adapter, lambda tree: tree.nodes.clear()), node(),
    ),
    "a file in the node's place": Fault(
        "node", "error", f"sudo rm {USB}; then plug the device in again",
        steps(adapter, node(kind="a regular file")), node(kind="tty"),
    ),
    "uaccess too late": Fault(
        "uaccess", "warning", "/etc/udev/rules.d/99-mine.rules /etc/udev/rules.d/61-mine.rules",
        steps(adapter, write(LATE, TAG), lambda tree: tree.record("188:0", {}, "uaccess")),
        lambda tree: (tree.top / LATE).rename(tree.top / "etc/udev/rules.d/61-mine.rules"),
        "99-mine.rules:1 comes after 73-seat-late.rules",
    ),
    "uaccess too late, mended by an earlier file": Fault(
        "uaccess", "warning", "sudo mv",
        steps(adapter, write(LATE, "# mine\n" + TAG), lambda t: t.record("188:0", {}, "uaccess")),
        write("run/udev/rules.d/61-udriver.rules", TAG), "99-mine.rules:2",
    ),
    "uaccess too late, mended by the seat's ACL": Fault(
        "uaccess", "warning", "sudo mv",
        steps(adapter, write(LATE, TAG), lambda tree: tree.record("188:0", {}, "uaccess")),
        node(acl=((1, 6, 0), (2, 6, 1000), (4, 6, 0), (16, 6, 0), (32, 0, 0))),
    ),
    "uaccess too late for a file that is not there": Fault(
        "uaccess", "warning", "sudo mv",
        steps(adapter, write(LATE, TAG), lambda tree: tree.record("188:0", {}, "uaccess")),
        remove("usr/lib/udev/rules.d/73-seat-late.rules"),
    ),
    "uaccess too late, in a file for another vendor": Fault(
        "uaccess", "warning", "sudo mv",
        steps(adapter, write(LATE, TAG), lambda tree: tree.record("188:0", {}, "uaccess")),
        write(LATE, TAG.replace("0403", "1a86")),
    ),
    "held": Fault(
        "holder", "error", "kill 41",
        steps(adapter, lambda tree: tree.process(41, "tio", f"tio {USB}", USB)),
        lambda tree: tree.end(41), f"is held by pid 41 (tio {USB})",
    ),
    "getty": Fault(
        "getty", "error", "sudo systemctl stop serial-getty@ttyUSB0.service",
        steps(adapter, lambda tree: tree.process(9, "agetty", "/sbin/agetty ttyUSB0 vt220", USB)),
        lambda tree: tree.end(9), "pid 9 (agetty)",
    ),
    "getty without systemd": Fault(
        "getty", "error", "sudo kill 9",
        steps(adapter, lambda tree: (tree.root.run / "systemd/system").rmdir(),
              lambda tree: tree.process(9, "getty", "/sbin/getty -L ttyUSB0")),
        lambda tree: tree.end(9),
    ),
    "kernel console": Fault(
        "console", "warning", "take console=ttyUSB0 out of the kernel's command line and restart",
        steps(adapter, write("sys/class/tty/console/active", "tty0 ttyUSB0")),
        write("sys/class/tty/console/active", "tty0"),
    ),
    "ModemManager": Fault(
        "modemmanager", "warning", "udriver udev install",
        steps(adapter, lambda tree: tree.process(5, "ModemManager"),
              lambda tree: tree.record("188:0", CANDIDATE)),
        lambda tree: tree.record("189:1", {"ID_MM_DEVICE_IGNORE": "1"}), "ModemManager (5) runs",
    ),
    "ModemManager, mended by the port's mark": Fault(
        "modemmanager", "warning", "sudo systemctl stop ModemManager",
        steps(lambda tree: tree.usb(idVendor="1209"), lambda tree: tree.process(5, "ModemManager"),
              lambda tree: tree.record("188:0", CANDIDATE)),
        lambda tree: tree.record("188:0", {**CANDIDATE, "ID_MM_PORT_IGNORE": "1"}),
    ),
    "ModemManager, mended by its end": Fault(
        "modemmanager", "warning", "udriver udev install",
        steps(adapter, lambda tree: tree.process(5, "ModemManager"),
              lambda tree: tree.record("188:0", CANDIDATE)),
        lambda tree: tree.end(5),
    ),
    "brltty's rule": Fault(
        "brltty", "warning", "sudo sed -i.orig 3d /etc/udev/rules.d/85-brltty.rules",
        steps(adapter, write(BRLTTY, "# Baum\n\n" + BAUM)),
        write("etc/udev/rules.d/85-brltty.rules", "# Baum\n\n"), "85-brltty.rules:3",
    ),
    "brltty's rule, mended by another maker's name": Fault(
        "brltty", "warning", "sed",
        steps(adapter, write(BRLTTY, BAUM)),
        write("sys/devices/pci0/usb1/1-1/manufacturer", "QEMU"),
    ),
    "autosuspend": Fault(
        "autosuspend", "warning", "echo on | sudo tee /sys/bus/usb/devices/1-1/power/control",
        steps(adapter, write(POWER, "auto")), write(POWER, "on"), "2000 ms",
    ),
    "autosuspend, mended by its delay": Fault(
        "autosuspend", "warning", "echo on", steps(adapter, write(POWER, "auto")),
        write("sys/devices/pci0/usb1/1-1/power/autosuspend_delay_ms", "-1000"),
    ),
    "latency timer": Fault(
        "latency", "warning", f"echo 1 | sudo tee /{DRIVER}/latency_timer",
        steps(adapter, write(TIMER, "16")), write(TIMER, "1"), "16 ms and low_latency is off",
    ),
    "driver not loaded": Fault(
        "driver", "error", "sudo modprobe ftdi_sio", bare, bound, "not loaded",
    ),
    "driver not bound": Fault(
        "driver", "error", "echo 1-1:1.0 | sudo tee /sys/bus/usb/drivers/ftdi_sio/bind",
        steps(bare, loaded), bound, "loaded, but not bound",
    ),
    "taken by a program": Fault(
        "driver", "error", "sudo kill 77 && echo 1-1:1.0 | sudo tee", steps(bare, loaded, taken), bound,
        "pid 77 (openocd -f x) has taken interface 1-1:1.0",
    ),
    "detached by brltty": Fault(
        "driver", "error", "sed -i.orig 1d", steps(bare, loaded, write(BRLTTY, BAUM)), bound,
        "brltty's rule /usr/lib/udev/rules.d/85-brltty.rules:1",
    ),
    "kernel without the driver": Fault(
        "driver", "error", "CONFIG_USB_SERIAL_FTDI_SIO=m", steps(bare, lambda tree: tree.modules()),
        bound, "Linux 6.12.1 has no ftdi_sio",
    ),
    "Ubuntu without the extra modules": Fault(
        "driver", "error", "sudo apt-get install linux-modules-extra-6.12.1",
        steps(bare, lambda tree: tree.modules(), write("etc/os-release", 'NAME="x"\nID=ubuntu')),
        bound,
    ),
    "kernel updated, not restarted": Fault(
        "driver", "error", "sudo reboot",
        steps(bare, write("proc/sys/kernel/osrelease", "6.11.0")), bound, "Linux 6.11.0",
    ),
    "driver not loaded, seen from a container": Fault(
        "driver", "error", "# on the host",
        steps(bare, lambda tree: tree.modules(), write("run/systemd/container", "lxc")), bound,
    ),
    "CDC ACM without cdc_acm": Fault(
        "driver", "error", "sudo modprobe cdc_acm",
        steps(lambda tree: tree.device(idVendor="cafe"),
              write("sys/devices/pci0/usb1/1-1/1-1:1.0/modalias", "usb:vCAFEp6001d0ic02isc02ip01in00")),
        bound,
    ),
    "no udevd": Fault(
        "udev", "warning", "sudo systemctl start systemd-udevd",
        steps(adapter, lambda tree: (tree.root.run / "udev").rmdir()),
        lambda tree: (tree.root.run / "udev").mkdir(),
    ),
    "container without udev": Fault(
        "udev", "warning", "docker run -v /run/udev:/run/udev:ro",
        steps(adapter, lambda tree: (tree.root.run / "udev").rmdir(),
              write("proc/1/cgroup", "0::/docker/abc")),
        lambda tree: (tree.root.run / "udev").mkdir(), "the docker container",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_found(tree: Tree, name: str) -> None:
    fault = FAULTS[name]
    fault.harm(tree)
    (finding,) = tree.findings()  # and no other: a fault is not reported twice
    assert (finding.check, finding.severity) == (fault.check, fault.severity)
    assert fault.fix in finding.fix
    assert fault.says in finding.what


@pytest.mark.parametrize("name", FAULTS)
def test_mended(tree: Tree, name: str) -> None:
    fault = FAULTS[name]
    fault.harm(tree)
    fault.mend(tree)
    assert fault.check not in [finding.check for finding in tree.findings()]


def test_a_healthy_port_has_no_finding(tree: Tree) -> None:
    tree.usb()
    tree.platform()
    assert tree.findings() == []


def test_a_capability_admits_whom_the_mode_does_not(tree: Tree) -> None:
    """access(2) has the last word, and it said yes."""
    tree.usb()
    scene = replace(tree.scene(), user=NOBODY, look=lambda path: Node("tty", gid=20))
    assert diagnose(None, scene).findings == []


def test_an_empty_system_has_no_finding(tree: Tree) -> None:
    assert tree.findings() == []


def test_what_is_not_serial_is_left_alone(tree: Tree) -> None:
    tree.device(idVendor="046d", idProduct="c31c")
    tree.write("sys/devices/pci0/usb1/1-1/1-1:1.0/modalias", "usb:v046DpC31Cd1ic03isc01ip01in00")
    assert tree.findings() == []


def test_the_console_attribute_is_the_fix_where_there_is_one(tree: Tree) -> None:
    tty = tree.platform()
    tree.write("sys/class/tty/console/active", "ttyS0")
    tree.write(f"{tty}/console", "Y")
    (finding,) = tree.findings()
    assert finding.fix == "echo N | sudo tee /sys/class/tty/ttyS0/console"


@pytest.mark.parametrize("policy", ["whitelist-only", "ALLOWLIST-ONLY"])
def test_modem_manager_that_only_takes_what_it_is_given(tree: Tree, policy: str) -> None:
    tree.usb()
    tree.record("188:0", CANDIDATE)
    tree.process(5, "ModemManager", f"/usr/sbin/ModemManager --filter-policy={policy}")
    assert tree.findings() == []
