# SPDX-License-Identifier: MIT
"""`python -m tests.oracle`: scripts on the real kernel and on udriver, in one boot of a VM.

Exit status: 0 the same on both, 1 a difference, 77 a prerequisite is missing, 125 the rig failed.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).parents[2] / "hw"))  # as pytest does, for the rig

from tests.oracle import corpus, directed
from tests.oracle.differential import Kernel, Report
from tests.oracle.script import Script, ScriptError, parsed, text
from tests.oracle.strategy import generated
from tests.oracle.wrong import WRONG
from vm.failure import RigError
from vm.oracle.stage import Stage

FROZEN_SEED, FROZEN_GENERATED = 6012, 1500  # with the directed ones, about 3,200


@click.command()
@click.option("--scripts", "count", default=2000, show_default=True, help="How many to generate.")
@click.option("--seed", type=int, help="Of the generator; default: a new one, printed.")
@click.option("--directed/--no-directed", "with_directed", default=True, show_default=True)
@click.option("--freeze", is_flag=True, help=f"Write {corpus.FROZEN.name} anew.")
@click.option("--replay", metavar="FILE|SEED", help="The scripts of a file, or of a seed, only.")
@click.option("--log", "with_log", is_flag=True, help="Print each script with the kernel's log.")
@click.option("--kernel", "series", help="The kernel to boot, as of rig.py.")
def main(
    count: int,
    seed: int | None,
    with_directed: bool,
    freeze: bool,
    replay: str | None,
    with_log: bool,
    series: str | None,
) -> None:
    """Play scripts on the real struct completion and on udriver's, and print what differs."""
    if seed is None:
        seed = random.randrange(2**32)
    if freeze:
        count, seed, with_directed = FROZEN_GENERATED, FROZEN_SEED, True
    if replay and replay.isdigit():
        seed, with_directed = int(replay), False
    try:
        told = _of_file(Path(replay)) if replay and not replay.isdigit() else None
    except (ScriptError, OSError) as error:
        raise click.UsageError(f"--replay {replay}: {error}.") from error
    try:
        sys.exit(_run(told, count, seed, with_directed, freeze, with_log, series))
    except RigError as error:
        click.echo(f"oracle: {error}", err=True)
        sys.exit(error.exit_status)


def _of_file(path: Path) -> list[Script]:
    """Lines that are scripts, or frozen logs."""
    if path.suffix == ".xz":
        return [entry.script for entry in corpus.read(path)[1]]
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return [parsed(line) for line in lines if line]


def _run(
    told: list[Script] | None,
    count: int,
    seed: int,
    with_directed: bool,
    freeze: bool,
    with_log: bool,
    series: str | None,
) -> int:
    scripts = told if told is not None else generated(count, seed)
    if told is None and with_directed:
        scripts = [*directed.scripts(), *scripts]
    with Stage(series) as stage:
        click.echo(f"Linux {stage.release}, up in {stage.boot_seconds:.1f} s; seed {seed}")
        kernel = Kernel(stage)
        began = time.monotonic()
        kernel.logs(scripts)
        seconds = time.monotonic() - began
        report = kernel.compared(scripts)
        click.echo(f"{len(report.entries)} scripts in {seconds:.1f} s on the kernel")
        if with_log:
            for entry in report.entries:
                click.echo(f"{text(entry.script)}\n{entry.log}")
        if report.differences and told is None and (smallest := kernel.shrunk(count, seed)):
            report.differences.insert(0, smallest)
        steady = not freeze or kernel.steady(scripts)
        complaint = stage.complaint()
    _print(report, of_purpose=told is not None)
    if freeze and steady and not report.differences:
        _freeze(stage.release, report)
    elif freeze:
        click.echo("nothing frozen: a log differs from ours, or from itself the second time")
    if complaint:
        click.echo(f"the guest's kernel complained: {complaint}")
    return 1 if report.differences or complaint or not steady else 0


def _print(report: Report, *, of_purpose: bool) -> None:
    for difference in report.differences[:10]:
        click.echo(f"\n{difference}")
    if not of_purpose:
        click.echo("\n" + "\n".join(report.coverage.tables()) + "\n")
        for row in report.coverage.missing():
            click.echo(f"not met: {row}")
    for situation, times in report.coverage.unexpected.items():
        click.echo(f"in no row: {situation}, {times} times")
    if report.disturbed:
        click.echo(f"{report.disturbed} scripts without a verdict: real time got in the way")
    click.echo(f"{len(report.differences)} differences in {len(report.entries)} scripts")


def _freeze(release: str, report: Report) -> None:
    entries = corpus.telling_first(report.entries, click.echo)
    size = corpus.write(release, entries)
    click.echo(f"{len(entries)} logs frozen, {size} bytes")
    for name in WRONG:
        if corpus.first_caught(name, entries) is None:
            click.echo(f"not caught: {name}")


if __name__ == "__main__":
    main()
