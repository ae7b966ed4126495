# SPDX-License-Identifier: MIT
"""The devices this driver knows: one row a chip, each true of every device that has these ids.

The udev rule is rendered from this table, and nothing else decides what the rule touches. A row of
a usb-serial driver is an id of that driver's own table in Linux (tests/udev/test_id_table.py asks the
kernel image where the rig has one); a cdc_acm row is bound by its USB class, so its id names a board.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ID_TABLE", "IdRow", "lookup"]


@dataclass(frozen=True, slots=True)
class IdRow:
    """USB ids as four lower-case hex digits, what they mean, and which kernel driver binds them.

    ``has_latency_timer``: the port has a ``latency_timer`` in sysfs, in ms; 16 after power-on.
    """

    vid: str
    pid: str
    chip: str
    driver: str
    has_latency_timer: bool = False

    def __str__(self) -> str:
        return f"{self.vid}:{self.pid} {self.chip} ({self.driver})"


def _ftdi(pid: str, chip: str) -> IdRow:
    return IdRow("0403", pid, chip, "ftdi_sio", has_latency_timer=True)


ID_TABLE: tuple[IdRow, ...] = (
    # drivers/usb/serial/ftdi_sio_ids.h
    _ftdi("6001", "FTDI FT232R, FT232B, FT245R"),
    _ftdi("6010", "FTDI FT2232C, FT2232D, FT2232H"),
    _ftdi("6011", "FTDI FT4232H"),
    _ftdi("6014", "FTDI FT232H"),
    _ftdi("6015", "FTDI FT230X, FT231X, FT234XD"),
    _ftdi("6040", "FTDI FT2233HP"),
    _ftdi("6041", "FTDI FT4233HP"),
    _ftdi("6042", "FTDI FT2232HP"),
    _ftdi("6043", "FTDI FT4232HP"),
    _ftdi("6044", "FTDI FT233HP"),
    _ftdi("6045", "FTDI FT232HP"),
    _ftdi("6048", "FTDI FT4232HA"),
    # drivers/usb/serial/cp210x.c
    IdRow("10c4", "ea60", "Silicon Labs CP2102, CP2102N, CP2104", "cp210x"),
    IdRow("10c4", "ea70", "Silicon Labs CP2105", "cp210x"),
    IdRow("10c4", "ea71", "Silicon Labs CP2108", "cp210x"),
    # drivers/usb/serial/ch341.c
    IdRow("1a86", "5523", "WCH CH341", "ch341"),
    IdRow("1a86", "7522", "WCH CH340K", "ch341"),
    IdRow("1a86", "7523", "WCH CH340", "ch341"),
    IdRow("4348", "5523", "WCH CH341, the maker's first vendor id", "ch341"),
    # drivers/usb/serial/pl2303.h
    IdRow("067b", "2303", "Prolific PL2303, PL2303HX, PL2303TA", "pl2303"),
    IdRow("067b", "2304", "Prolific PL2303TB", "pl2303"),
    IdRow("067b", "23a3", "Prolific PL2303GC", "pl2303"),
    IdRow("067b", "23b3", "Prolific PL2303GB", "pl2303"),
    IdRow("067b", "23c3", "Prolific PL2303GT", "pl2303"),
    IdRow("067b", "23d3", "Prolific PL2303GL", "pl2303"),
    IdRow("067b", "23e3", "Prolific PL2303GE", "pl2303"),
    IdRow("067b", "23f3", "Prolific PL2303GS", "pl2303"),
    # drivers/usb/class/cdc-acm.c binds these by class; the ids are their makers'
    IdRow("1a86", "55d2", "WCH CH342", "cdc_acm"),
    IdRow("1a86", "55d3", "WCH CH343", "cdc_acm"),
    IdRow("1a86", "55d4", "WCH CH9102", "cdc_acm"),
    IdRow("03eb", "204b", "LUFA USB to serial", "cdc_acm"),
    IdRow("0483", "374b", "ST-LINK/V2.1 virtual COM port", "cdc_acm"),
    IdRow("0483", "5740", "STM32 virtual COM port", "cdc_acm"),
    IdRow("0525", "a4a7", "Linux gadget serial", "cdc_acm"),
    IdRow("0d28", "0204", "Arm DAPLink", "cdc_acm"),
    IdRow("1366", "0105", "SEGGER J-Link CDC", "cdc_acm"),
    IdRow("16c0", "0483", "Teensy USB serial", "cdc_acm"),
    IdRow("2341", "0001", "Arduino Uno", "cdc_acm"),
    IdRow("2341", "0010", "Arduino Mega 2560", "cdc_acm"),
    IdRow("2341", "003d", "Arduino Due, programming port", "cdc_acm"),
    IdRow("2341", "003e", "Arduino Due, native port", "cdc_acm"),
    IdRow("2341", "0042", "Arduino Mega 2560 R3", "cdc_acm"),
    IdRow("2341", "0043", "Arduino Uno R3", "cdc_acm"),
    IdRow("2341", "8036", "Arduino Leonardo", "cdc_acm"),
    IdRow("2341", "8037", "Arduino Micro", "cdc_acm"),
    IdRow("2e8a", "0005", "Raspberry Pi Pico, MicroPython", "cdc_acm"),
    IdRow("2e8a", "000a", "Raspberry Pi Pico, SDK", "cdc_acm"),
    IdRow("2e8a", "000c", "Raspberry Pi Debug Probe", "cdc_acm"),
    IdRow("303a", "1001", "Espressif USB JTAG and serial", "cdc_acm"),
)

_BY_ID = {(row.vid, row.pid): row for row in ID_TABLE}


def lookup(vid: str, pid: str) -> IdRow | None:
    """The row of these ids, if there is one.

    Context: any.
    """
    return _BY_ID.get((vid.lower(), pid.lower()))
