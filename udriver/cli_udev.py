# SPDX-License-Identifier: MIT
"""Composition. ``udriver udev``: show, verify, install, prove and take back the udev rule."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from udriver.cli import Status
from udriver.udev import RULE_NAME, is_ours, render
from udriver.udev_change import change, complain, note, print_json, proved
from udriver.udev_install import Copy, copies
from udriver.udev_lint import Finding, lint
from udriver.udev_proof import Check
from udriver.udev_system import System

__all__ = ["udev"]

VERIFY_SINCE = 254  # the first systemd whose udevadm has `verify`
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_YES = click.option("--yes", is_flag=True, help="Do not ask.")
_DRY_RUN = click.option("--dry-run", is_flag=True, help="Only show what would be done.")
_ROOT = click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Work on the files below DIR, for packagers; reload and prove nothing.",
    metavar="DIR",
)


@click.group()
def udev() -> None:
    """Name adapters, let you open them, keep ModemManager off, and make FTDI chips fast."""


@udev.command()
def show() -> None:
    """Print the rule."""
    click.echo(render(), nl=False)


@udev.command()
@click.argument(
    "files", nargs=-1, type=click.Path(path_type=Path, readable=False), metavar="[FILE]..."
)
@_JSON
def verify(files: tuple[Path, ...], as_json: bool) -> None:
    """Check udev rule files, by default our own rule: with our linter, and `udevadm verify` if there is one."""
    system = System()
    texts = {str(path): _read(path) for path in files} or {RULE_NAME: render()}
    found = [finding for name, text in texts.items() for finding in lint(text, name)]
    by = ["udriver"]
    if _version(system) >= VERIFY_SINCE:
        by.append("udevadm")
        for name, text in texts.items():
            found += _udevadm_verify(system, name, text)
    if as_json:
        findings = [asdict(finding) for finding in found]
        print_json({"verb": "verify", "files": list(texts), "by": by, "findings": findings})
    else:
        for finding in found:
            click.echo(str(finding))
    if found:
        complain(f"{len(found)} findings in {', '.join(texts)}; each line above names its place")
        raise SystemExit(Status.FAILED)
    if not as_json:
        note(f"{', '.join(texts)}: nothing wrong, says {' and '.join(by)}")


def _read(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():
            raise click.UsageError(f"{path} is not a regular file")  # a pipe would be waited for
        return path.read_text(errors="surrogateescape")
    except OSError as error:
        raise click.UsageError(f"{path} cannot be read: {error.strerror}") from None


def _version(system: System) -> int:
    if system.udevadm is None:
        return 0
    found = re.match(r"\d+", system.run([system.udevadm, "--version"]).stdout)
    return int(found[0]) if found else 0


def _udevadm_verify(system: System, name: str, text: str) -> list[Finding]:
    """A copy of the text under its own last name, since udevadm looks at that, too."""
    with tempfile.TemporaryDirectory(prefix="udriver-") as folder:
        copy = Path(folder) / Path(name).name
        copy.write_text(text, errors="surrogateescape")
        argv = [str(system.udevadm), "verify", "--resolve-names=never", "--no-style", str(copy)]
        done = system.run(argv)
        if not done.status:
            return []
        lines = re.findall(rf"^{re.escape(str(copy))}:(\d+) (.*)$", done.stderr, re.MULTILINE)
    return [Finding(name, int(at), f"udevadm: {said}") for at, said in lines] or [
        Finding(name, 1, f"udevadm verify gave status {done.status}")
    ]


@udev.command()
@_DRY_RUN
@_YES
@_ROOT
@_JSON
def install(dry_run: bool, yes: bool, root: Path | None, as_json: bool) -> None:
    """Install the rule in /etc/udev/rules.d, apply it, and prove that it took.

    A file that is there and not ours is kept beside it as 61-udriver.rules.udriver-saved.
    """
    raise SystemExit(change("install", dry_run=dry_run, yes=yes, root=root, as_json=as_json))


@udev.command()
@_DRY_RUN
@_YES
@_ROOT
@_JSON
def uninstall(dry_run: bool, yes: bool, root: Path | None, as_json: bool) -> None:
    """Take the rule away and put back what was there: the file, the links, the latency."""
    raise SystemExit(change("uninstall", dry_run=dry_run, yes=yes, root=root, as_json=as_json))


@udev.command()
@_JSON
def status(as_json: bool) -> None:
    """Say which file wins and whether it is ours, then prove it on each device that is there."""
    system = System()
    found = copies(system.root)
    check = _file_check(found)
    report: dict[str, Any] = {
        "verb": "status",
        "winner": str(found[0].path) if found else None,
        "shadowed": [str(copy.path) for copy in found[1:]],
        "checks": [asdict(check)],
    }
    if not as_json:
        click.echo(str(check))
        for copy in found[1:]:
            click.echo(f"note {copy.path}: not read, the one above wins")
    if why := system.without_udev():
        complain(f"{why}; in a container, run this on its host")
        if as_json:
            print_json(report)
        raise SystemExit(Status.SKIPPED)
    raise SystemExit(proved(system, system.plugged(), report, as_json, check))


def _file_check(found: Sequence[Copy]) -> Check:
    install_it = "run `udriver udev install`"
    if not found:
        return Check(RULE_NAME, "file", False, "not installed", install_it)
    winner = found[0]
    if winner.masks:
        says = f"{winner.path} is empty or /dev/null, which switches the rule off"
        return Check(RULE_NAME, "file", False, says, f"remove it, then {install_it}")
    if winner.text is None:
        return Check(RULE_NAME, "file", False, f"{winner.path} cannot be read", install_it)
    if winner.text != render():
        whose = "another version of ours" if is_ours(winner.text) else "not ours"
        says = f"{winner.path} wins and is {whose}"
        return Check(RULE_NAME, "file", False, says, "look at `udriver udev install --dry-run`")
    return Check(RULE_NAME, "file", True, f"{winner.path} wins and is what we would write")
