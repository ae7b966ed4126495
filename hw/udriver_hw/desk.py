# SPDX-License-Identifier: MIT
r"""Hands on the desk: what can be done to a plugged-in chip from the serial side, one line each.

    send b"hello\n"      the far end sends (of a jumper, an echo or a script)
    error parity b"x"    it sends these with a parity, framing or overrun error, or with break
    line cts on          cts, dsr, ri or dcd moves
    wire off             the jumper is taken off, so that the far end hears; wire on
    heard                what it heard since the last time, as a Python literal
    hold on              TXD stands still, as if an XOFF had come; hold off
    state                what the host has set, as JSON
    unplug               by surprise; detach does it in order
    plug                 in again, as a new chip; gives the paths

With two chips on a null modem, ``2 line ri on`` is about the second. Answers: ``ok``, the value
if there is one, and CLOCK_MONOTONIC in ns just after it was done; or ``error`` and a sentence.
"""

from __future__ import annotations

import ast
import json
import time
from concurrent.futures import CancelledError

from udriver_hw.chips.cable import Jumpered, OneEnded
from udriver_hw.chips.dte import BREAK, FRAMING, INPUTS, OVERRUN, PARITY
from udriver_hw.chips.usb_serial import UsbSerial
from udriver_hw.plugged import Plugged

__all__ = ["Desk"]

ERRORS = {"parity": PARITY, "framing": FRAMING, "overrun": OVERRUN, "break": BREAK}
SWITCH = {"on": True, "off": False}
TIMEOUT = 10.0  # s; a turn of the wire takes a millisecond


class Desk:
    """Hands on what is plugged."""

    def __init__(self, plugged: Plugged) -> None:
        self._plugged = plugged

    def do(self, line: str) -> str:
        """Do what ``line`` says; give the answer, without newline."""
        try:
            value, at = self._do(line.strip())
        except (OSError, ValueError) as exc:
            return f"error {exc}"
        except (CancelledError, TimeoutError):
            return "error it is not plugged in"
        return f"ok {value} {at}" if value else f"ok {at}"

    def _do(self, line: str) -> tuple[str, int]:
        if line in ("unplug", "detach"):
            freed = self._plugged.unplug() if line == "unplug" else self._plugged.detach()
            if not freed:
                raise OSError("the kernel did not let go of its port")
            return "", time.monotonic_ns()
        if line == "plug":
            self._plugged.detach()
            return " ".join(self._plugged.plug()), time.monotonic_ns()
        chip = self._plugged.chips[0]
        first, _, rest = line.partition(" ")
        if first.isdecimal() and 1 <= int(first) <= len(self._plugged.chips):
            chip, line = self._plugged.chips[int(first) - 1], rest
        verb, _, argument = line.partition(" ")
        # on the thread that serves: the chip is its alone
        done = self._plugged.wire.call(
            lambda now: (_hand(chip, verb, argument, now), time.monotonic_ns())
        )
        answer: tuple[str, int] = done.result(TIMEOUT)
        return answer


def _hand(chip: UsbSerial, verb: str, argument: str, now: int) -> str:
    word, _, rest = argument.partition(" ")
    cable = chip.cable
    if verb == "line" and word in INPUTS and rest in SWITCH:
        chip.dte.set_line(word, SWITCH[rest], now)
    elif verb == "send" and isinstance(cable, OneEnded):
        cable.say(_bytes(argument))
    elif verb == "error" and word in ERRORS and isinstance(cable, OneEnded):
        for byte in _bytes(rest):
            cable.say(bytes([byte]), ERRORS[word])
    elif verb == "wire" and word in SWITCH and isinstance(cable, Jumpered):
        cable.joined = SWITCH[word]
    elif verb == "hold" and word in SWITCH:
        chip.dte.set_hold(SWITCH[word], now)
    elif verb == "heard" and isinstance(cable, Jumpered):
        heard = bytes(cable.heard)
        cable.heard.clear()
        return repr(heard)
    elif verb == "state":
        return json.dumps(chip.state())
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
