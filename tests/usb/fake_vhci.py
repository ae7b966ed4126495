# SPDX-License-Identifier: MIT
"""What vhci_hcd sends and understands, made and read by hand: for a server without a kernel."""

from __future__ import annotations

import struct
from typing import NamedTuple

OUT, IN = 0, 1
DEVID = 0x10002


class Reply(NamedTuple):
    """RET_SUBMIT (3) or RET_UNLINK (4)."""

    command: int
    seqnum: int
    status: int
    actual: int
    data: bytes


def submit(
    seqnum: int,
    direction: int,
    endpoint: int,
    length: int,
    data: bytes = b"",
    *,
    setup: bytes = bytes(8),
    packets: int = 0,
) -> bytes:
    """CMD_SUBMIT."""
    head = (1, seqnum, DEVID, direction, endpoint, 0, length, 0, packets, 0)
    return struct.pack(">5IIiiii", *head) + setup + data


def unlink(seqnum: int, victim: int) -> bytes:
    """CMD_UNLINK."""
    return struct.pack(">6I24x", 2, seqnum, DEVID, 0, 0, victim)


def setup(kind: int, request: int, value: int = 0, index: int = 0, length: int = 0) -> bytes:
    """The setup packet."""
    return struct.pack("<BBHHH", kind, request, value, index, length)


def configure(seqnum: int = 1) -> bytes:
    """SET_CONFIGURATION 1."""
    return submit(seqnum, OUT, 0, 0, setup=setup(0, 9, 1))


def replies(stream: bytearray, towards_host: set[int]) -> list[Reply]:
    """Take the whole replies out of ``stream``; those in ``towards_host`` have data behind them."""
    found = []
    while len(stream) >= 48:
        command, seqnum, _, _, _, status, actual = struct.unpack_from(">5Iii", stream)
        behind = actual if command == 3 and seqnum in towards_host else 0
        if len(stream) < 48 + behind:
            break
        data = bytes(stream[48 : 48 + behind])
        found.append(Reply(command, seqnum, status, actual if command == 3 else 0, data))
        del stream[: 48 + behind]
    return found
