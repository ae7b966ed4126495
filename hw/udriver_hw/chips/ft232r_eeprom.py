# SPDX-License-Identifier: MIT
"""The FT232R's EEPROM: 64 words that hold its ids, its power and its strings.

What this models: the layout that FTDI's FT_PROG writes and libftdi's ftdi_eeprom_build() gives
field by field, with its checksum.
Not modelled: writing it, which no Linux driver does; an unprogrammed one.
"""

from __future__ import annotations

import struct

__all__ = ["image"]

SIZE = 128  # bytes
STRINGS = 0x18  # where they begin
CBUS = b"\x23\x10\x05"  # TXLED, RXLED, TXDEN, PWREN, SLEEP: the factory's choice


def image(ids: tuple[int, int, int], power: tuple[int, int], strings: tuple[str, ...]) -> bytes:
    """All 128 bytes, for (idVendor, idProduct, bcdDevice) and (bmAttributes, bMaxPower).

    Raises ValueError if manufacturer, product and serial are more than 48 characters together.
    """
    texts = [text.encode("utf-16-le") for text in strings]
    if STRINGS + sum(2 + len(text) for text in texts) > SIZE - 2:
        raise ValueError(f"the EEPROM has no room for {', '.join(strings)}: 48 characters in all")
    flags = 0x08 * bool(strings[-1])  # there is a serial
    head = struct.pack("<BBHHHBBBBH", 0, 0x40, *ids, *power, flags, 0, 0x0200)
    table, behind = b"", b""
    for text in texts:
        table += bytes([0x80 | STRINGS + len(behind), 2 + len(text)])
        behind += bytes([2 + len(text), 3]) + text
    data = (head + table + CBUS).ljust(STRINGS, b"\0") + behind
    data = data.ljust(SIZE - 2, b"\0")
    return data + struct.pack("<H", checksum(data))


def checksum(data: bytes) -> int:
    """Over all words but the last, which holds it."""
    total = 0xAAAA
    for (word,) in struct.iter_unpack("<H", data):
        total ^= word
        total = (total << 1 | total >> 15) & 0xFFFF
    return total
