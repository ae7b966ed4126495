# SPDX-License-Identifier: MIT
"""A USB chip plugged into the running kernel; ``python -m udriver_hw.plug CHIP``.

It prints the path of the tty that the kernel's own driver makes of it, and serves it until end of
file on its stdin; then it is unplugged in order. Each line on stdin is a command (see desk.py),
and is answered by one line: ``ok``, what was asked for, and CLOCK_MONOTONIC in ns; or ``error``.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from udriver_hw import vhci
from udriver_hw.chips.cable import FarEnd, Jumpered, NullModem
from udriver_hw.chips.cdc_acm import CdcAcm
from udriver_hw.chips.cp210x import Cp210x
from udriver_hw.chips.firmware import Echo, Script, parse_script
from udriver_hw.chips.ft232r import Ft232r
from udriver_hw.chips.usb_serial import UsbSerial
from udriver_hw.desk import Desk
from udriver_hw.fault_options import FaultLog, add_options, faults_of
from udriver_hw.faulty_usb import faulty
from udriver_hw.plugged import Plugged

__all__ = ["CHIPS", "main"]

# by the names of --usb
CHIPS: dict[str, Callable[..., UsbSerial]] = {
    "ft232r": Ft232r,
    "cp210x": Cp210x,
    "cdc_acm": CdcAcm,
}
SKIPPED = 77
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
WIRINGS = ("jumper", "echo", "null-modem")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m udriver_hw.plug",
        description="Plug a simulated USB chip into this kernel, print the path of its tty, and "
        "serve it until end of file on stdin. Needs root and vhci_hcd; without them: exit 77.",
    )
    parser.add_argument("chip", choices=CHIPS)
    parser.add_argument("--wiring", choices=WIRINGS, default="jumper")
    parser.add_argument("--script", type=Path, help="a scripted device instead")
    parser.add_argument("--paced", action="store_true", help="take as long as the baud rate")
    parser.add_argument("--serial", default="UDUSB001")
    add_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until end of file, SIGTERM or Ctrl-C; the exit status is 0, 143 or 130."""
    arguments = _arguments(argv)
    try:
        log = FaultLog(arguments.fault_log)
        _wired(arguments, log)
    except (OSError, ValueError) as exc:
        print(f"plug: {exc}; see --help", file=sys.stderr)
        return 2
    if why := vhci.why_not():
        print(f"plug: {why}", file=sys.stderr)
        return SKIPPED
    for signum in SIGNALS:
        signal.signal(signum, _end)
    plugged = Plugged(lambda: _wired(arguments, log))
    try:
        return _serve(plugged)
    except OSError as exc:
        print(f"plug: {exc}", file=sys.stderr)
        return SKIPPED
    finally:
        for signum in SIGNALS:
            signal.signal(signum, signal.SIG_IGN)  # an unplug half done helps nobody
        plugged.detach()


def _end(signum: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + signum)


def _wired(arguments: argparse.Namespace, log: FaultLog | None = None) -> list[UsbSerial]:
    """One chip with something on its wire, or two; the faults are the first one's.

    Raises ValueError or OSError.
    """
    make = CHIPS[arguments.chip]
    faults = (log or FaultLog(None)).faults(faults_of(arguments), arguments.seed)
    chip = faulty(make, faults)(arguments.serial, paced=arguments.paced)
    if arguments.script:
        script = Script(parse_script(arguments.script.read_text(), str(arguments.script)))
        chip.cable = FarEnd(chip.end, script)
    elif arguments.wiring == "echo":
        chip.cable = FarEnd(chip.end, Echo(chip.dte.uart))
    elif arguments.wiring == "jumper":
        chip.cable = Jumpered(chip.end)
    else:
        other = make(f"{arguments.serial}B", paced=arguments.paced)
        chip.cable = other.cable = NullModem(chip.end, other.end)
        return [chip, other]
    return [chip]


def _serve(plugged: Plugged) -> int:
    # The thread that serves lets the desk in after 10 us, not 5 ms: while bytes go round it does not
    # sleep, and in a guest's virtual time, of which work takes none, 5 ms would be for ever.
    sys.setswitchinterval(1e-5)
    print(*plugged.plug(), flush=True)
    desk = Desk(plugged)
    with os.fdopen(0, "rb", closefd=False) as commands:
        for line in commands:
            print(desk.do(line.decode(errors="replace")), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
