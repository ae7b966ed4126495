# SPDX-License-Identifier: MIT
"""``udriver udev``: statuses, sentences and JSON, on a machine made of files."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from tests.udev.conftest import Machine
from udriver import cli_udev, udev_change
from udriver.cli import Status, cli, sentence_of, status_of
from udriver.errors import UDriverError
from udriver.udev import RULE_NAME, render
from udriver.udev_install import FOLDERS
from udriver.udev_system import Result, System

FOREIGN = 'KERNEL=="ttyUSB0", SYMLINK+="mine"\n'


@dataclass
class Ended:
    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(self.stdout)
        assert report["schema"] == "udriver.udev/1"
        return report


def udev(*arguments: str) -> Ended:
    """As ``udriver.cli.main`` does, without its signal handlers."""
    result = CliRunner().invoke(cli, ["udev", *arguments], standalone_mode=False)
    status, stderr = result.exit_code, result.stderr
    if isinstance(result.exception, (OSError, UDriverError, ValueError, click.ClickException)):
        status = status_of(result.exception)
        stderr += f"udriver: {sentence_of(result.exception)}\n"
    elif result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ended(status, result.stdout, stderr)


def complaint(ended: Ended, status: Status) -> str:
    assert ended.status == status, ended
    lines = [line for line in ended.stderr.splitlines() if line.startswith("udriver: ")]
    assert len(lines) == 1, ended
    return lines[0]


@pytest.fixture
def here(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """The machine of files is the one the commands run on, and we are its root."""
    for module in (cli_udev, udev_change):
        monkeypatch.setattr(module, "System", lambda: machine.system)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.delenv("SUDO_UID", raising=False)
    return machine


def rule(machine: Machine) -> Path:
    return machine.root / FOLDERS[0] / RULE_NAME


def test_show_prints_the_rule_and_nothing_else() -> None:
    ended = udev("show")
    assert (ended.status, ended.stdout, ended.stderr) == (0, render(), "")


def test_verify_says_who_looked(here: Machine) -> None:
    here.answers["--version"] = Result(0, "systemd 252 (252.39)\n+PAM")
    report = udev("verify", "--json").json
    assert (report["findings"], report["by"]) == ([], ["udriver"])


def test_verify_asks_udevadm_where_it_can(here: Machine) -> None:
    here.answers["--version"] = Result(0, "254 (254.5)\n")
    assert udev("verify", "--json").json["by"] == ["udriver", "udevadm"]
    assert here.ran[-1][:3] == ["verify", "--resolve-names=never", "--no-style"]
    assert here.ran[-1][3].endswith(f"/{RULE_NAME}")


def test_verify_hands_on_what_udevadm_found(here: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    here.answers["--version"] = Result(0, "257\n")

    def run(argv: Sequence[str]) -> Result:
        if argv[1] == "verify":
            return Result(1, "", f"{argv[-1]}:3 Invalid value for X.\n")
        return Machine.run(here, argv)

    monkeypatch.setattr(cli_udev, "System", lambda: System(here.root, run, "udevadm"))
    ended = udev("verify")
    assert ended.stdout == f"{RULE_NAME}:3: udevadm: Invalid value for X.\n"
    assert "1 findings" in complaint(ended, Status.FAILED)


def test_verify_any_file_with_its_place(here: Machine, tmp_path: Path) -> None:
    bad = tmp_path / "61-bad.rules"
    bad.write_bytes(b'# \xff\nSUBSYSTEM="tty"\n')
    ended = udev("verify", str(bad))
    assert f"{bad}:2: SUBSYSTEM does not take =" in ended.stdout
    assert str(bad) in complaint(ended, Status.FAILED)
    assert udev("verify", str(bad), "--json").json["findings"][0]["line"] == 2


def test_verify_a_file_that_cannot_be_read(here: Machine) -> None:
    assert "/nosuch cannot be read" in complaint(udev("verify", "/nosuch"), Status.USAGE)


def test_root_is_for_packagers(tmp_path: Path) -> None:
    target = tmp_path / FOLDERS[0] / RULE_NAME
    first = udev("install", "--root", str(tmp_path))
    assert (first.status, target.read_text()) == (0, render())
    assert first.stdout.startswith(f"--- /dev/null\n+++ {target}\n")
    again = udev("install", "--root", str(tmp_path), "--json")
    assert (again.json["changed"], again.json["diff"]) == (False, "")
    assert "already installed" in again.stderr
    assert udev("uninstall", "--root", str(tmp_path)).status == 0
    assert not target.exists()
    assert "not installed" in udev("uninstall", "--root", str(tmp_path)).stderr


def test_root_must_be_there() -> None:
    assert "/nosuch" in complaint(udev("install", "--root", "/nosuch"), Status.USAGE)


@pytest.mark.parametrize("verb", ["install", "uninstall"])
def test_a_dry_run_changes_nothing(tmp_path: Path, verb: str) -> None:
    target = tmp_path / FOLDERS[0] / RULE_NAME
    if verb == "uninstall":
        udev("install", "--root", str(tmp_path))
    before = sorted(map(str, tmp_path.rglob("*")))
    ended = udev(verb, "--dry-run", "--root", str(tmp_path))
    assert (ended.status, str(target) in ended.stdout) == (0, True)
    assert "nothing was changed" in ended.stderr
    assert sorted(map(str, tmp_path.rglob("*"))) == before


def test_a_saved_file_is_named_and_comes_back(tmp_path: Path) -> None:
    target = tmp_path / FOLDERS[0] / RULE_NAME
    target.parent.mkdir(parents=True)
    target.write_text(FOREIGN)
    ended = udev("install", "--root", str(tmp_path))
    assert f"kept in {target}.udriver-saved" in ended.stderr
    assert '-KERNEL=="ttyUSB0", SYMLINK+="mine"' in ended.stdout
    udev("uninstall", "--root", str(tmp_path))
    assert target.read_text() == FOREIGN


def test_what_is_not_ours_is_left(tmp_path: Path) -> None:
    target = tmp_path / FOLDERS[0] / RULE_NAME
    target.parent.mkdir(parents=True)
    target.write_text(FOREIGN)
    ended = udev("uninstall", "--root", str(tmp_path))
    assert "not written by udriver" in complaint(ended, Status.FAILED)
    assert target.read_text() == FOREIGN


def test_not_ours_is_said_in_a_dry_run_too(tmp_path: Path) -> None:
    target = tmp_path / FOLDERS[0] / RULE_NAME
    target.parent.mkdir(parents=True)
    target.write_text(FOREIGN)
    ended = udev("uninstall", "--dry-run", "--root", str(tmp_path))
    assert "not written by udriver" in complaint(ended, Status.FAILED)


def test_a_root_that_may_not_be_written_is_a_permission(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else: run the tests as root")
    for folder in (tmp_path, *tmp_path.parents[:2]):  # pytest keeps them to itself
        folder.chmod(0o755)
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        status = udev("install", "--root", str(tmp_path)).status
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == Status.PERMISSION


def test_a_planted_link_is_one_sentence(tmp_path: Path) -> None:
    target = tmp_path / FOLDERS[0] / RULE_NAME
    target.parent.mkdir(parents=True)
    target.symlink_to("/etc/passwd")
    ended = udev("install", "--root", str(tmp_path))
    assert "is a symbolic link to /etc/passwd" in complaint(ended, Status.FAILED)


@pytest.mark.parametrize("verb", ["install", "uninstall", "status"])
def test_without_udev_it_is_a_named_skip(here: Machine, verb: str) -> None:
    (here.root / "run/udev/control").unlink()
    ended = udev(verb, *([] if verb == "status" else ["--yes"]))
    if verb == "uninstall":
        assert "not installed" in ended.stderr
    assert "udevd is not running" in complaint(ended, Status.SKIPPED)
    assert not rule(here).exists()


def test_not_root_says_the_exact_command(here: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    said = complaint(udev("install", "--yes"), Status.PERMISSION)
    command = shlex.split(said[said.index("`") + 1 : said.rindex("`")])
    assert command[0] == "sudo"
    assert command[-6:] == ["-P", "-m", "udriver", "udev", "install", "--yes"]
    assert command[-7] == sys.executable
    assert not rule(here).exists()
    # and it is exact: without sudo, from a folder with a hostile module, it finds udriver
    hostile = here.root / "hostile"
    hostile.mkdir()
    (hostile / "click.py").write_text("raise SystemExit('imported')")
    done = subprocess.run(
        [*command[1:-2], "show"], cwd=hostile, env={"PATH": os.environ["PATH"]},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, render()), done.stderr


def test_nobody_to_ask(here: Machine) -> None:
    assert "add --yes" in complaint(udev("install"), Status.USAGE)
    assert not rule(here).exists()


@pytest.mark.parametrize("agreed", [True, False])
def test_somebody_is_asked(here: Machine, monkeypatch: pytest.MonkeyPatch, agreed: bool) -> None:
    asked: list[str] = []

    def confirm(question: str, **options: object) -> bool:
        asked.append(question)
        return agreed

    monkeypatch.setattr(udev_change, "_somebody_there", lambda: True)
    monkeypatch.setattr(click, "confirm", confirm)
    ended = udev("install")
    assert len(asked) == 1
    assert str(rule(here)) in asked[0]
    assert rule(here).exists() is agreed
    if not agreed:
        assert "you did not agree" in complaint(ended, Status.FAILED)
        assert here.ran == []


def test_install_does_and_proves_it(here: Machine) -> None:
    here.plug()
    ended = udev("install", "--yes")
    assert ended.status == 0, ended
    assert rule(here).read_text() == render()
    assert [ran[0] for ran in here.ran] == ["control", "trigger", "settle"]
    proofs = [line for line in ended.stdout.splitlines() if line.startswith(("ok ", "skip "))]
    assert len(proofs) == 7
    report = udev("install", "--yes", "--json").json
    assert {check["what"]: check["ok"] for check in report["checks"]}["latency"] is True


def test_a_failed_proof_is_status_1_with_the_fix(here: Machine) -> None:
    here.plug(latency="16")
    ended = udev("install", "--yes")
    assert "FAIL /dev/ttyUSB0 latency: latency_timer 16 ms; replug it" in ended.stdout
    assert "1 of 7 checks failed on /dev/ttyUSB0; replug it" in complaint(ended, Status.FAILED)


def test_nothing_plugged_in_is_no_failure(here: Machine) -> None:
    ended = udev("install", "--yes")
    assert ended.status == 0
    assert "no matching device is plugged in; plug one and run udriver udev status" in ended.stderr


def test_uninstall_gives_the_latency_back(here: Machine) -> None:
    tty = here.plug()
    udev("install", "--yes")
    here.ran.clear()
    assert udev("uninstall", "--yes").status == 0
    assert (tty.parents[1] / "latency_timer").read_text() == "16"
    assert [ran[0] for ran in here.ran] == ["control", "trigger", "settle"]
    assert not rule(here).exists()


def test_an_uninstall_that_was_cut_short_is_finished_by_the_next(here: Machine) -> None:
    tty = here.plug()
    udev("install", "--yes")
    rule(here).unlink()
    here.ran.clear()
    ended = udev("uninstall", "--yes")
    assert ended.status == 0
    assert "the rest is taken back now" in ended.stderr
    assert (tty.parents[1] / "latency_timer").read_text() == "16"
    assert [ran[0] for ran in here.ran] == ["control", "trigger", "settle"]


@pytest.mark.parametrize("packaged", [True, False])
def test_an_uninstall_of_nothing_does_nothing(here: Machine, packaged: bool) -> None:
    tty = here.plug()
    if packaged:  # it is in force, and the package's to take away
        path = here.root / "usr/lib/udev/rules.d" / RULE_NAME
        path.parent.mkdir(parents=True)
        path.write_text(render())
    else:
        here.properties[str(tty.parents[1])] = {}
    ended = udev("uninstall", "--yes")
    assert (ended.status, here.ran) == (0, [])
    assert "not installed, nothing to take back" in ended.stderr


def test_status_before_and_after(here: Machine) -> None:
    here.plug()
    assert "not installed" in udev("status").stdout
    udev("install", "--yes")
    ended = udev("status", "--json")
    assert (ended.status, ended.json["winner"]) == (0, str(rule(here)))
    assert all(check["ok"] is not False for check in ended.json["checks"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "switches the rule off"),
        (FOREIGN, "wins and is not ours"),
        (render([]), "wins and is another version of ours"),
    ],
    ids=["masked", "foreign", "older"],
)
def test_status_of_what_wins(here: Machine, text: str | None, says: str) -> None:
    packaged = here.root / FOLDERS[3] / RULE_NAME
    packaged.parent.mkdir(parents=True)
    packaged.write_text(render())
    rule(here).parent.mkdir(parents=True)
    if text is None:
        rule(here).symlink_to("/dev/null")
    else:
        rule(here).write_text(text)
    ended = udev("status")
    assert (ended.status, says in ended.stdout) == (Status.FAILED, True), ended
    assert f"{packaged}: not read, the one above wins" in ended.stdout


def test_status_finds_the_packaged_rule(here: Machine) -> None:
    packaged = here.root / FOLDERS[3] / RULE_NAME
    packaged.parent.mkdir(parents=True)
    packaged.write_text(render())
    ended = udev("status")
    assert ended.status == 0
    assert f"{packaged} wins and is what we would write" in ended.stdout


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    ended = udev("install", "--root", str(tmp_path))
    assert "no space left on device; what was there is as it was" in complaint(ended, Status.FAILED)
