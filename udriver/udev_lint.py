# SPDX-License-Identifier: MIT
"""Composition. A linter for udev rules, for systems whose udevadm has no `verify` (before 254).

udev itself skips a line it does not understand and tells only its log. Pure: text in, findings out.
Keys and operators are those of udev(7) and of src/udev/udev-rules.c in systemd 252 and later.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath

__all__ = ["Finding", "lint"]

_MATCH = frozenset({"==", "!="})
_SET = frozenset({"=", "+=", ":="})
_NO, _MAY, _MUST = "no", "may", "must"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong, and where."""

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


@dataclass(frozen=True, slots=True)
class _Key:
    operators: frozenset[str]
    attribute: str = _NO
    attributes: frozenset[str] = frozenset()  # any, if empty
    values: str = ""  # a pattern for what may be assigned


_KEYS: dict[str, _Key] = {
    **dict.fromkeys(
        ("ACTION", "DEVPATH", "KERNEL", "KERNELS", "SUBSYSTEM", "SUBSYSTEMS", "DRIVER", "DRIVERS"),
        _Key(_MATCH),
    ),
    "TAGS": _Key(_MATCH),
    "RESULT": _Key(_MATCH),
    "ATTRS": _Key(_MATCH, _MUST),
    "CONST": _Key(_MATCH, _MUST, frozenset({"arch", "virt", "cvm"})),
    "TEST": _Key(_MATCH, _MAY),
    "PROGRAM": _Key(_MATCH | _SET),
    "IMPORT": _Key(
        _MATCH | _SET, _MUST, frozenset({"program", "builtin", "file", "db", "cmdline", "parent"})
    ),
    "NAME": _Key(_MATCH | _SET),
    "SYMLINK": _Key(_MATCH | _SET | {"-="}),
    "TAG": _Key(_MATCH | _SET | {"-="}),
    "ENV": _Key(_MATCH | {"=", "+="}, _MUST),
    "ATTR": _Key(_MATCH | {"="}, _MUST),
    "SYSCTL": _Key(_MATCH | {"="}, _MUST),
    "OWNER": _Key(frozenset({"=", ":="})),
    "GROUP": _Key(frozenset({"=", ":="})),
    "MODE": _Key(frozenset({"=", ":="}), values=r"[0-7]{3,4}|.*[$%].*"),
    "SECLABEL": _Key(frozenset({"=", "+="}), _MUST),
    "RUN": _Key(_SET, _MAY, frozenset({"program", "builtin"})),
    "OPTIONS": _Key(
        _SET,
        values=r"string_escape=(none|replace)|(db_persist|watch|nowatch|dump|dump-json)"
        r"|link_priority=-?\d+|static_node=.+|log_level=.+",
    ),
    "GOTO": _Key(frozenset({"="})),
    "LABEL": _Key(frozenset({"="})),
}

_BLANK = re.compile(r"[\s,]*")
_TOKEN = re.compile(
    r"""(?P<key>[A-Za-z_]+)(?:\{(?P<attribute>[^}"]*)\})?\s*
        (?P<operator>==|!=|\+=|-=|:=|=)?\s*
        (?P<prefix>[A-Za-z]*)(?P<open>"?)""",
    re.VERBOSE,
)
_VALUE = re.compile(r'(?P<text>(?:[^"\\]|\\.)*)"', re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Token:
    key: str
    attribute: str | None
    operator: str
    value: str


def lint(text: str, file: str) -> list[Finding]:
    """What is wrong with the rules in ``text``, in the order of the lines."""
    findings: list[Finding] = []
    rules: list[tuple[int, list[_Token]]] = []
    for number, line in _logical_lines(text, file, findings):
        tokens: list[_Token] = []
        for item in _tokens(line):
            if isinstance(item, str):
                findings.append(Finding(file, number, item))
            else:
                tokens.append(item)
                findings += [Finding(file, number, what) for what in _wrong(item)]
        rules.append((number, tokens))
        findings += [Finding(file, number, what) for what in _wrong_together(tokens)]
    findings += [Finding(file, number, what) for number, what in _jumps(rules)]
    findings += [Finding(file, 1, what) for what in _wrong_name(PurePath(file).name, rules)]
    return sorted(findings, key=lambda finding: finding.line)


def _logical_lines(text: str, file: str, findings: list[Finding]) -> Iterator[tuple[int, str]]:
    """Rules with their first line's number; a backslash joins a line to the next."""
    joined, first = "", 0
    for number, raw in enumerate(text.removesuffix("\n").split("\n"), 1):
        line = raw.strip(" \t\r")
        if line.startswith("#"):
            continue  # between joined lines, too
        first = first or number
        if line.endswith("\\"):
            joined += line[:-1]
            continue
        if joined + line:
            yield first, joined + line
        joined, first = "", 0
    if joined:
        findings.append(Finding(file, first, "the last line ends in a backslash; nothing follows"))
        yield first, joined


def _tokens(line: str) -> Iterator[_Token | str]:
    """The tokens of a rule; a sentence in place of one that cannot be read, and the last then."""
    at = 0
    while at < len(line):
        blank = _BLANK.match(line, at)
        assert blank is not None  # it matches nothing, too
        at = blank.end()
        if at == len(line):
            break
        token = _TOKEN.match(line, at)
        if token is None:
            yield f"a key is expected, and here is {line[at : at + 20]!r}"
            return
        key = token["key"]
        if "," not in blank[0] and blank.start():
            yield f"a comma is missing before {key}"
        elif blank[0].count(",") > 1:
            yield f"there are two commas before {key}"
        elif "," in blank[0] and not blank.start():
            yield f"a comma comes before the first key, {key}"
        if not token["operator"]:
            yield f"{key} has no operator"
            return
        if not token["open"]:
            yield f"the value of {key} is not in double quotes"
            return
        if token["prefix"] not in ("", "e", "i", "ei", "ie"):
            yield f"{token['prefix']!r} before the value of {key} is no prefix that udev knows"
        value = _VALUE.match(line, token.end())
        if value is None:
            yield f"the value of {key} has no closing quote"
            return
        yield _Token(key, token["attribute"], token["operator"], value["text"])
        at = value.end()


def _wrong(token: _Token) -> Iterator[str]:
    known = _KEYS.get(token.key)
    if known is None:
        hint = f"; {token.key.upper()} is one" if token.key.upper() in _KEYS else ""
        yield f"{token.key} is no key that udev knows{hint}"
        return
    if token.attribute is not None and known.attribute == _NO:
        yield f"{token.key} takes no {{...}}"
    elif not token.attribute and known.attribute == _MUST:
        yield f"{token.key} needs {{...}}"
    elif token.attribute and known.attributes and token.attribute not in known.attributes:
        listed = ", ".join(sorted(known.attributes))
        yield f"{token.key}{{{token.attribute}}} is not one of {listed}"
    if token.operator not in known.operators:
        listed = " ".join(sorted(known.operators))
        yield f"{token.key} does not take {token.operator}; it takes {listed}"
    elif (
        known.values
        and token.operator not in _MATCH
        and not re.fullmatch(known.values, token.value)
    ):
        yield f'{token.key} cannot be "{token.value}"'
    elif token.key in ("GOTO", "LABEL") and not token.value:
        yield f"{token.key} is empty"


def _wrong_together(tokens: list[_Token]) -> Iterator[str]:
    for key in ("GOTO", "LABEL"):
        if sum(token.key == key for token in tokens) > 1:
            yield f"there are two {key} in one rule"
    if tokens and all(token.operator in _MATCH for token in tokens):
        yield "this rule only matches, and then does nothing"


def _jumps(rules: list[tuple[int, list[_Token]]]) -> Iterator[tuple[int, str]]:
    """A GOTO goes forward, to a LABEL of the same file."""
    goto = [(n, t.value) for n, tokens in rules for t in tokens if t.key == "GOTO"]
    label = [(n, t.value) for n, tokens in rules for t in tokens if t.key == "LABEL"]
    for number, name in goto:
        places = [at for at, found in label if found == name]
        if not places:
            yield number, f'GOTO="{name}" has no LABEL in this file'
        elif max(places) <= number:
            yield number, f'GOTO="{name}" goes back to line {max(places)}; udev only goes forward'
    seen: set[str] = set()
    for number, name in label:
        if name in seen:
            yield number, f'LABEL="{name}" is there twice'
        elif name not in {target for _, target in goto}:
            yield number, f'LABEL="{name}" is not used by any GOTO'
        seen.add(name)


def _wrong_name(name: str, rules: list[tuple[int, list[_Token]]]) -> Iterator[str]:
    """udev reads files in the order of their names, whatever folder they are in."""
    if not name.endswith(".rules"):
        yield f"the name {name} does not end in .rules, so udev does not read the file"
    tokens = [token for _, found in rules for token in found]
    tags = any(t.key == "TAG" and t.operator == "+=" and t.value == "uaccess" for t in tokens)
    if tags and name >= "73-seat-late.rules":
        yield f"{name} sorts after 73-seat-late.rules, which alone acts on TAG uaccess"
    reads = any(
        t.key in ("ENV", "TAG", "SYMLINK")
        and ((t.attribute or "").startswith("ID_SERIAL") or "$env{ID_SERIAL" in t.value)
        for t in tokens
    )
    finds = any(t.key == "IMPORT" and t.attribute in ("builtin", "program") for t in tokens)
    if reads and not finds and name <= "60-serial.rules":
        yield f"{name} sorts before 60-serial.rules, which alone finds the ID_SERIAL of a tty"
