# SPDX-License-Identifier: MIT
"""``list`` and ``doctor`` on a real kernel with real udev and two emulated FT232 of one serial."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from vm.machine import Machine

pytestmark = pytest.mark.slow  # each starts an interpreter in a guest

TIMER = "/sys/bus/usb-serial/devices/ttyUSB0/latency_timer"
POWER = "/sys/bus/usb/devices/1-1/power/control"
CONSOLE = "/sys/class/tty/ttyS0/console"
FTDI = "/sys/bus/usb/drivers/ftdi_sio"
Result = subprocess.CompletedProcess[str]


def shell(guest: Machine, command: str) -> Result:
    return guest.run(["sh", "-c", command], timeout=50)


def udriver(guest: Machine, *arguments: str) -> Result:
    return guest.run(["python", "-m", "udriver", *arguments], timeout=50)


def ports(guest: Machine) -> dict[str, Any]:
    result = udriver(guest, "list", "--json")
    assert result.returncode == 0, result.stderr
    return {port["device"]: port for port in json.loads(result.stdout)["ports"]}


def findings(guest: Machine, *port: str) -> tuple[int, list[Any]]:
    result = udriver(guest, "doctor", "--json", *port)
    assert result.stdout, result.stderr
    return result.returncode, json.loads(result.stdout)["findings"]


@pytest.fixture
def held(guest: Machine) -> Iterator[int]:
    """The pid of a process that has /dev/ttyUSB0 open."""
    job = guest.start(["sh", "-c", "echo $$; exec sleep 1000 < /dev/ttyUSB0"])
    while not job.stdout().strip():
        assert job.poll() is None
    yield int(job.stdout())
    job.kill()
    job.wait(10)


def test_list(guest: Machine, held: int) -> None:
    shell(guest, f"echo 16 > {TIMER}")
    found = ports(guest)
    assert set(found) == {"/dev/ttyS0", "/dev/ttyUSB0", "/dev/ttyUSB1"}
    port = found["/dev/ttyUSB0"]
    path = "/dev/serial/by-path/pci-0000:00:01.0-usb-0:1:1.0-port0"
    assert port["chip"].startswith("FTDI FT232")
    assert port["product"] == "QEMU USB SERIAL"
    assert (port["driver"], port["vid"], port["pid"]) == ("ftdi_sio", "0403", "6001")
    assert (port["serial"], port["topology"], port["interface"]) == ("UD0001", "1-1", "00")
    assert (port["latency_timer"], port["low_latency"]) == (16, False)
    assert [held["pid"] for held in port["holders"]] == [held]
    assert port["by_path"] == [path]
    assert (port["link"], port["rule"]) == (None, None)
    assert (port["clone_of"], port["use_instead"]) == (["/dev/ttyUSB1"], path)


def test_the_table_marks_the_clones(guest: Machine) -> None:
    result = guest.run(
        ["python", "-m", "udriver", "list"], timeout=50, env={"COLUMNS": "150"}, check=True
    )
    assert len(re.findall(r"UD0001 \(clone\)", result.stdout)) == 2
    assert (
        "/dev/ttyUSB1 has the same ids and serial as /dev/ttyUSB0: use /dev/serial/"
        in result.stdout
    )


def test_held(guest: Machine, held: int) -> None:
    shell(guest, f"echo 1 > {TIMER}")
    status, found = findings(guest, "/dev/ttyUSB0")
    assert status == 1
    assert [(finding["check"], finding["fix"]) for finding in found] == [("holder", f"kill {held}")]


AS_NOBODY = """
import os, sys, udriver.cli, udriver.cli_doctor, udriver.doctor_usb, encodings.idna
for groups in ([], [20]):
    if os.fork() == 0:
        os.setgroups(groups), os.setgid(65534), os.setuid(65534)
        udriver.cli.main(["doctor", "--json", "/dev/ttyUSB0"])
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


def test_a_user_who_is_in_no_group_and_one_who_is(guest: Machine) -> None:
    shell(guest, f"echo 1 > {TIMER}")
    result = guest.run(["python", "-c", AS_NOBODY], timeout=50, check=True)
    without, first, within, second = map(json.loads, result.stdout.splitlines())
    (finding,) = without["findings"]
    assert (first, finding["check"]) == (1, "permission")
    assert finding["fix"] == "sudo usermod -aG dialout nobody, then log in again"
    assert (second, within["findings"]) == (0, [])


def test_the_fixes_that_are_printed_mend_it(guest: Machine) -> None:
    harm = f"echo 16 > {TIMER} && echo auto > {POWER} && echo Y > {CONSOLE}"
    assert shell(guest, f"echo 1 > {TIMER.replace('USB0', 'USB1')} && {harm}").returncode == 0
    status, found = findings(guest)
    assert (status, {(finding["device"], finding["check"]) for finding in found}) == (
        0,
        {
            ("/dev/ttyS0", "console"),
            ("/dev/ttyUSB0", "autosuspend"),
            ("/dev/ttyUSB0", "latency"),
        },
    )
    fixes = " && ".join(finding["fix"].replace("sudo ", "") for finding in found)
    assert shell(guest, fixes).returncode == 0
    assert findings(guest) == (0, [])


def test_a_driver_that_is_not_bound(guest: Machine, until: Callable[[str], None]) -> None:
    shell(guest, f"echo 1-2:1.0 > {FTDI}/unbind")
    status, found = findings(guest, "/dev/ttyUSB1")
    assert status == 3
    assert [finding["check"] for finding in found] == ["no-device", "driver"]
    assert shell(guest, found[1]["fix"].replace("sudo ", "")).returncode == 0
    until("test -e /dev/serial/by-path/*-usb-0:2:1.0-port0")
    assert findings(guest, "/dev/ttyUSB1")[0] == 0


@pytest.fixture
def until(guest: Machine) -> Callable[[str], None]:
    def wait(condition: str) -> None:
        loop = f"for i in $(seq 100); do {condition} && exit 0; sleep 0.1; done; exit 1"
        assert shell(guest, loop).returncode == 0, condition

    return wait
