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
    # of the chips and their kernel drivers
    FORGETS_AT_CLOSE = (
        "the kernel drops what a tty holds at its last close, so nothing stale is read"
    )
    COUNTS_NO_EDGES = "cp210x has no TIOCMIWAIT and counts no edges: its lines are polled"
    NO_CTS = "CDC-ACM has no CTS, and cdc_acm says it is on for ever: acm_tty_tiocmget()"
    ENDS_OF_RINGS_UNTOLD = (
        "cdc_acm counts the beginning of a ring alone: acm_process_notification()"
    )
    NO_TEMT = "cdc_acm cannot ask whether the last bit has left: drained is what the chip took"
    NO_SHORT_BYTES = "ftdi_sio knows 7 and 8 data bits alone: FTDI_SIO_SET_DATA_REQUEST"
    HAS_MODEM_LINES = "it has modem lines, so refusing them cannot be seen here"
    PURGES_AT_OPEN = "ftdi_sio resets the chip when it is opened, so nothing stale is ever read"
    NEVER_MUTE = "its far end is a wire and not ours to take off"
    LOST_IN_TRANSIT = "bytes on the USB are lost at an unplug, as those of a pty are not"


# our own chips, under their drivers, and the tty that the first of each becomes
CHIPS = {"ft232r": "/dev/ttyUSB0", "cp210x": "/dev/ttyUSB0", "cdc_acm": "/dev/ttyACM0"}
_USB = frozenset(
    {Quirk.ONE_DEVICE, Quirk.TAKES_ANY_LINE, Quirk.HAS_MODEM_LINES, Quirk.LOST_IN_TRANSIT}
)
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
    "ft232r": _USB | {Quirk.PURGES_AT_OPEN, Quirk.NO_SHORT_BYTES},
    "cp210x": _USB | {Quirk.FORGETS_AT_CLOSE, Quirk.COUNTS_NO_EDGES},
    "cdc_acm": _USB
    | {
        Quirk.FORGETS_AT_CLOSE,
        Quirk.NO_CTS,
        Quirk.ENDS_OF_RINGS_UNTOLD,
        Quirk.NO_TEMT,
    },
    "adapter": frozenset(Quirk),
}


def rung(config: pytest.Config) -> str:
    """On which rung the tests of a device run in this process.

    In the guest UDRIVER_USB names the chip of our own that is plugged in for them, one of CHIPS.
    """
    if os.environ.get("UDRIVER_IN_VM"):
        return os.environ.get("UDRIVER_USB") or "qemu"
    return "adapter" if config.getoption("--udriver-port") else "pty"


def without(*quirks: Quirk) -> pytest.MarkDecorator:
    """Skip where the rung has one of these quirks."""
    return pytest.mark.udriver_without(*quirks)


def skip_for_quirk(item: pytest.Item) -> None:
    """Skip ``item`` if its rung has a quirk that it names."""
    here = rung(item.config)
    for mark in item.iter_markers("udriver_without"):
        for quirk in mark.args:
            if quirk in QUIRKS[here]:
                pytest.skip(reason(here, quirk))


def reason(here: str, quirk: Quirk) -> str:
    """The words of a skip, the same for each test so that they can be counted."""
    return f"rung {here}: {quirk.name}: {quirk.value}"


def counted(skipped: list[str]) -> Counter[str]:
    """How many of these skip reasons name each quirk."""
    return Counter(quirk.name for quirk in Quirk for said in skipped if f"{quirk.name}:" in said)
