# SPDX-License-Identifier: MIT
"""The linter: each kind of bad rule gets its sentence and its line; the system's own rules get none."""

from __future__ import annotations

from pathlib import Path

import pytest

from udriver.udev_lint import lint

MATCH = 'SUBSYSTEM=="tty"'
BAD: list[tuple[str, str]] = [
    (f'{MATCH}, FOO=="x", TAG+="y"', "1: FOO is no key that udev knows"),
    ('subsystem=="tty", TAG+="y"', "1: subsystem is no key that udev knows; SUBSYSTEM is one"),
    ('SUBSYSTEM="tty", TAG+="y"', "1: SUBSYSTEM does not take =; it takes != =="),
    ('SUBSYSTEM+="tty", TAG+="y"', "1: SUBSYSTEM does not take +=; it takes != =="),
    (f'{MATCH}, MODE=="0660", TAG+="y"', "1: MODE does not take ==; it takes := ="),
    (f'{MATCH}, GROUP+="dialout"', "1: GROUP does not take +=; it takes := ="),
    (f'{MATCH}, GOTO+="x"\nLABEL="x"', "1: GOTO does not take +=; it takes ="),
    (f'{MATCH}, ENV=="1", TAG+="y"', "1: ENV needs {...}"),
    (f'{MATCH}, ATTRS{{}}=="1", TAG+="y"', "1: ATTRS needs {...}"),
    (f'{MATCH}, KERNEL{{x}}=="1", TAG+="y"', "1: KERNEL takes no {...}"),
    (f'{MATCH}, IMPORT{{shell}}="x"', "1: IMPORT{shell} is not one of builtin, cmdline, db, file, parent, program"),
    (f'{MATCH}, RUN{{file}}+="x"', "1: RUN{file} is not one of builtin, program"),
    (f'{MATCH}, TAG+="y', "1: the value of TAG has no closing quote"),
    (f'{MATCH}, TAG+="y\\"', "1: the value of TAG has no closing quote"),
    (f"{MATCH}, TAG+=y", "1: the value of TAG is not in double quotes"),
    (f"{MATCH}, TAG", "1: TAG has no operator"),
    (f'{MATCH}, TAG "y"', "1: TAG has no operator"),
    (f'{MATCH}, TAG+=x"y"', "1: 'x' before the value of TAG is no prefix that udev knows"),
    (f'{MATCH} TAG+="y"', "1: a comma is missing before TAG"),
    (f'{MATCH}TAG+="y"', "1: a comma is missing before TAG"),
    (f'{MATCH},, TAG+="y"', "1: there are two commas before TAG"),
    (f', {MATCH}, TAG+="y"', "1: a comma comes before the first key, SUBSYSTEM"),
    (f'{MATCH}, "y"', "1: a key is expected, and here is '\"y\"'"),
    (f'{MATCH}, MODE="rw"', '1: MODE cannot be "rw"'),
    (f'{MATCH}, MODE="0999"', '1: MODE cannot be "0999"'),
    (f'{MATCH}, OPTIONS+="string_escape=all"', '1: OPTIONS cannot be "string_escape=all"'),
    (f'{MATCH}, GOTO="x"', '1: GOTO="x" has no LABEL in this file'),
    (f'LABEL="x"\n{MATCH}, GOTO="x"', '2: GOTO="x" goes back to line 1; udev only goes forward'),
    (f'{MATCH}, GOTO=""', "1: GOTO is empty"),
    ('LABEL="x"', '1: LABEL="x" is not used by any GOTO'),
    (f'{MATCH}, GOTO="x"\nLABEL="x"\nLABEL="x"', '3: LABEL="x" is there twice'),
    (f'{MATCH}, GOTO="x", GOTO="x"\nLABEL="x"', "1: there are two GOTO in one rule"),
    (MATCH, "1: this rule only matches, and then does nothing"),
    (f'# one\n\n{MATCH}, \\\n  BAR=="1", \\\n  TAG+="y"', "3: BAR is no key that udev knows"),
    (f'{MATCH}, TAG+="y"\n{MATCH}, \\', "2: the last line ends in a backslash; nothing follows"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), BAD)
def test_a_bad_rule(text: str, expected: str) -> None:
    found = [str(finding) for finding in lint(text + "\n", "61-bad.rules")]
    assert f"61-bad.rules:{expected}" in found
    assert all(line.startswith("61-bad.rules:") for line in found)


NAMES = [
    ("61-x.rule", "the name 61-x.rule does not end in .rules, so udev does not read the file"),
    ("99-x.rules", "99-x.rules sorts after 73-seat-late.rules, which alone acts on TAG uaccess"),
    ("73-seat-latex.rules", "73-seat-latex.rules sorts after 73-seat-late.rules, which alone acts on TAG uaccess"),
    ("10-x.rules", "10-x.rules sorts before 60-serial.rules, which alone finds the ID_SERIAL of a tty"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "expected"), NAMES)
def test_a_bad_file_name(name: str, expected: str) -> None:
    text = 'ENV{ID_SERIAL_SHORT}=="?*", TAG+="uaccess"\n'
    assert [str(finding) for finding in lint(text, name)] == [f"{name}:1: {expected}"]


GOOD = [
    "",
    "# only a comment, = and all",
    'KERNEL=="a\\"b", TAG+="y"',
    'SYMLINK+=e"a\\x20b"',
    'ACTION=="add", \\\n# in between\n  TAG-="y",\n',
    'MODE="$env{M}", OWNER:="root"',
    'ATTR{power/control}="auto"\r\n',
    'TEST{0700}=="/x", TEST=="y", RUN+="/bin/true a, b"',
]


@pytest.mark.parametrize("text", GOOD)
def test_a_good_rule(text: str) -> None:
    assert lint(text, "61-good.rules") == []


def test_a_path_is_kept_in_the_finding() -> None:
    assert str(lint("x", "/a/61-b.rules")[0]).startswith("/a/61-b.rules:1: ")


@pytest.mark.parametrize("count", [0, 1, 7, 40, 133])
def test_any_cut_of_a_rule_ends_in_findings_and_not_in_an_exception(count: int) -> None:
    text = f'{MATCH}, ENV{{A}}!="b", SYMLINK+="x/$env{{A}}", GOTO="e"\nLABEL="e"\n'
    for end in range(count % len(text), len(text), 3):
        lint(text[:end], "61-cut.rules")


def test_the_systems_own_rules_are_good() -> None:
    files = sorted(Path("/usr/lib/udev/rules.d").glob("*.rules"))
    if not files:
        pytest.skip("no udev rules here to compare with: apt-get install udev")
    for path in files:
        assert lint(path.read_text(), str(path)) == []
