# SPDX-License-Identifier: MIT
"""The rule: the checked-in file is the rendered one, and no device talks it into anything."""

from __future__ import annotations

import posixpath
import string
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.udev.model import Device, apply, usb_id_serial
from udriver.drivers.id_table import ID_TABLE, IdRow
from udriver.udev import LATENCY_WAS, RULE_NAME, is_ours, link_name, render
from udriver.udev_lint import lint

CHECKED_IN = Path(__file__).parents[2] / "udev-rules" / RULE_NAME
RULE = render()
ID_PATH = "pci-0000:00:14.0-usb-0:2:1.0"
FT232 = {"idVendor": "0403", "idProduct": "6001"}

HOSTILE = [
    'a"b, $x\n/../../evil', "../../evil", "..", ".", "", " ", "a b", "a/b", "$env{PATH}", "%k",
    '", RUN+="/bin/sh', "x\nSUBSYSTEM==\"*\", RUN+=\"/bin/sh\"", "\\x2f\\x2e\\x2e", "-rf", "_",
    ID_PATH, "é", "\N{FULLWIDTH SOLIDUS}", "a|b", "[!a]", "*", "x" * 126,
]  # fmt: skip
serials = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(max_size=126),
    st.text(string.printable, max_size=126),
    st.text(string.ascii_letters + string.digits + ".-_:/", max_size=30),
)

same = settings(derandomize=True, database=None, deadline=None, max_examples=200)


def tty(env: dict[str, str], ids: dict[str, str] = FT232) -> Device:
    env = {"ID_BUS": "usb", "ID_PATH": ID_PATH, "ID_USB_INTERFACE_NUM": "00", **env}
    return apply(RULE, Device("tty", env=env, attrs=ids))


def test_the_checked_in_file_is_the_rendered_one() -> None:
    assert CHECKED_IN.read_text() == RULE, (
        "render it again: udriver udev show > udev-rules/61-udriver.rules"
    )


def test_our_linter_finds_nothing_in_it() -> None:
    assert lint(RULE, RULE_NAME) == []


def test_it_sorts_between_who_finds_the_serial_and_who_acts_on_the_tag() -> None:
    assert "60-serial.rules" < RULE_NAME < "73-seat-late.rules"


def test_it_sets_no_group_mode_or_owner_and_runs_nothing() -> None:
    for key in ("GROUP", "MODE", "OWNER", "RUN", "PROGRAM"):
        assert f"{key}=" not in RULE
        assert f"{key}+" not in RULE


def test_it_knows_itself_by_its_digest_and_no_edited_copy() -> None:
    assert is_ours(RULE)
    assert is_ours(render([IdRow("0403", "6001", "an older table's chip", "ftdi_sio")]))
    for edited in (RULE + "\n", RULE.replace("uaccess", "other"), "", RULE.split("ACTION")[0]):
        assert not is_ours(edited)


@pytest.mark.parametrize("row", ID_TABLE, ids=str)
def test_each_row_is_matched_on_each_of_its_three_devices(row: IdRow) -> None:
    ids = {"idVendor": row.vid, "idProduct": row.pid}
    found = tty({"ID_SERIAL_SHORT": "S1"}, ids)
    assert (found.links, found.tags) == (["udriver/S1"], {"uaccess"})
    assert found.env["ID_MM_PORT_IGNORE"] == "1"
    usb = apply(RULE, Device("usb", env={"DEVTYPE": "usb_device"}, attrs=ids))
    assert usb.env["ID_MM_DEVICE_IGNORE"] == "1"
    port = Device("usb-serial", driver=row.driver, attr={"latency_timer": "16"}, attrs=ids)
    assert apply(RULE, port).attr["latency_timer"] == ("1" if row.has_latency_timer else "16")


@pytest.mark.parametrize(
    "device",
    [
        Device("tty", env={"ID_BUS": "usb"}, attrs={"idVendor": "0403", "idProduct": "ffff"}),
        Device("tty", env={"ID_BUS": "pci"}, attrs=FT232),
        Device("tty", action="remove", env={"ID_BUS": "usb"}, attrs=FT232),
        Device("hidraw", attrs=FT232),
        Device("usb", env={"DEVTYPE": "usb_interface"}, attrs=FT232),
    ],
    ids=["another chip", "not on USB", "remove", "another subsystem", "an interface"],
)
def test_nothing_else_is_touched(device: Device) -> None:
    before = dict(device.env)
    found = apply(RULE, device)
    assert (found.links, found.tags, found.env) == ([], set(), before)


def test_a_second_interface_has_a_name_of_its_own() -> None:
    second = tty({"ID_SERIAL_SHORT": "S1", "ID_USB_INTERFACE_NUM": "01"})
    assert second.links == ["udriver/S1-if01"]


def test_the_latency_before_is_remembered_over_events_and_not_overwritten() -> None:
    first = Device("usb-serial", driver="ftdi_sio", attr={"latency_timer": "16"}, attrs=FT232)
    apply(RULE, first)
    assert (first.attr["latency_timer"], first.env[LATENCY_WAS]) == ("1", "16")
    again = Device("usb-serial", "change", "ftdi_sio", attr=first.attr, attrs=FT232, db=first.env)
    apply(RULE, again)
    assert (again.attr["latency_timer"], again.env[LATENCY_WAS]) == ("1", "16")


def inside(links: list[str]) -> bool:
    """One link, one component, right below /dev/udriver."""
    if len(links) != 1:
        return False
    path = posixpath.normpath("/dev/" + links[0])
    return path == f"/dev/{links[0]}" and posixpath.dirname(path) == "/dev/udriver"


@same
@given(serial=serials, product=serials, interface=st.integers(0, 255))
def test_no_string_of_a_device_leads_out_of_our_folder(
    serial: str, product: str, interface: int
) -> None:
    env = {"ID_MODEL": product, "ID_USB_INTERFACE_NUM": f"{interface:02x}"}
    if (short := usb_id_serial(serial)) is not None:
        env["ID_SERIAL_SHORT"] = short
    found = tty(env)
    assert inside(found.links)
    assert found.links == [link_name(found.env)]


@same
@given(short=serials, product=serials)
@example(short="../../evil", product="")
@example(short="by-path/x", product="")
@example(short="a b", product="")
def test_not_even_if_udev_had_not_cleaned_the_serial(short: str, product: str) -> None:
    found = tty({"ID_SERIAL_SHORT": short, "ID_MODEL": product, "ID_SERIAL": product})
    assert inside(found.links)
    assert found.links == [link_name(found.env)]


@same
@given(short=serials)
@example(short=ID_PATH)
def test_no_serial_takes_the_name_of_a_port(short: str) -> None:
    env = {"ID_BUS": "usb", "ID_USB_INTERFACE_NUM": "00", "ID_SERIAL_SHORT": short}
    links = apply(RULE, Device("tty", env=env, attrs=FT232)).links  # in no port: only a serial
    assert not any("-usb-" in link for link in links)


def test_ordinary_serials_are_kept() -> None:
    for serial in ("FTABC123", "A50285BI", "0001", "20:6E:F1:08:9F:80", "e660-58.1_x"):
        assert tty({"ID_SERIAL_SHORT": serial}).links == [f"udriver/{serial}"]
