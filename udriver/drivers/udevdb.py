# SPDX-License-Identifier: MIT
"""Process context. What udev knows of a device, and which rules files it works from.

Sources: systemd's src/libsystemd/sd-device (the lines of /run/udev/data: E property, G tag, S link);
udev(7), "RULES FILES": /etc over /run over /usr/local/lib over /usr/lib, in the order of their
names, a link to /dev/null masks.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from udriver.drivers.system import Root, read

__all__ = ["OUR_RULE", "Record", "RulesFile", "record", "rules_files"]

OUR_RULE = "61-udriver.rules"


@dataclass(frozen=True, slots=True)
class Record:
    """A device's properties and tags; both empty where udev has not processed it."""

    properties: dict[str, str]
    tags: frozenset[str]


@dataclass(frozen=True, slots=True)
class RulesFile:
    """A file that is in force: its path, and its rules as (line number, text without comments)."""

    path: str
    rules: tuple[tuple[int, str], ...]

    @property
    def name(self) -> str:
        return os.path.basename(self.path)


def record(root: Root, number: str) -> Record:
    """What udev wrote down for the character device "major:minor"."""
    properties, tags = {}, set()
    for line in read(root.run / "udev/data" / f"c{number}").splitlines():
        kind, _, value = line.partition(":")
        if kind == "E":
            name, _, content = value.partition("=")
            properties[name] = content
        elif kind == "G":
            tags.add(value)
    return Record(properties, frozenset(tags))


def rules_files(root: Root) -> list[RulesFile]:
    """The files in force, in the order in which udev reads them."""
    winners: dict[str, Path] = {}
    for folder in (root.etc, root.run, root.lib.parent / "local/lib", root.lib):
        try:
            for path in (folder / "udev/rules.d").iterdir():
                if path.suffix == ".rules":
                    winners.setdefault(path.name, path)
        except OSError:
            continue
    parsed = ((path, _rules(path)) for _, path in sorted(winners.items()))
    return [RulesFile(root.shown(path), rules) for path, rules in parsed if rules]


def _rules(path: Path) -> tuple[tuple[int, str], ...]:
    """A masked file has none: reading /dev/null gives an empty text."""
    rules, begun, start = [], "", 0
    for number, line in enumerate(read(path).splitlines(), 1):
        if not begun and (line.lstrip().startswith("#") or not line.strip()):
            continue
        start = start if begun else number
        begun += line.strip()
        if begun.endswith("\\"):
            begun = begun[:-1]
            continue
        rules.append((start, begun))
        begun = ""
    return tuple(rules)
