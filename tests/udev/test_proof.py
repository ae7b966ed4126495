# SPDX-License-Identifier: MIT
"""Each promise, broken one at a time: exactly that check fails, and it says what to do."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.udev.conftest import Machine
from udriver.udev_proof import Check, User, acl_users, invoking_user, open_as, prove
from udriver.udev_system import Result

ME = User(os.geteuid(), os.getegid(), "me", tuple(os.getgroups()))
NOBODY = User(65534, 65534, "nobody", ())


def proof(machine: Machine, user: User = ME) -> dict[str, Check]:
    checks = prove(machine.system, machine.system.plugged(), user)
    return {f"{check.device[-1]} {check.what}": check for check in checks}


def failed(machine: Machine, user: User = ME) -> list[str]:
    return [name for name, check in proof(machine, user).items() if check.ok is False]


def test_all_promises_kept(machine: Machine) -> None:
    machine.plug()
    found = proof(machine)
    assert {name: check.ok for name, check in found.items()} == {
        "0 link": True, "0 mode": True, "0 uaccess": True, "0 acl": None,
        "0 latency": True, "0 ModemManager": True, "0 open": True,
    }  # fmt: skip
    assert str(found["0 link"]) == "ok   /dev/ttyUSB0 link: /dev/udriver/S1"
    assert "no logind here" in found["0 acl"].says


@pytest.mark.parametrize("what", ["latency", "ModemManager"])
def test_the_fix_triggers_what_the_rule_acts_on(machine: Machine, what: str) -> None:
    machine.plug(latency="16")
    for usb in (device.usb for device in machine.system.plugged()):
        machine.properties[str(usb)] = {}
    assert (
        "/sys/bus/usb/devices/1-1 /sys/bus/usb-serial/devices/ttyUSB0 /sys/class/tty/ttyUSB0`"
        in proof(machine)[f"0 {what}"].fix
    )


def test_another_device_is_not_looked_at(machine: Machine) -> None:
    machine.plug(ids="0403:ffff")
    assert machine.system.plugged() == []


def no_link(machine: Machine, tty: Path) -> None:
    (machine.root / "dev/udriver/S1").unlink()


def link_to_another(machine: Machine, tty: Path) -> None:
    no_link(machine, tty)
    (machine.root / "dev/udriver/S1").symlink_to("../ttyUSB7")


def a_file_for_a_link(machine: Machine, tty: Path) -> None:
    no_link(machine, tty)
    (machine.root / "dev/udriver/S1").touch()


def no_names(machine: Machine, tty: Path) -> None:
    machine.properties[str(tty)] |= {"ID_SERIAL_SHORT": "..", "ID_PATH": ""}


def open_to_all(machine: Machine, tty: Path) -> None:
    (machine.root / "dev/ttyUSB0").chmod(0o666)


def no_tag(machine: Machine, tty: Path) -> None:
    machine.properties[str(tty)]["CURRENT_TAGS"] = ":systemd:"  # TAGS keeps what once was


def slow(machine: Machine, tty: Path) -> None:
    (tty.parents[1] / "latency_timer").write_text("16\n")


def no_timer(machine: Machine, tty: Path) -> None:
    (tty.parents[1] / "latency_timer").unlink()


def port_not_ignored(machine: Machine, tty: Path) -> None:
    del machine.properties[str(tty)]["ID_MM_PORT_IGNORE"]


def device_not_ignored(machine: Machine, tty: Path) -> None:
    machine.properties[str(tty.parents[3])] = {}


BROKEN: dict[Callable[[Machine, Path], None], str] = {
    no_link: "link", link_to_another: "link", a_file_for_a_link: "link", no_names: "link",
    open_to_all: "mode", no_tag: "uaccess", slow: "latency", no_timer: "latency",
    port_not_ignored: "ModemManager", device_not_ignored: "ModemManager",
}  # fmt: skip


@pytest.mark.parametrize("breaks", BROKEN, ids=lambda breaks: breaks.__name__)
def test_a_broken_promise(machine: Machine, breaks: Callable[[Machine, Path], None]) -> None:
    breaks(machine, machine.plug())
    assert failed(machine) == [f"0 {BROKEN[breaks]}"]
    assert proof(machine)[f"0 {BROKEN[breaks]}"].fix


def test_a_node_that_is_gone(machine: Machine) -> None:
    machine.plug()
    (machine.root / "dev/ttyUSB0").unlink()
    assert failed(machine) == ["0 mode", "0 open"]


def test_equal_serials_share_a_link_and_the_loser_is_told(machine: Machine) -> None:
    machine.plug(0)
    machine.plug(1)
    assert failed(machine) == ["0 link"]
    check = proof(machine)["0 link"]
    assert check.says == "/dev/udriver/S1 points to ttyUSB1: /dev/ttyUSB1 has the same serial"
    assert "/dev/serial/by-path" in check.fix


def test_a_chip_without_a_latency_timer_is_not_asked_for_one(machine: Machine) -> None:
    machine.plug(ids="10c4:ea60", latency="16")
    assert "0 latency" not in proof(machine)
    assert failed(machine) == []


def test_an_udevadm_that_answers_nothing_is_a_failure_not_an_exception(machine: Machine) -> None:
    machine.plug()
    machine.properties.clear()
    assert failed(machine) == ["0 link", "0 uaccess", "0 ModemManager"]


def seat(machine: Machine, active: str) -> None:
    folder = machine.root / "run/systemd/seats"
    folder.mkdir(parents=True)
    (folder / "seat0").write_text(f"# private\nIS_SEAT0=1\nACTIVE_UID={active}\n")


def test_the_user_at_the_seat_must_have_an_acl(machine: Machine) -> None:
    machine.plug()
    seat(machine, "1234")
    user = User(1234, 1234, "alice", ())
    assert "0 acl" in failed(machine, user)
    assert "loginctl" in proof(machine, user)["0 acl"].fix


def test_who_is_not_at_the_seat_gets_none_and_is_told(machine: Machine) -> None:
    machine.plug()
    seat(machine, "1234")
    check = proof(machine, NOBODY)["0 acl"]
    assert check.ok is None
    assert "not the active user of seat0" in check.says


def acl(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


@pytest.mark.parametrize(
    ("entries", "users"),
    [
        (((1, 6, 2**32 - 1), (2, 6, 1000), (4, 6, 2**32 - 1), (16, 6, 2**32 - 1)), {1000}),
        (((2, 6, 1000), (2, 4, 1001), (16, 6, 0)), {1000}),
        (((2, 6, 1000), (16, 4, 0)), set()),
        ((), set()),
    ],
    ids=["by logind", "one may only read", "masked", "empty"],
)
def test_an_acl_is_read_as_the_kernel_writes_it(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    entries: tuple[tuple[int, int, int], ...],
    users: set[int],
) -> None:
    monkeypatch.setattr(os, "getxattr", lambda *_: acl(*entries))
    assert acl_users(tmp_path) == users


def test_a_node_without_an_acl_names_nobody(tmp_path: Path) -> None:
    assert acl_users(tmp_path / "missing") == set()


def test_opening_is_done_with_the_users_rights(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else: run the tests as root")
    for folder in (tmp_path, *tmp_path.parents[:2]):  # pytest keeps them to itself
        folder.chmod(0o755)
    node = tmp_path / "node"
    node.touch(0o600)
    os.chown(node, 0, 20)
    node.chmod(0o660)
    assert open_as(NOBODY, node) == errno.EACCES
    assert open_as(NOBODY, node, touch=False) == errno.EACCES
    member = User(65534, 65534, "nobody", (20,))
    assert (open_as(member, node), open_as(member, node, touch=False)) == (0, 0)
    assert os.geteuid() == 0


def test_a_refused_user_is_told_his_group(machine: Machine) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else: run the tests as root")
    for folder in (machine.root, *machine.root.parents[:3]):
        folder.chmod(0o755)
    machine.plug()
    os.chown(machine.root / "dev/ttyUSB0", 0, 20)
    assert failed(machine, NOBODY) == ["0 open"]
    assert "`sudo usermod -aG dialout nobody`" in proof(machine, NOBODY)["0 open"].fix


def test_what_is_missing_is_an_errno(tmp_path: Path) -> None:
    assert open_as(ME, tmp_path / "missing") == errno.ENOENT


@pytest.mark.parametrize("name", ["SUDO_UID", "PKEXEC_UID"])
def test_the_invoking_user_is_the_one_behind_sudo(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert invoking_user({name: "65534"}).uid == 65534
    assert invoking_user({name: "123456"}) == User(123456, 123456, "123456", ())
    for nonsense in ("", "-1", "x", "0"):
        assert invoking_user({name: nonsense}).uid == 0
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert invoking_user({name: "65534"}).uid == 1000  # it is not for him to say who he is


def test_trigger_names_only_our_devices_parents_first(machine: Machine) -> None:
    tty = machine.plug()
    machine.plug(1, ids="0403:ffff")
    machine.system.trigger(machine.system.plugged())
    usb, port = str(tty.parents[3]), str(tty.parents[1])
    assert machine.ran == [
        ["trigger", "--action=change", usb, port, str(tty)],
        ["settle", "--timeout=30"],
    ]


def test_the_latency_before_is_udevs_to_remember(machine: Machine) -> None:
    tty = machine.plug()
    port = tty.parents[1]
    plugged = machine.system.plugged()
    assert machine.system.latencies_before(plugged) == {port / "latency_timer": "16"}
    for nonsense in ("", "x", "1; reboot"):
        machine.properties[str(port)]["UDRIVER_LATENCY_WAS"] = nonsense
        assert machine.system.latencies_before(plugged) == {}


def test_a_failing_udevadm_is_a_sentence(machine: Machine) -> None:
    machine.answers["control"] = Result(1, "", "first\nFailed to send reload request\n")
    with pytest.raises(Exception, match="udevadm control --reload` failed: Failed to send"):
        machine.system.reload()
