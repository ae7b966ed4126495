# SPDX-License-Identifier: MIT
"""A USB function answers what USB 2.0 chapter 9 asks, and stalls and logs the rest."""

from __future__ import annotations

import pytest

from tests.usb.host import Host, ft232r, stalls
from udriver_hw.chips.ft232r import Ft232r
from udriver_hw.chips.usb import Setup, Stall


def test_the_device_descriptor() -> None:
    descriptor = ft232r().standard(0x80, 6, 0x0100, length=18)
    assert descriptor.hex(" ") == "12 01 00 02 00 00 00 40 03 04 01 60 00 06 01 02 03 01"


def test_the_configuration_descriptor_is_as_long_as_it_says() -> None:
    descriptor = ft232r().standard(0x80, 6, 0x0200, length=255)
    assert int.from_bytes(descriptor[2:4], "little") == len(descriptor) == 32
    assert descriptor[9:18].hex(" ") == "09 04 00 00 02 ff ff ff 00"
    assert descriptor[18:].hex(" ") == "07 05 81 02 40 00 00 07 05 02 02 40 00 00"


@pytest.mark.parametrize("length", [0, 1, 8, 17])
def test_a_descriptor_is_cut_to_what_was_asked_for(length: int) -> None:
    assert (
        ft232r().standard(0x80, 6, 0x0100, length=length)
        == ft232r().standard(0x80, 6, 0x0100, length=18)[:length]
    )


def test_strings() -> None:
    host = ft232r()
    texts = [host.standard(0x80, 6, 0x0300 | index, 0x0409, 255) for index in range(4)]
    assert texts[0] == b"\x04\x03\x09\x04"
    assert [text[2:].decode("utf-16-le") for text in texts[1:]] == [
        "FTDI",
        "FT232R USB UART",
        "UDTEST01",
    ]


@pytest.mark.parametrize(
    ("kind", "request_", "value", "index"),
    [
        (0x80, 6, 0x0600, 0),  # device qualifier: a full-speed device has none (9.6.2)
        (0x80, 6, 0x0304, 0),  # no such string
        (0x80, 6, 0x0101, 0),  # no such device descriptor
        (0x00, 9, 2, 0),  # no such configuration
        (0x01, 11, 1, 0),  # no such alternate setting
        (0x02, 1, 0, 0x83),  # no such endpoint
        (0x82, 0, 0, 0x83),
        (0x00, 3, 7, 0),  # no such feature
        (0x00, 7, 0x0100, 0),  # SET_DESCRIPTOR is optional
        (0x60, 1, 0, 0),  # reserved type
    ],
)
def test_what_it_does_not_know_is_stalled_and_logged(
    kind: int, request_: int, value: int, index: int
) -> None:
    host = ft232r()
    length = 2 if kind & 0x80 else 0
    assert stalls(host, kind, request_, value, index, length)
    assert host.chip.stalled[-1] == Setup(kind, request_, value, index, length)


def test_a_halted_endpoint_stalls_until_the_halt_is_cleared() -> None:
    host = ft232r()
    host.standard(0x02, 3, 0, 0x81)
    assert host.standard(0x82, 0, 0, 0x81, 2) == b"\1\0"
    with pytest.raises(Stall):
        host.read()
    host.standard(0x02, 1, 0, 0x81)
    assert host.standard(0x82, 0, 0, 0x81, 2) == b"\0\0"
    assert host.read() is None


def test_an_endpoint_is_there_only_in_a_configuration() -> None:
    chip = Ft232r()
    with pytest.raises(Stall):
        chip.take_out(0x02, b"x", 0)
    host = Host(chip)
    assert host.standard(0x80, 8, length=1) == b"\1"
    assert host.write(b"x") == 1
    host.standard(0x00, 9, value=0)
    with pytest.raises(Stall):
        chip.give_in(0x81, 0)
    with pytest.raises(Stall):
        chip.give_in(0x85, 0)


def test_an_out_transfer_shorter_than_it_says_is_stalled() -> None:
    with pytest.raises(Stall):
        ft232r().chip.control(Setup(0x40, 0, 0, 0, 5), b"1234", 0)


def test_the_log_of_stalls_does_not_grow_for_ever() -> None:
    host = ft232r()
    assert all(stalls(host, 0x40, 200, number & 0xFFFF) for number in range(3000))
    assert len(host.chip.stalled) == 1000
    assert host.chip.stalled[-1].wValue == 2999


def test_a_string_that_no_descriptor_holds_is_refused() -> None:
    with pytest.raises(ValueError, match="EEPROM has no room"):
        Ft232r("x" * 40)
    with pytest.raises(ValueError, match="longer than 126"):
        Ft232r("x" * 127)
