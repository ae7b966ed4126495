# SPDX-License-Identifier: MIT
"""The rungs of the suite, and what each cannot do: a test names the quirk that rules it out.

    @without(Quirk.NO_WRITER_SLEEPS)
    def test_...

On a rung with that quirk the test is skipped, and the run ends with a count for each quirk.
"""

from __future__ import annotations

import os
from collections import Counter
from enum import Enum

import pytest


class Quirk(Enum):
    """What a rung cannot do; the value is the sentence a skip says."""

    NO_WRITER_SLEEPS = "QEMU takes what is written at once, so a writer never waits for long"
    ONE_DEVICE = "there is one adapter"
    TAKES_ANY_LINE = "the chip takes parity and 7 bits, which only a pty refuses"
    HAS_MODEM_LINES = "it has modem lines, so refusing them cannot be seen here"
    PURGES_AT_OPEN = "ftdi_sio resets the chip when it is opened, so nothing stale is ever read"
    NEVER_MUTE = "its far end is a wire and not ours to take off"
    LOST_IN_TRANSIT = "bytes on the USB are lost at an unplug, as those of a pty are not"


QUIRKS = {
    "pty": frozenset[Quirk](),
    "qemu": frozenset(
        {
            Quirk.NO_WRITER_SLEEPS,
            Quirk.ONE_DEVICE,
            Quirk.TAKES_ANY_LINE,
            Quirk.HAS_MODEM_LINES,
            Quirk.PURGES_AT_OPEN,
        }
    ),
    "usbip": frozenset(
        {
            Quirk.ONE_DEVICE,
            Quirk.TAKES_ANY_LINE,
            Quirk.HAS_MODEM_LINES,
            Quirk.PURGES_AT_OPEN,
            Quirk.LOST_IN_TRANSIT,
        }
    ),
    "adapter": frozenset(Quirk),
}


def rung(config: pytest.Config) -> str:
    """On which rung the tests of a device run in this process.

    In the guest UDRIVER_USB names the chip of our own that is plugged in for them.
    """
    if os.environ.get("UDRIVER_IN_VM"):
        return "usbip" if os.environ.get("UDRIVER_USB") else "qemu"
    return "adapter" if config.getoption("--udriver-port") else "pty"


def without(quirk: Quirk) -> pytest.MarkDecorator:
    """Skip where the rung has this quirk."""
    return pytest.mark.udriver_without(quirk)


def skip_for_quirk(item: pytest.Item) -> None:
    """Skip ``item`` if its rung has a quirk that it names."""
    here = rung(item.config)
    for mark in item.iter_markers("udriver_without"):
        if mark.args[0] in QUIRKS[here]:
            pytest.skip(reason(here, mark.args[0]))


def reason(here: str, quirk: Quirk) -> str:
    """The words of a skip, the same for each test so that they can be counted."""
    return f"rung {here}: {quirk.name}: {quirk.value}"


def counted(skipped: list[str]) -> Counter[str]:
    """How many of these skip reasons name each quirk."""
    return Counter(quirk.name for quirk in Quirk for said in skipped if f"{quirk.name}:" in said)
