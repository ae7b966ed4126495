# SPDX-License-Identifier: MIT
r"""What can go wrong on a wire, in words: one vocabulary for a pty and for a USB chip.

A fault is what happens, in which direction, and when; one a line, with ``#`` comments:

    drop 3 at byte 100              bytes 100, 101 and 102 are lost; byte 0 is the first
    garble every 50 bytes           byte 50, 100, 150 ... has other bits
    garble tx 1 in 1000 bytes       each byte with this probability, by the seed
    delay 20 at byte 7              it and what is behind it come 20 ms later
    never answer at byte 9          from this byte on nothing comes
    unplug at byte 64               64 came, then the plug is pulled
    parity at byte 3                it comes with this error; framing likewise
    overrun 5 at byte 40            5 are lost, and the next one says so
    break at 100 ms                 a break comes; break storm 50 is that many
    line cts on at byte 10          cts, dsr, ri or dcd; on, off or flip
    stall at setup 40:03            the first such request, bmRequestType:bRequest in hex
    stall every setup 40:03         each such request
    never answer at request 4       requests of class and vendor are counted
    delay 30 tx at urb 2            URBs of the bulk endpoint in this direction are counted
    unplug at urb 12                12 were completed, and the next one would be

``rx`` is what the driver reads, and meant where nothing is said; ``tx`` is what it writes. A time
counts from when the device was plugged in; a fault of bytes that is due at a time takes the next ones.
Faults on the same byte are done in the order of their lines. All positions count what came into
the faults, so what one of them drops moves no other.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

__all__ = ["Fault", "Faults", "Injected", "parse_fault", "parse_faults"]

NSEC_PER_MSEC = 1_000_000
MOST = 10**12  # of whatever is counted
LONGEST_STORM = 100_000  # breaks
LOG_LENGTH = 10_000  # injections; the counts go on
LINES = ("cts", "dsr", "ri", "dcd")
STREAM = {"byte", "ms"}  # what faults of the line can be counted in
USB = {"urb", "request", "setup"}  # and those of USB
UNITS = {
    "drop": STREAM, "garble": STREAM, "parity": STREAM, "framing": STREAM, "overrun": STREAM,
    "break": STREAM, "line": STREAM, "stall": USB,
    "delay": STREAM | USB, "never answer": STREAM | USB, "unplug": STREAM | USB,
}  # fmt: skip
ON_PTY = {"drop", "garble", "delay", "never answer", "unplug"}
RUNS = {"drop", "garble", "parity", "framing", "overrun", "stall"}  # of so many in a row
SENTENCE = re.compile(
    r"(?P<what>.*?)(?: (?P<way>rx|tx))?"
    r" (?:at (?P<unit>byte|urb|request) (?P<at>\d+)|at (?P<ms>\d+) ms"
    r"|(?:every|1 in) (?P<step>\d+) (?P<units>bytes|urbs|requests|ms)"
    r"|(?:at|every) setup (?P<setup>[0-9a-f]{2}:[0-9a-f]{2}))"
)
EXAMPLES = '"drop 3 at byte 100", "garble 1 in 1000 bytes", "unplug at 50 ms"'


@dataclass(frozen=True, slots=True)
class Fault:
    """One line of the vocabulary. ``number`` is what stands behind the word, else 1.

    ``mode`` is "at", "every" or "1 in", with ``step`` of ``unit``; ``setup`` is
    (bmRequestType, bRequest). ``place`` says where it was written.
    """

    kind: str
    number: int
    way: str
    mode: str
    step: int
    unit: str
    text: str
    line: tuple[str, str] = ("", "")
    setup: tuple[int, int] = (0, 0)
    place: str = ""

    @property
    def on_pty(self) -> bool:
        """Whether a pty can do it."""
        return self.kind in ON_PTY and self.unit in STREAM

    @property
    def what_a_pty_lacks(self) -> str:
        """In words, for the error."""
        if self.kind == "line":
            return f"modem line {self.line[0]}"
        if self.kind in ON_PTY:
            return "URBs and requests"
        return self.kind if self.kind in ("break", "stall") else f"{self.kind} error"

    def positions(self, dice: random.Random) -> Iterator[int]:
        """Where it happens, in its unit (ns instead of ms), ascending and without end if it has none."""
        step = self.step * NSEC_PER_MSEC if self.unit == "ms" else self.step
        # what is due at a time takes its run from the bytes that come then
        run = self.number if self.kind in RUNS and self.unit != "ms" else 1
        if self.mode == "at":
            yield from range(step, step + run)
        elif self.mode == "every":
            for first in count() if self.unit == "setup" else count(step, step):
                yield from range(first, first + run)
        else:
            first = 0
            while True:
                first += _gap(dice, step)
                yield from range(first, first + run)
                first += run


def _gap(dice: random.Random, step: int) -> int:
    """How many are spared before one of ``step``: one draw instead of one for each byte."""
    return int(math.log(1.0 - dice.random()) / math.log1p(-1 / step)) if step > 1 else 0


class Injected(NamedTuple):
    """A fault that happened: when (ns, the wire's clock), which, where, and what came of it."""

    at: int
    fault: str
    way: str
    unit: str
    position: int
    what: str


class Faults:
    """Faults for one device from plug to unplug, and the log of what they did.

    The same faults and ``seed`` do the same to the same bytes, however these are cut into
    pieces. ``told`` is called with each injection. ``log`` keeps the last LOG_LENGTH of them,
    ``counts`` counts all, by the fault's text.
    """

    def __init__(
        self,
        faults: Sequence[Fault] = (),
        seed: int = 0,
        told: Callable[[Injected], None] | None = None,
    ) -> None:
        self.faults = tuple(faults)
        self.seed = seed
        self.log: deque[Injected] = deque(maxlen=LOG_LENGTH)
        self.counts = Counter[str]()
        self.began: int | None = None  # when the device was plugged in, in ns
        self._told = told

    def begin(self, now: int) -> int:
        """The first call says when the device was plugged in; give that time."""
        if self.began is None:
            self.began = now
        return self.began

    def dice(self, fault: Fault) -> random.Random:
        """Its own source of chance, so that no fault moves another's."""
        index = next(index for index, one in enumerate(self.faults) if one is fault)
        return random.Random(f"{self.seed} {index} {fault.text}")

    def note(self, now: int, fault: Fault, position: int, what: str) -> None:
        """It happened."""
        self.counts[fault.text] += 1
        injected = Injected(now, fault.text, fault.way, fault.unit, position, what)
        self.log.append(injected)
        if self._told is not None:
            self._told(injected)


def parse_faults(text: str, name: str = "faults") -> list[Fault]:
    """Read one fault a line. Raises ValueError, naming the line."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition("#")[0].strip()
        if line:
            found.append(parse_fault(line, f"{name}, line {number}"))
    return found


def parse_fault(text: str, place: str = "") -> Fault:
    """Read one fault. Raises ValueError with ``place`` in front."""
    words = " ".join(text.split())
    try:
        return _parse(words, place)
    except ValueError as exc:
        raise ValueError(f"{place}: {exc}" if place else str(exc)) from None


def _parse(text: str, place: str) -> Fault:
    said = SENTENCE.fullmatch(text)
    if not said:
        raise ValueError(f"{text!r} says not what happens and when, as in {EXAMPLES}")
    kind, number, line = _what(said["what"])
    mode = "1 in" if "1 in " in text else "every" if " every " in text else "at"
    unit = said["unit"] or ("setup" if said["setup"] else (said["units"] or "ms").rstrip("s"))
    unit = "ms" if unit == "m" else unit
    step = int(said["at"] or said["ms"] or said["step"] or 0)
    if unit not in UNITS[kind]:
        raise ValueError(f"{kind} is counted in {', '.join(sorted(UNITS[kind]))}, not in {unit}")
    if step > MOST or (mode != "at" and unit != "setup" and not step):
        raise ValueError(f"{step} is no distance; 1 is the smallest")
    if mode == "1 in" and unit == "ms":
        raise ValueError("chance is by bytes, urbs or requests, not by time")
    if mode == "every" and kind in RUNS and unit not in ("setup", "ms") and number >= step:
        raise ValueError(f"{number} in a row every {step} leaves nothing between them")
    if said["way"] and (kind == "line" or unit in ("request", "setup")):
        raise ValueError(f"{said['way']} makes no difference to it; leave it out")
    first, second = (said["setup"] or "0:0").split(":")
    setup = int(first, 16), int(second, 16)
    return Fault(kind, number, said["way"] or "rx", mode, step, unit, text, line, setup, place)


def _what(text: str) -> tuple[str, int, tuple[str, str]]:
    """Kind, number, and line with level."""
    words = text.split()
    if len(words) == 3 and words[0] == "line" and words[1] in LINES:
        if words[2] in ("on", "off", "flip"):
            return "line", 1, (words[1], words[2])
        raise ValueError(f"a line goes on, off or flip, not {words[2]}")
    number = int(words.pop()) if words and words[-1].isdecimal() else None
    kind = " ".join(words)
    storm = kind == "break storm"
    if storm:
        kind = "break"
    if kind not in UNITS or kind == "line":
        raise ValueError(f"{text!r} is none of {', '.join(UNITS)}")
    if (kind == "delay" or storm) and number is None:
        raise ValueError(
            f"{text} wants a number: {'milliseconds' if kind == 'delay' else 'breaks'}"
        )
    if number is not None and (
        kind in ("never answer", "unplug") or (kind == "break" and not storm)
    ):
        raise ValueError(f"{kind} stands alone, without {number}")
    number = 1 if number is None else number
    if not 1 <= number <= (LONGEST_STORM if storm else MOST):
        raise ValueError(f"{kind} of {number} is nothing, or too much")
    return kind, number, ("", "")
