# SPDX-License-Identifier: MIT
"""Composition. ``udriver doctor``: print findings, one line each, and say it by the exit status."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click
from rich.text import Text

from udriver.cli import Status
from udriver.console import Console
from udriver.doctor import Diagnosis, Finding, Scene, diagnose
from udriver.drivers.access import User
from udriver.drivers.system import Root

__all__ = ["doctor_command", "plain", "status_of"]

SCHEMA = "udriver.doctor/1"
_COLOURS = {"error": "bold red", "warning": "yellow"}


def doctor_command(port: str | None, as_json: bool) -> int:
    """Examine ``port``, or everything; give the exit status."""
    if port == "pty":
        raise click.UsageError("the built-in pty has nothing to examine; name a port, or none")
    result = diagnose(port, Scene.of(Root(), User.current()))
    if as_json:
        print(json.dumps(_report(port, result)), flush=True)
    else:
        _print(result)
    return status_of(result)


def status_of(result: Diagnosis) -> Status:
    """0 nothing or warnings only, 1 something cannot be used, 3 no such PORT, 77 nothing there."""
    if result.absent:
        return Status.NO_DEVICE
    if result.prevented:
        return Status.FAILED
    return Status.OK if result.examined else Status.SKIPPED


def _report(port: str | None, result: Diagnosis) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "port": port,
        "examined": result.examined,
        "findings": [asdict(finding) for finding in result.findings],
    }


def _print(result: Diagnosis) -> None:
    console = Console(soft_wrap=True, highlight=False)  # a line stays a line, however long
    for finding in result.findings:
        console.print(_line(finding))
    if not result.examined and not result.absent:
        note = "no serial port and no USB serial device here; `udriver run` uses the built-in pty"
        print(f"udriver: {note}", file=sys.stderr)
    elif not result.findings:
        print(f"udriver: {', '.join(result.examined)}: nothing found", file=sys.stderr)


def _line(finding: Finding) -> Text:
    return Text.assemble(
        (f"{finding.severity}: ", _COLOURS[finding.severity]),
        plain(f"{finding.device}: {finding.what}; fix: "),
        (plain(finding.fix), "bold"),
    )


def plain(text: str) -> str:
    """On one line, whatever a device or a process calls itself."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
