# SPDX-License-Identifier: MIT
"""Composition. What ``udriver udev install`` and ``uninstall`` do, step by step, and what they say."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from udriver.cli import Status
from udriver.errors import UDriverError
from udriver.udev import RULE_NAME, is_ours, render
from udriver.udev_install import FOLDERS, RulesFolder, copies, difference, not_ours
from udriver.udev_proof import Check, drop_stale_acl, invoking_user, prove
from udriver.udev_system import Plugged, System

__all__ = ["change", "complain", "note", "print_json", "proved"]

SCHEMA = "udriver.udev/1"


def change(verb: str, *, dry_run: bool, yes: bool, root: Path | None, as_json: bool) -> int:
    """Do it, or say why not; the exit status."""
    where = root.resolve() if root else System().root
    path = where / FOLDERS[0] / RULE_NAME
    with RulesFolder.open(where) as folder:
        old = folder.text() if folder else None
        saved = folder.saved_text() if folder else None
    foreign = old is not None and not is_ours(old)
    new = render() if verb == "install" else old if foreign else saved
    needed = new != old or (verb == "uninstall" and foreign)  # which will be refused
    diff = difference(old, new, path)
    report = {"verb": verb, "path": str(path), "diff": diff, "changed": new != old and not dry_run}
    if not as_json:
        click.echo(diff, nl=False)
    if not needed and (verb == "install" or dry_run or root is not None):
        note(_NOTHING[verb])
    if dry_run:
        report["dry_run"] = True
        if verb == "uninstall" and foreign:
            raise not_ours(path)
        note("nothing was changed (--dry-run)")
        return _finish(report, [], as_json)
    if root is not None:
        _write(verb, where, report)
        return _finish(report, [], as_json)
    return _change_here(verb, report, needed=needed, yes=yes, as_json=as_json)


def _change_here(
    verb: str, report: dict[str, Any], *, needed: bool, yes: bool, as_json: bool
) -> int:
    """On this machine, whose udev is told and whose devices are looked at."""
    system = System()
    if why := system.without_udev():
        if not needed and verb == "uninstall":
            note(_NOTHING[verb])
        complain(f"{why}; in a container, run this on its host, or give --root DIR")
        return Status.SKIPPED
    devices = system.plugged()
    if not needed and verb == "uninstall":
        if copies(system.root) or not system.marked(devices):
            note(_NOTHING[verb])
            return _finish(report, [], as_json)
        note("the file is gone, but not all that it did; the rest is taken back now")
        needed = True
    if not needed:
        if os.geteuid() != 0:  # to tell udev again is not ours, to prove is
            return proved(system, devices, report, as_json)
    elif os.geteuid() != 0:
        complain(f"this needs root; run `{_sudo(verb, yes=yes, as_json=as_json)}`")
        return Status.PERMISSION
    else:
        _agree(verb, report["path"], yes=yes)
    if verb == "install":
        _write(verb, system.root, report)
        system.reload()
        system.trigger(devices)
        return proved(system, devices, report, as_json)
    before = system.latencies_before(devices)
    _write(verb, system.root, report)
    _give_back(before)
    system.reload()
    system.trigger(devices)
    drop_stale_acl(system, devices)
    return _finish(report, [], as_json)


_NOTHING = {"install": "already installed", "uninstall": "not installed, nothing to take back"}


def _sudo(verb: str, *, yes: bool, as_json: bool) -> str:
    """The command that does it as root: this interpreter, and nothing from the current folder."""
    import udriver

    home = str(Path(udriver.__file__).parents[1])
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    installed = home in sys.path[1:] and home not in given and home != os.getcwd()
    path = [] if installed else ["env", f"PYTHONPATH={home}"]
    options = ["--yes"] * yes + ["--json"] * as_json
    command = [sys.executable, "-P", "-m", "udriver", "udev", verb, *options]
    return shlex.join(["sudo", *path, *command])


def _agree(verb: str, path: str, *, yes: bool) -> None:
    if yes:
        return
    if not _somebody_there():
        raise click.UsageError(f"there is nobody to ask whether to {verb}; add --yes")
    question = f"udriver: {verb} {path} as root, reload udev and trigger our devices?"
    if not click.confirm(question, err=True):
        raise UDriverError("you did not agree, so nothing was changed")


def _somebody_there() -> bool:
    return sys.stdin.isatty()


def _write(verb: str, where: Path, report: dict[str, Any]) -> None:
    with RulesFolder.open(where, make=verb == "install") as folder:
        if folder is None:
            return
        if verb == "install":
            folder.install(render())
        else:
            folder.uninstall()
        report["saved"] = str(folder.saved) if folder.saved_text() is not None else None
    if report["saved"] and report["changed"]:
        note(f"what was there is kept in {report['saved']}; uninstall puts it back")


def _give_back(before: dict[Path, str]) -> None:
    for file, value in before.items():
        try:
            file.write_text(value)
        except OSError as error:
            note(f"{file} stays as it is: {error.strerror}; replug the device")


def proved(
    system: System,
    devices: Sequence[Plugged],
    report: dict[str, Any],
    as_json: bool,
    first: Check | None = None,
) -> int:
    """Prove it on these devices and report; the exit status."""
    checks = prove(system, devices, invoking_user())
    if not as_json:
        for check in checks:
            click.echo(str(check))
    if not devices:
        note("no matching device is plugged in; plug one and run udriver udev status")
    return _finish(report, [*([first] if first else []), *checks], as_json)


def _finish(report: dict[str, Any], checks: Sequence[Check], as_json: bool) -> int:
    failed = [check for check in checks if check.ok is False]
    if as_json:
        print_json({**report, "checks": [asdict(check) for check in checks]})
    if failed:
        where = ", ".join(dict.fromkeys(check.device for check in failed))
        fix = "" if len(failed) > 1 else f"; {failed[0].fix}"
        complain(
            f"{len(failed)} of {len(checks)} checks failed on {where}"
            + (fix or "; each FAIL line names its fix")
        )
        return Status.FAILED
    return Status.OK


def print_json(report: dict[str, Any]) -> None:
    """One object on standard output."""
    click.echo(json.dumps({"schema": SCHEMA, **report}))


def note(text: str) -> None:
    """Something to know, on standard error."""
    click.echo(f"udriver udev: {text}", err=True)


def complain(text: str) -> None:
    """What went wrong, in one sentence."""
    click.echo(f"udriver: {text}", err=True)
