# SPDX-License-Identifier: MIT
"""What hangs on a UART's wire: a jumper, an echo, or a script.

What this models: the far end of TXD and RXD. Each gets the characters that left TXD and gives
those that go to RXD, and says when it wants to be asked again.
Not modelled: a far end with a line of other settings.
"""

from __future__ import annotations

import ast
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from udriver_hw.chips.uart import Uart

__all__ = ["Echo", "Firmware", "Jumper", "Script", "Step", "Unplugged", "parse_script"]

NSEC_PER_MSEC = 1_000_000


class Unplugged(Exception):
    """The script says: pull the plug now."""


class Firmware(Protocol):
    """The far end of the wire."""

    def receive(self, data: bytes, now: int) -> None:
        """Characters that left TXD by ``now``."""
        ...

    def transmit(self, now: int) -> bytes:
        """Characters for RXD. Raises Unplugged."""
        ...

    def next_event(self) -> int | None:
        """When to ask transmit() again, in ns; None for not before something is received."""
        ...


class Jumper:
    """A wire from TXD to RXD."""

    def __init__(self) -> None:
        self._wire = bytearray()

    def receive(self, data: bytes, now: int) -> None:
        """What goes in."""
        self._wire += data

    def transmit(self, now: int) -> bytes:
        """Comes out."""
        data = bytes(self._wire)
        self._wire.clear()
        return data

    def next_event(self) -> int | None:
        """At once, if there is anything."""
        return 0 if self._wire else None


class Echo:
    """A device with a UART of its own that sends back what it received: the wire twice."""

    def __init__(self, line: Uart) -> None:
        self._line = line  # whose settings it follows
        self._uart = Uart(line.tx.depth, paced=line.paced)
        self._backlog = bytearray()

    def receive(self, data: bytes, now: int) -> None:
        """Store it; the firmware's buffer is as large as needed."""
        self._backlog += data

    def transmit(self, now: int) -> bytes:
        """Send it, at the line's own pace."""
        self._uart.set_framing(self._line.framing, now)
        sent = self._uart.transmit(now)
        del self._backlog[: self._uart.write(bytes(self._backlog), now)]
        return sent + (b"" if self._uart.paced else self._uart.transmit(now))

    def next_event(self) -> int | None:
        """When its shift register is done."""
        return 0 if self._backlog and self._uart.tx.room else self._uart.next_event()


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a script: a word and its value."""

    word: str
    value: bytes | int


class Script:
    """A device that does what a script says, step by step, and then nothing any more.

    ``expect`` waits until exactly these bytes arrived (others are skipped), ``any N`` until N
    bytes did, ``send`` sends, ``delay N`` waits N milliseconds, ``unplug`` pulls the plug. A
    device that answers garbage, short or never is a script that sends that.
    """

    def __init__(self, steps: list[Step]) -> None:
        self._steps = deque(steps)
        self._heard = bytearray()
        self._resume: int | None = None

    def receive(self, data: bytes, now: int) -> None:
        """Listen."""
        self._heard += data

    def transmit(self, now: int) -> bytes:
        """Take all steps that can be taken now."""
        sent = bytearray()
        while self._steps and self._take(self._steps[0], now, sent):
            self._steps.popleft()
        if not self._steps:
            self._heard.clear()
        return bytes(sent)

    def _take(self, step: Step, now: int, sent: bytearray) -> bool:
        if isinstance(step.value, bytes):
            if step.word == "expect":
                return self._expect(step.value)
            sent += step.value
            return True
        if step.word == "any":
            enough = len(self._heard) >= step.value
            if enough:
                del self._heard[: step.value]
            return enough
        if step.word == "delay":
            return self._delay(step.value, now)
        if sent:
            return False  # what was sent before the plug is pulled still gets through
        raise Unplugged

    def _expect(self, wanted: bytes) -> bool:
        at = self._heard.find(wanted)
        if at < 0:
            del self._heard[: max(0, len(self._heard) - len(wanted) + 1)]
            return False
        del self._heard[: at + len(wanted)]
        return True

    def _delay(self, milliseconds: int, now: int) -> bool:
        if self._resume is None:
            self._resume = now + milliseconds * NSEC_PER_MSEC
        if now < self._resume:
            return False
        self._resume = None
        return True

    def next_event(self) -> int | None:
        """The end of a delay, or at once before an unplug."""
        if self._steps and self._steps[0].word == "unplug":
            return 0
        return self._resume


def parse_script(text: str, name: str = "script") -> list[Step]:
    r"""Read a script: a word and a value a line, ``#`` comments.

    ``expect b"PING\n"``, ``send b"PONG\n"``, ``any 16``, ``delay 50``, ``unplug``.
    Raises ValueError, naming the line.
    """
    steps = []
    for number, line in enumerate(text.splitlines(), 1):
        word, _, rest = line.strip().partition(" ")
        if word and not word.startswith("#"):
            try:
                steps.append(_parse_step(word, rest.strip()))
            except ValueError as exc:
                raise ValueError(f"{name}, line {number}: {exc}") from None
    return steps


def _parse_step(word: str, rest: str) -> Step:
    if word == "unplug":
        if not rest:
            return Step(word, 0)
        raise ValueError(f"unplug stands alone, without {rest}")
    if word in ("expect", "send"):
        try:
            value = ast.literal_eval(rest)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            value = None
        if isinstance(value, bytes) and value:
            return Step(word, value)
        raise ValueError(f'{word} wants bytes such as b"OK\\r\\n", not {rest}')
    if word in ("any", "delay"):
        if rest.isdecimal() and len(rest) < 19:
            return Step(word, int(rest))
        raise ValueError(f"{word} wants a number, not {rest or 'nothing'}")
    raise ValueError(f"{word!r} is none of expect, send, any, delay, unplug")
