# SPDX-License-Identifier: MIT
"""``udriver doctor PORT``: what PORT may be, the exit status, and one line for each finding."""

from __future__ import annotations

import os
import pty
from typing import TYPE_CHECKING

import click
import pytest

from udriver import cli_doctor, cli_list
from udriver.cli import Status
from udriver.cli_doctor import doctor_command, status_of
from udriver.drivers import access
from udriver.drivers.access import Node

if TYPE_CHECKING:
    from tests.doctor.conftest import Tree

BY_ID = "dev/serial/by-id/usb-FTDI_A1"


@pytest.mark.parametrize(
    "spec",
    [
        "/dev/ttyUSB0", "ttyUSB0", "usb-FTDI_A1", "/dev/serial/by-id/usb-FTDI_A1", "0403:6001",
        "0403:6001:A1",
    ],
)  # fmt: skip
def test_every_name_of_a_port(tree: Tree, spec: str) -> None:
    tree.write(f"{tree.usb()}/latency_timer", "16")
    tree.usb("ttyUSB1", "1-2", idProduct="6015")
    tree.link(BY_ID, "../../ttyUSB0")
    result = tree.diagnose(spec)
    assert [(finding.check, finding.device) for finding in result.findings] == [
        ("latency", "/dev/ttyUSB0")
    ]
    assert status_of(result) == Status.OK  # a warning prevents nothing


@pytest.mark.parametrize("spec", ["/dev/ttyUSB7", "ttyUSB7", "0403:6002", "0403:6001:B2"])
def test_no_such_device(tree: Tree, spec: str) -> None:
    tree.usb()
    result = tree.diagnose(spec)
    (finding,) = result.findings
    assert finding.check == "no-device"
    assert "there is /dev/ttyUSB0" in finding.what
    assert status_of(result) == Status.NO_DEVICE


def test_a_dangling_link(tree: Tree) -> None:
    tree.link(BY_ID, "../../ttyUSB0")
    result = tree.diagnose("usb-FTDI_A1")
    (finding,) = result.findings
    assert finding.check == "dangling"
    assert "a link to ../../ttyUSB0, which is not there" in finding.what
    assert status_of(result) == Status.NO_DEVICE
    tree.usb()
    assert tree.findings("usb-FTDI_A1") == []


def test_a_missing_port_and_the_adapter_it_should_be(tree: Tree) -> None:
    tree.device()
    result = tree.diagnose("/dev/ttyUSB0")
    assert [finding.check for finding in result.findings] == ["no-device", "driver"]
    assert status_of(result) == Status.NO_DEVICE


def test_a_regular_file_in_place_of_a_port(tree: Tree) -> None:
    tree.nodes["/dev/ttyUSB0"] = Node("a regular file")
    result = tree.diagnose("/dev/ttyUSB0")
    assert [finding.fix for finding in result.findings] == [
        "sudo rm /dev/ttyUSB0, then plug the device in again"
    ]
    assert status_of(result) == Status.FAILED
    tree.usb()
    assert tree.findings("/dev/ttyUSB0") == []


@pytest.mark.parametrize(
    ("path", "node", "what"),
    [
        ("/dev/null", Node("tty"), "is not a serial port of this system"),
        ("/tmp", Node("a directory"), "is a directory"),
        ("", Node("a directory"), "is a directory"),
        ("/tmp/file", Node("a regular file"), "is a regular file"),
    ],
)
def test_what_is_no_port(tree: Tree, path: str, node: Node, what: str) -> None:
    tree.nodes[path or "/dev/"] = node
    result = tree.diagnose(path)
    assert [finding.what for finding in result.findings] == [what]
    assert status_of(result) == Status.FAILED


def test_a_pty(tree: Tree) -> None:
    master, slave = pty.openpty()
    try:
        path = os.ttyname(slave)
        tree.nodes[path] = Node("tty", uid=tree.user.uid)
        assert tree.diagnose(path).examined == [path]
        assert tree.findings(path) == []
        tree.nodes[path] = Node("tty", gid=5, mode=0o620)
        assert [finding.check for finding in tree.findings(path)] == ["permission"]
    finally:
        os.close(master)
        os.close(slave)


def test_a_keyboard(tree: Tree) -> None:
    tree.device(idVendor="046d", idProduct="c31c")
    tree.write("sys/devices/pci0/usb1/1-1/1-1:1.0/modalias", "usb:v046DpC31Cd1ic03isc01ip01in00")
    result = tree.diagnose("046d:c31c")
    assert [finding.check for finding in result.findings] == ["no-tty"]
    assert status_of(result) == Status.FAILED


def test_nothing_to_examine(tree: Tree) -> None:
    assert status_of(tree.diagnose()) == Status.SKIPPED


def test_an_error_is_told_by_the_status(tree: Tree) -> None:
    tree.usb()
    assert status_of(tree.diagnose()) == Status.OK
    tree.process(41, "tio", "tio", "/dev/ttyUSB0")
    assert status_of(tree.diagnose()) == Status.FAILED


def test_the_built_in_pty_needs_none() -> None:
    with pytest.raises(click.UsageError, match="nothing to examine"):
        doctor_command("pty", False)


@pytest.fixture
def system(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """The commands read this tree, as this user."""
    for module in (cli_doctor, cli_list):
        monkeypatch.setattr(module, "Root", lambda: tree.root)
    monkeypatch.setattr(access, "look", lambda path: tree.look(tree.root.shown(path)))
    monkeypatch.setenv("COLUMNS", "160")
    return tree


def test_one_line_whatever_a_device_calls_itself(
    system: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "[bold]A1\n/dev/ttyUSB9\x1b[31m"
    system.usb(serial=evil, idVendor="1209", product=evil)
    system.process(41, "evil", f"{evil};$(reboot)", "/dev/ttyUSB0")
    assert doctor_command(None, False) == Status.FAILED
    out = capsys.readouterr().out
    assert out == (
        "error: /dev/ttyUSB0: is held by pid 41 ([bold]A1\\n/dev/ttyUSB9\\x1b[31m;$(reboot)); "
        "fix: kill 41\n"
    )
    cli_list.list_command(False)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "[bold]A1\\n/dev/ttyUSB9" in out


def test_the_table(system: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    system.usb()
    system.usb("ttyUSB1", "1-2")
    assert cli_list.list_command(False) == Status.OK
    out = capsys.readouterr().out
    for cell in ("/dev/ttyUSB0", "FTDI FT232R", "ftdi_sio", "0403:6001", "A1 (clone)", "1-2:00.0"):
        assert cell in out
    assert (
        "/dev/ttyUSB0 has the same ids and serial as /dev/ttyUSB1: use /dev/serial/by-path" in out
    )
    assert "held by" not in out  # a column with nothing in it is left out


def test_an_empty_list_says_how_to_get_a_port(
    system: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli_list.list_command(True) == Status.OK
    printed = capsys.readouterr()
    assert printed.out == '{"schema": "udriver.list/1", "ports": []}\n'
    assert "`udriver sim` serves one on a pty" in printed.err
