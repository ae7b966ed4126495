# SPDX-License-Identifier: MIT
"""What needs no VM of hw/vm/oracle: its numbers are ours, and it says what it is missing."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.oracle import actor, processor, script
from vm.failure import Missing, RigError
from vm.oracle import build, stage

ABI = (build.SOURCES / "oracle_abi.h").read_text()
RELEASE = "6.12.0-none"
# the header's names where they are not the script's words
NAMES = {"ON_CPU": "complete_on_current_cpu", "COMPLETE_ALL": "complete_all"}


def defined(name: str) -> int:
    found = re.search(rf"#define ORACLE_{name} (\w+)", ABI)
    assert found is not None
    return int(found[1], 0)


def enumerated(name: str) -> dict[str, int]:
    found = re.search(rf"enum {name} {{(.*?)}}", ABI, re.DOTALL)
    assert found is not None
    numbers, following = {}, 0
    for item in re.findall(r"\w+(?: = \d+)?", found[1]):
        word, _, value = item.partition(" = ")
        following = int(value) if value else following
        numbers[word] = following
        following += 1
    return numbers


def test_the_operations_have_the_module_s_numbers() -> None:
    names = {name.removeprefix("OP_"): number for name, number in enumerated("oracle_what").items()}
    assert {
        NAMES.get(name, name.lower()): number for name, number in names.items()
    } == script.NUMBERS


def test_the_contexts_have_the_module_s_numbers() -> None:
    contexts = [name.removeprefix("IN_").lower() for name in enumerated("oracle_context")]
    assert tuple(contexts) == (*script.CONTEXTS, script.FALLING)


def test_time_is_the_module_s() -> None:
    assert tuple(map(defined, ("UNIT", "SLACK", "SLOT"))) == (
        processor.UNIT,
        actor.SLACK,
        actor.SLOT,
    )
    assert defined("ACTORS") == script.ACTORS
    assert defined("COMPLETIONS") == len(script.COMPLETIONS)
    assert (defined("MAX"), defined("NEGATIVE")) == (
        script.TIMEOUTS["max"], script.TIMEOUTS["negative"],
    )  # fmt: skip


def test_a_unit_holds_every_slot_and_what_the_wheel_is_late() -> None:
    """The arithmetic behind the words `tick` and `2`; see oracle_abi.h."""
    late, noise, finest = 128, defined("MOST_NOISE"), 504
    last_slot = (script.ACTORS - 1) * actor.SLOT
    assert 64 + noise < actor.SLOT
    assert last_slot + late + noise <= actor.SLACK
    assert finest < processor.UNIT - actor.SLACK
    assert defined("MOST_UNITS") * processor.UNIT - actor.SLACK + last_slot < 4032


def test_without_headers_it_says_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(Missing, match=r"headers .*: run `python hw/vm/rig.py fetch --headers`\."):
        build.built(RELEASE)


def test_without_a_compiler_it_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "udriver/vm/headers" / RELEASE).mkdir(parents=True)
    with pytest.raises(Missing, match=r"make.* not found .* apt-get install .*gcc-12"):
        build.built(RELEASE)


def test_a_build_that_fails_shows_the_compiler_s_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(build, "PROGRAMS", {"sh": "dash"})
    tree = tmp_path / "udriver/vm/headers" / RELEASE / "usr/src" / f"linux-headers-{RELEASE}"
    tree.mkdir(parents=True)
    (tree / "Makefile").write_text("modules:\n\t@echo no such kernel; exit 1\n")
    if shutil.which("make") is None:
        pytest.skip("make not found on PATH: run `sudo apt-get install make`.")
    with pytest.raises(RigError, match="no such kernel"):
        build.built(RELEASE)
    assert not list((tmp_path / "udriver/vm/oracle").glob("[0-9a-f]*[0-9a-f]"))


def test_logs_are_cut_at_their_lengths() -> None:
    data = b"\x02\0\0\0a\n\0\0\0\0\x03\0\0\0bc\n"
    assert stage._records(data) == ["a\n", "", "bc\n"]
