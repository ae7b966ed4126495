# SPDX-License-Identifier: MIT
r"""Hands on the desk: what can be done to a plugged-in chip from the serial side, one line each.

    send b"hello\n"      the far end sends (of a jumper, an echo or a script)
    error parity b"x"    it sends these with a parity, framing or overrun error, or with break
    line cts on          cts, dsr, ri or dcd moves
    wire off             the jumper is taken off, so that the far end hears; wire on
    heard                what it heard since the last time, as a Python literal
    state                what the host has set, as JSON
    unplug               by surprise

With two chips on a null modem, ``2 line ri on`` is about the second. Answers: ``ok``, the value
if there is one, and CLOCK_MONOTONIC in ns just after it was done; or ``error`` and a sentence.
"""

from __future__ import annotations

import ast
import json
import time
from concurrent.futures import CancelledError

from udriver_hw.chips.cable import FarEnd, Jumpered
from udriver_hw.chips.dte import BREAK, FRAMING, INPUTS, OVERRUN, PARITY
from udriver_hw.chips.ft232r import Ft232r
from udriver_hw.wire_usbip import UsbipWire

__all__ = ["Desk"]

ERRORS = {"parity": PARITY, "framing": FRAMING, "overrun": OVERRUN, "break": BREAK}
SWITCH = {"on": True, "off": False}
TIMEOUT = 10.0  # s; a turn of the wire takes a millisecond


class Desk:
    """The chips of one wire, and hands."""

    def __init__(self, wire: UsbipWire, chips: list[Ft232r]) -> None:
        self._wire = wire
        self._chips = chips

    def do(self, line: str) -> str:
        """Do what ``line`` says, on the thread that serves; give the answer, without newline."""
        try:
            chip = self._chips[0]
            first, _, rest = line.partition(" ")
            if first.isdecimal() and 1 <= int(first) <= len(self._chips):
                chip, line = self._chips[int(first) - 1], rest
            verb, _, argument = line.partition(" ")
            if verb == "unplug":
                self._wire.unplug()
                return f"ok {time.monotonic_ns()}"
            done = self._wire.call(lambda now: (_do(chip, verb, argument, now), _clock()))
            value, at = done.result(TIMEOUT)
        except (ValueError, CancelledError, TimeoutError) as exc:
            return f"error {exc or 'it is unplugged'}"
        return f"ok {value} {at}" if value else f"ok {at}"


def _clock() -> int:
    return time.monotonic_ns()


def _do(chip: Ft232r, verb: str, argument: str, now: int) -> str:
    words = argument.split()
    cable = chip.cable
    if verb == "line" and len(words) == 2 and words[0] in INPUTS and words[1] in SWITCH:
        chip.dte.set_line(words[0], SWITCH[words[1]], now)
    elif verb == "send" and isinstance(cable, (Jumpered, FarEnd)):
        cable.say(_bytes(argument))
    elif verb == "error" and words and words[0] in ERRORS and isinstance(cable, (Jumpered, FarEnd)):
        for byte in _bytes(argument.partition(" ")[2]):
            cable.say(bytes([byte]), ERRORS[words[0]])
    elif verb == "wire" and argument in SWITCH and isinstance(cable, Jumpered):
        cable.joined = SWITCH[argument]
    elif verb == "heard" and isinstance(cable, Jumpered):
        heard = bytes(cable.heard)
        cable.heard.clear()
        return repr(heard)
    elif verb == "state":
        return json.dumps(_state(chip))
    else:
        raise ValueError(f"{verb!r} cannot be done here, or not with {argument!r}")
    return ""


def _bytes(text: str) -> bytes:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = None
    if not isinstance(value, bytes) or not value:
        raise ValueError(f'bytes such as b"OK\\r\\n" are wanted, not {text}')
    return value


def _state(chip: Ft232r) -> dict[str, object]:
    dte, framing = chip.dte, chip.dte.uart.framing
    stop = f"{framing.stopbits:g}"
    return {
        "configuration": chip.configuration,
        "baudrate": round(framing.baudrate),
        "format": f"{framing.databits}{dte.parity}{stop}",
        "flow": dte.flow.value,
        "dtr": dte.dtr,
        "rts": dte.rts,
        "break": dte.breaking,
        "latency_timer": chip.latency.milliseconds,
        "inputs": dte.inputs,
        "overruns": dte.overruns,
        "stalled": [list(setup) for setup in chip.stalled],
    }
