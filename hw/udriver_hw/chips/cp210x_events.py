# SPDX-License-Identifier: MIT
"""What the CP210x sends to the host: plain characters, or events among them.

What this models: AN571, EMBED_EVENTS: behind the escape character comes 0 (a character of that
value), 1 with a line status and its character, or 3 with a modem status. Line status is bits 1 to
4 of the 16550's LSR, modem status is its MSR with the four delta bits. Without an escape character
errors and edges are not told, a character is what was sampled, and a break is a NUL.
Not modelled: a line status alone (escape, 2), as here each error has a character: an overrun has
the next one that is kept. An edge is told ahead of what waits, not in its place. No sheet says how
long the chip gathers characters: it gives what it has when the host asks.
"""

from __future__ import annotations

from udriver_hw.chips.dte import Dte

__all__ = ["packet"]

LITERAL, LSR_DATA, MSR = 0, 1, 3
LONGEST = 4  # bytes that one character may become
# MSR: level and delta; that of RI is its trailing edge alone
LEVELS = {"cts": 0x10, "dsr": 0x20, "ri": 0x40, "dcd": 0x80}
DELTAS = {"cts": 0x01, "dsr": 0x02, "ri": 0x04, "dcd": 0x08}


def packet(dte: Dte, escape: int | None, size: int, now: int) -> bytes:
    """Up to ``size`` bytes of what ``dte`` received; no event is cut in two."""
    data = b"" if escape is None else _edges(dte, escape)
    dte.changed.clear()
    while len(dte) and size - len(data) >= (1 if escape is None else LONGEST):
        room = size - len(data)
        data += dte.read(room, now).data if escape is None else _next(dte, escape, room, now)
    return data


def _edges(dte: Dte, escape: int) -> bytes:
    moved = {name for name in dte.changed if name != "ri" or not dte.inputs["ri"]}
    if not dte.changed:
        return b""
    levels = sum(bit for name, bit in LEVELS.items() if dte.inputs[name])
    return bytes([escape, MSR, levels | sum(DELTAS[name] for name in moved)])


def _next(dte: Dte, escape: int, room: int, now: int) -> bytes:
    """Characters up to the next that needs an escape, or that one."""
    data, status = dte.head()
    if status:
        run = dte.read(1, now)
        return bytes([escape, LSR_DATA, run.status]) + run.data
    plain = data[:room].partition(bytes([escape]))[0]
    if plain:
        return dte.read(len(plain), now).data
    dte.read(1, now)
    return bytes([escape, LITERAL])
