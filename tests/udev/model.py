# SPDX-License-Identifier: MIT
"""What udev does with a rule file, as far as ours goes: written from systemd's sources, not from ours.

Sources: src/udev/udev-rules.c (order of a line: matches, IMPORT, assignments; GOTO last; string_escape
holds for its line), src/udev/udev-event.c (substitution), src/shared/udev-util.c (what is replaced),
src/udev/udev-builtin-usb_id.c (what is made of a serial), systemd 252.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from dataclasses import dataclass, field

_TOKEN = re.compile(r'\s*([A-Z_]+)(?:\{([^}]*)\})?(==|!=|\+=|=)"([^"]*)",?')
_SAFE = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789#+-.:=@_")
_SPACE = " \t\n\v\f\r"


@dataclass
class Device:
    """A device as a rule sees it; after ``apply``, what udev would make of it."""

    subsystem: str
    action: str = "add"
    driver: str = ""
    env: dict[str, str] = field(default_factory=dict)
    attr: dict[str, str] = field(default_factory=dict)
    attrs: dict[str, str] = field(default_factory=dict)  # of it and its parents
    db: dict[str, str] = field(default_factory=dict)  # from the event before
    links: list[str] = field(default_factory=list)
    tags: set[str] = field(default_factory=set)


def usb_id_serial(text: str) -> str | None:
    """ID_SERIAL_SHORT of a device whose serial is ``text``; None: it has none for udev."""
    data = text.rstrip("\n").encode()
    if not data or any(byte < 0x20 or byte > 0x7F or byte == ord(",") for byte in data):
        return None
    return _replace_chars(_replace_whitespace(data.decode()), "") or None


def _replace_whitespace(text: str) -> str:
    return re.sub(rf"[{_SPACE}]+", "_", text.strip(_SPACE))


def _replace_chars(text: str, also: str) -> str:
    """utf-8 stays, as does an escape of the form \\x20; anything else not listed becomes "_"."""
    out = ""
    at = 0
    while at < len(text):
        if re.match(r"\\x[0-9a-fA-F]{2}", text[at:]):
            out, at = out + text[at : at + 4], at + 4
            continue
        char = text[at]
        out += char if char in _SAFE or char in also or ord(char) > 0x7F else "_"
        at += 1
    return out


def apply(rules: str, device: Device) -> Device:
    """Run the rules over the device."""
    parsed = _parse(rules)
    at = 0
    while at < len(parsed):
        jump = _line(parsed[at], device)
        at += 1
        while jump and ("LABEL", "", "=", jump) not in parsed[at - 1]:
            at += 1
    return device


@functools.cache
def _parse(rules: str) -> list[list[tuple[str, str, str, str]]]:
    lines = [line for line in rules.split("\n") if line.strip() and not line.startswith("#")]
    for line in lines:
        assert not _TOKEN.sub("", line).strip(), f"the model cannot read {line}"
    return [_TOKEN.findall(line) for line in lines]


def _line(tokens: list[tuple[str, str, str, str]], device: Device) -> str:
    """Where to go from here, "" for the next line."""
    matches = [token for token in tokens if token[2] in ("==", "!=")]
    if not all(_match(token, device) for token in matches):
        return ""
    escape = any(token[0] == "OPTIONS" and token[3] == "string_escape=replace" for token in tokens)
    jump = ""
    for key, attribute, operator, value in tokens:
        if operator in ("==", "!="):
            continue
        if key == "IMPORT":
            assert attribute == "db"
            if value not in device.db:
                return ""
            device.env[value] = device.db[value]
        elif key == "ENV":
            device.env[attribute] = _substitute(value, device, replace=False)
        elif key == "ATTR":
            device.attr[attribute] = _substitute(value, device, replace=False)
        elif key == "TAG":
            device.tags.add(value)
        elif key == "SYMLINK":
            text = _substitute(value, device, replace=True)
            text = _replace_chars(text, "/" if escape else "/ ")
            device.links += [link for link in text.split(" ") if link]
        elif key == "GOTO":
            jump = value
        else:
            assert key in ("LABEL", "OPTIONS"), key
    return jump


def _match(token: tuple[str, str, str, str], device: Device) -> bool:
    key, attribute, operator, pattern = token
    found: str | None = {
        "ACTION": device.action,
        "SUBSYSTEM": device.subsystem,
        "DRIVER": device.driver,
        "ENV": device.env.get(attribute, ""),
        "ATTR": device.attr.get(attribute),
        "ATTRS": device.attrs.get(attribute),
    }[key]
    if found is None:  # an attribute that is not there matches nothing
        return operator == "!="
    hit = any(fnmatch.fnmatchcase(found, alternative) for alternative in pattern.split("|"))
    return hit == (operator == "==")


def _substitute(value: str, device: Device, *, replace: bool) -> str:
    def found(match: re.Match[str]) -> str:
        where = device.env if match[1] == "env" else device.attr
        text = where.get(match[2], "")
        return _replace_whitespace(text) if replace else text

    return re.sub(r"\$(env|attr)\{([^}]*)\}", found, value)
