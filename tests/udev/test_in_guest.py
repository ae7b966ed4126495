# SPDX-License-Identifier: MIT
"""The rule against the real udevd and ftdi_sio; what is asserted is read from the system."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import pytest

from tests.vm.conftest import rung_qemu
from udriver.cli import Status
from vm.adapters import Adapter
from vm.machine import Machine

__all__ = ["rung_qemu"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

# A CDC-ACM device on a real cdc_acm: Linux's own gadget serial, on an emulated host controller.
GADGET = ("dummy_hcd", "usb_f_acm", "g_serial", "cdc_acm")
GADGET_LINK = "/dev/udriver/platform-dummy_hcd.0-usb-0:1:2.0"
HOSTILE = ['a"b, $x\n/../../evil', "../../evil", ".."]
PORTS = {1: "ttyUSB0", 2: "ttyUSB1", 3: "ttyUSB2", 4: "ttyUSB3"}

# Everything is done and looked at in one process: Python takes seconds to start in the guest.
PROGRAM = r"""
import glob, json, os, struct, subprocess, sys, time
from vm.guest import Rig

RULES = "/etc/udev/rules.d"
PORTS = sorted(glob.glob("/sys/bus/usb-serial/devices/*"))

def text(path):
    with open(path) as file:
        return file.read().strip()

def properties(path):
    out = subprocess.run(["udevadm", "info", "--query=property", "--path=" + path],
                         capture_output=True, text=True, check=True).stdout
    return dict(line.split("=", 1) for line in out.splitlines())

def look():
    seen = {"links": {}, "latency": {}, "tty": {}, "usb": {}, "rules": sorted(os.listdir(RULES))}
    for folder, _, names in os.walk("/dev/udriver"):
        for name in names:
            path = os.path.join(folder, name)
            seen["links"][path] = os.path.realpath(path)
    seen["dev"] = sorted(
        os.path.join(folder, name) for folder, _, names in os.walk("/dev") for name in names
        if not folder.startswith(("/dev/pts", "/dev/bus"))
        and not name.startswith("189:"))  # a replugged device has the next number on its bus
    for port in sorted(glob.glob("/sys/bus/usb-serial/devices/*")):
        name = os.path.basename(port)
        of = properties("/sys/class/tty/" + name)
        node = os.stat("/dev/" + name)
        seen["latency"][name] = int(text(port + "/latency_timer"))
        seen["tty"][name] = {
            "tags": sorted(filter(None, of.get("CURRENT_TAGS", "").split(":"))),
            "links": sorted(of["DEVLINKS"].split()),
            "mm": of.get("ID_MM_PORT_IGNORE"),
            "mode": oct(node.st_mode & 0o7777), "owner": [node.st_uid, node.st_gid],
            "acl": "system.posix_acl_access" in os.listxattr("/dev/" + name),
        }
        usb = os.path.dirname(os.path.dirname(os.path.realpath(port)))
        seen["usb"][name] = properties(usb).get("ID_MM_DEVICE_IGNORE")
    return seen

def udriver(*arguments, user=None):
    environment = dict(os.environ)
    if user is not None:
        environment["SUDO_UID"] = str(user)
    done = subprocess.run([sys.executable, "-m", "udriver", "udev", *arguments],
                          capture_output=True, text=True, env=environment)
    return {"status": done.returncode, "stdout": done.stdout, "stderr": done.stderr}

def until(condition):
    end = time.monotonic() + 20
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    subprocess.run(["udevadm", "settle"], check=True)

report = {}
until(lambda: os.path.exists("/run/udev/data/c166:0"))  # the rig waits for its adapters only
with open("/sys/bus/usb-serial/devices/ttyUSB1/latency_timer", "w") as file:
    file.write("16")  # what a chip on a desk says; QEMU's says 0
report["before"] = look()
report["install"] = udriver("install", "--yes", user=65534)
report["installed"] = look()

with Rig() as rig:
    rig.unplug()
    until(lambda: not os.path.exists("/dev/udriver/UD0001"))
    report["unplugged"] = look()
    rig.plug()
    until(lambda: os.path.exists("/dev/udriver/UD0001"))
report["replugged"] = look()

acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in [
    (1, 6, 2**32 - 1), (2, 6, 65534), (4, 6, 2**32 - 1), (16, 6, 2**32 - 1), (32, 0, 2**32 - 1)])
for port in PORTS:  # as logind would
    os.setxattr("/dev/" + os.path.basename(port), "system.posix_acl_access", acl)
os.setxattr("/dev/ttyACM0", "system.posix_acl_access", acl)
os.makedirs("/run/systemd/seats")
with open("/run/systemd/seats/seat0", "w") as file:
    file.write("ACTIVE_UID=65534\n")
report["seated"] = udriver("status", "--json", user=65534)

foreign = 'KERNEL=="nothing", SYMLINK+="mine"\n'
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", RULES], check=True)
with open(RULES + "/61-udriver.rules", "w") as file:
    file.write(foreign)
report["full"] = udriver("install", "--yes")
report["full_left"] = text(RULES + "/61-udriver.rules") == foreign.strip()
report["full_names"] = sorted(os.listdir(RULES))
subprocess.run(["umount", RULES], check=True)

report["uninstall"] = udriver("uninstall", "--yes")
report["after"] = look()
print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def report(rung_qemu: None) -> dict[str, Any]:
    """All that happened in one guest with one honest adapter, three hostile ones and a CDC-ACM device."""
    adapters = [Adapter()] + [
        Adapter(f"adapter{port}", serial, port + 1) for port, serial in enumerate(HOSTILE, 1)
    ]
    with Machine(adapters=adapters, extra_modules=GADGET) as vm:
        done = vm.run([sys.executable, "-c", PROGRAM], timeout=180)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_before_there_is_no_link_and_the_default_latency(report: dict[str, Any]) -> None:
    before = report["before"]
    assert before["links"] == {}
    assert not any(path.startswith("/dev/udriver") for path in before["dev"])
    assert before["latency"] == {"ttyUSB0": 0, "ttyUSB1": 16, "ttyUSB2": 0, "ttyUSB3": 0}
    assert before["rules"] == []
    for name, tty in before["tty"].items():
        assert "uaccess" not in tty["tags"]
        assert (tty["mm"], before["usb"][name]) == (None, None)


def test_after_installing_all_is_as_promised(report: dict[str, Any]) -> None:
    installed = report["installed"]
    assert installed["links"]["/dev/udriver/UD0001"] == "/dev/ttyUSB0"
    assert set(installed["latency"].values()) == {1}
    assert installed["rules"] == ["61-udriver.rules"]
    for name, tty in installed["tty"].items():
        assert "uaccess" in tty["tags"]
        assert (tty["mm"], installed["usb"][name]) == ("1", "1")
        assert (tty["mode"], tty["owner"]) == ("0o660", [0, 20])  # root:dialout, not ours to set


def test_a_hostile_serial_is_named_by_its_port_and_leads_nowhere(report: dict[str, Any]) -> None:
    before, installed = report["before"], report["installed"]
    for port in (2, 3, 4):
        link = f"/dev/udriver/pci-0000:00:01.0-usb-0:{port}:1.0"
        assert installed["links"].pop(link) == f"/dev/{PORTS[port]}"
    assert installed["links"] == {
        "/dev/udriver/UD0001": "/dev/ttyUSB0",
        GADGET_LINK: "/dev/ttyACM0",  # it has no serial at all
    }
    new = set(installed["dev"]) - set(before["dev"])
    assert {os.path.dirname(path) for path in new} == {"/dev/udriver"}
    assert len(new) == 5


def test_the_proof_saw_that_the_user_may_not_open_it(report: dict[str, Any]) -> None:
    done = report["install"]
    assert done["status"] == Status.FAILED
    failed = [line for line in done["stdout"].splitlines() if line.startswith("FAIL")]
    assert len(failed) == 5
    assert all("open: as nobody: Permission denied" in line for line in failed)
    assert all("`sudo usermod -aG dialout nobody`" in line for line in failed)
    assert "no logind here" in done["stdout"]


def test_with_the_acl_of_his_seat_he_may(report: dict[str, Any]) -> None:
    done = report["seated"]
    assert done["status"] == 0, done
    checks = json.loads(done["stdout"])["checks"]
    assert {check["ok"] for check in checks if check["what"] in ("acl", "open")} == {True}


def test_the_rule_acts_on_a_device_that_comes_later(report: dict[str, Any]) -> None:
    assert "/dev/udriver/UD0001" not in report["unplugged"]["links"]
    replugged = report["replugged"]
    assert replugged["links"]["/dev/udriver/UD0001"] == "/dev/ttyUSB0"
    assert replugged["latency"]["ttyUSB0"] == 1
    assert "uaccess" in replugged["tty"]["ttyUSB0"]["tags"]


def test_a_full_disk_leaves_the_old_file(report: dict[str, Any]) -> None:
    assert report["full"]["status"] == Status.FAILED
    assert "no space left on device" in report["full"]["stderr"]
    assert report["full_left"] is True
    assert set(report["full_names"]) <= {"61-udriver.rules", "61-udriver.rules.udriver-saved"}


def test_after_uninstalling_all_is_as_before(report: dict[str, Any]) -> None:
    assert report["uninstall"]["status"] == 0, report["uninstall"]
    assert report["after"] == report["before"]
