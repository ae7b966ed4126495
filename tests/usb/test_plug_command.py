# SPDX-License-Identifier: MIT
"""`udriver sim --usb` where nothing can be plugged in: one sentence and a status each."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.usb.host import MS
from udriver_hw import plug, vhci
from udriver_hw.chips.cable import FarEnd, Jumpered, NullModem
from udriver_hw.desk import Desk
from udriver_hw.plugged import Plugged


def sim(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "udriver", "sim", *arguments]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.skipif(vhci.why_not() is None, reason="here one can be plugged in")
@pytest.mark.parametrize("name", plug.CHIPS)
def test_without_vhci_or_root_it_is_77_and_one_sentence(name: str) -> None:
    done = sim("--usb", name)
    assert (done.returncode, done.stdout) == (77, "")
    assert done.stderr.count("\n") == 1
    assert str(vhci.why_not()) in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--usb", "ft232r", "--serial", "x" * 40], 2, "EEPROM has no room"),
        (["--usb", "cp210x", "--serial", "x" * 64], 2, "63 characters"),
        (["--usb", "cdc_acm", "--serial", "x" * 127], 2, "longer than 126"),
        (["--usb", "ft232r", "--script", "/nonexistent"], 2, "No such file"),
        (["--usb", "pl2303"], 2, "is not one of"),
        (["--usb", "ft232r", "--link", "here"], 2, "--link goes with a pty"),
        (["--wiring", "null-modem"], 2, "--usb only"),
        (["--serial", "X"], 2, "--usb only"),
    ],
)
def test_what_cannot_be_is_refused(arguments: list[str], status: int, says: str) -> None:
    done = sim(*arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", plug.CHIPS)
def test_two_chips_of_any_kind_have_two_serials_and_one_cable(name: str) -> None:
    one, other = plug._wired(plug._arguments([name, "--wiring", "null-modem"]))
    assert one.idProduct == other.idProduct == plug.CHIPS[name]().idProduct
    assert one.cable is other.cable
    assert one.strings[2] != other.strings[2]


@pytest.mark.parametrize(
    ("options", "cables"),
    [
        ([], [Jumpered]),
        (["--wiring", "echo"], [FarEnd]),
        (["--wiring", "null-modem"], [NullModem, NullModem]),
    ],
)
def test_what_is_on_the_wire(options: list[str], cables: list[type]) -> None:
    chips = plug._wired(plug._arguments(["ft232r", *options]))
    assert [type(chip.cable) for chip in chips] == cables


def test_a_script_is_read(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text('send b"hello"')
    (chip,) = plug._wired(plug._arguments(["ft232r", "--script", str(script)]))
    chip.advance(MS)
    assert chip.dte.head().data == b"hello"


class Here(Plugged):
    """Plugged into no kernel: the wire's host end stays with us."""

    def plug(self) -> list[str]:
        import threading

        from udriver_hw.wire_usbip import UsbipWire

        self.chips = list(self._make())
        self.wire = UsbipWire(*self.chips)
        self._thread = threading.Thread(target=self.wire.serve)
        self._thread.start()
        return ["/dev/nowhere"]

    def detach(self) -> None:
        super().detach()
        for end in self.wire.host_ends:
            end.close()


def test_the_desk() -> None:
    plugged = Here(lambda: plug._wired(plug._arguments(["ft232r"])))
    plugged.plug()
    desk = Desk(plugged)
    chip = plugged.chips[0]
    try:
        for line in ("line cts on", 'send b"abc"', 'error parity b"x"', "wire off", "hold on"):
            assert desk.do(line).startswith("ok "), line
        assert chip.dte.inputs["cts"] is True
        assert len(chip.dte) == 4
        told = desk.do("state")
        assert '"overruns": 0' in told
        assert told.split()[-1].isdecimal()
        assert desk.do("heard").startswith("ok b'' ")
        for line in (
            "",
            "line cts",
            "line xyz on",
            "send abc",
            "error odd b'x'",
            "jump",
            "2 state",
        ):
            assert desk.do(line).startswith("error "), line
        assert desk.do("unplug").startswith("ok ")
        assert desk.do("line cts off") == "error it is not plugged in"
        assert desk.do("plug").startswith("ok /dev/nowhere ")
        assert desk.do("line cts off").startswith("ok ")
        assert desk.do("detach").startswith("ok ")
    finally:
        plugged.detach()
