# SPDX-License-Identifier: MIT
"""``--fault``, ``--faults``, ``--seed`` and ``--fault-log`` of the commands that serve a device."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from udriver_hw.faults import Fault, Faults, Injected, parse_fault, parse_faults

__all__ = ["FaultLog", "add_options", "faults_of"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Let ``parser`` know them."""
    group = parser.add_argument_group("faults", "what goes wrong; see hw/README.md for the words")
    group.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="TEXT",
        help='such as "drop 3 at byte 100"; may be repeated',
    )
    group.add_argument("--faults", type=Path, metavar="FILE", help="one fault a line")
    group.add_argument("--seed", type=int, default=0, help="of all that is left to chance")
    group.add_argument(
        "--fault-log", type=Path, metavar="FILE", help="a JSON object a line for each that happened"
    )


def faults_of(arguments: argparse.Namespace) -> list[Fault]:
    """Those of the options, the file's last. Raises ValueError with the place, or OSError."""
    found = [parse_fault(text, f"--fault {text!r}") for text in arguments.fault]
    if arguments.faults:
        try:
            text = arguments.faults.read_text()
        except UnicodeDecodeError:
            raise ValueError(f"{arguments.faults} is not a text file") from None
        found += parse_faults(text, str(arguments.faults))
    return found


class FaultLog:
    """The file of --fault-log, if there is one; a line is there as soon as its fault happened."""

    def __init__(self, path: Path | None) -> None:
        self._file = path.open("w", buffering=1) if path else None

    def faults(self, found: list[Fault], seed: int) -> Faults:
        """For one device, from plug to unplug; what happens goes into the file."""
        return Faults(found, seed, self._write if self._file else None)

    def _write(self, injected: Injected) -> None:
        try:
            if self._file is not None:
                self._file.write(json.dumps(injected._asdict()) + "\n")
        except OSError:
            self._file = None  # a full disk is no reason to take the device away
