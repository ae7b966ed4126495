# SPDX-License-Identifier: MIT
"""The command line: verbs, exit statuses, and one sentence for every error.

Data goes to stdout, progress and notes to stderr. Composition: this side may know both others.
"""

from __future__ import annotations

import enum
import errno
import math
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from udriver import __version__
from udriver.drivers.bus import AmbiguousDevice
from udriver.errors import Busy, DeviceGone, NotASerialPort, Timeout, UDriverError, Unsupported

__all__ = ["Status", "main", "status_of"]


class Status(enum.IntEnum):
    """Exit statuses of every command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NO_DEVICE = 3
    PERMISSION = 4
    BUSY = 5
    LOST = 6
    UNSUPPORTED = 7
    TIMEOUT = 8
    SKIPPED = 77
    INTERRUPTED = 130


_STATUS: list[tuple[type[BaseException], Status]] = [
    (Busy, Status.BUSY),
    (DeviceGone, Status.LOST),
    (Unsupported, Status.UNSUPPORTED),
    (Timeout, Status.TIMEOUT),
    (FileNotFoundError, Status.NO_DEVICE),
    (NotASerialPort, Status.NO_DEVICE),
    (AmbiguousDevice, Status.USAGE),
    (PermissionError, Status.PERMISSION),
    (KeyboardInterrupt, Status.INTERRUPTED),
    (click.Abort, Status.INTERRUPTED),
    (click.UsageError, Status.USAGE),
]


def status_of(exc: BaseException) -> Status:
    """The exit status that ``exc`` means."""
    return next((status for kind, status in _STATUS if isinstance(exc, kind)), Status.FAILED)


def sentence_of(exc: BaseException) -> str:
    """What to print about ``exc``: one sentence."""
    if isinstance(exc, (KeyboardInterrupt, click.Abort)):
        return "interrupted; the port is restored"
    if isinstance(exc, click.UsageError):
        command = exc.ctx.command_path if exc.ctx else "udriver"
        return f"{exc.format_message().rstrip('.')}; `{command} --help` lists what is there"
    if isinstance(exc, OSError) and not isinstance(exc, UDriverError):
        cause = str(exc.strerror or exc)
        if exc.errno in (errno.ENOSPC, errno.EIO, errno.EFBIG):
            return f"stdout: {cause}; write the result where there is room"
        return cause
    return str(exc)


class _Seconds(click.FloatRange):
    """A number that is neither inf nor nan, which FloatRange lets through."""

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


class _Verbs(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        """Say so when stdout is closed; click itself would end without a word."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            _drop_stdout()
            raise UDriverError(
                "stdout was closed before the result was written; let its reader read to the end"
            ) from None
        return result

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), "udev"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name != "udev":
            return super().get_command(ctx, cmd_name)
        from udriver.cli_udev import udev

        return udev


def _drop_stdout() -> None:
    """Or the interpreter, which flushes it once more at exit, would complain again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="udriver")
def cli() -> None:
    """Run a userspace serial driver: ISR, complete(), wait queue; on an adapter or on a pty.

    \b
    Exit status: 0 ok, 1 the check failed, 2 usage, 3 no such device, 4 permission denied,
    5 busy, 6 device lost, 7 unsupported here, 8 timeout, 77 prerequisite missing, 130 interrupted.
    """


@cli.command()
@click.argument("port", required=False)
@click.option(
    "--irq",
    type=click.Choice(["signal", "select", "inline"]),
    default="inline",
    show_default=True,
    help="How the interrupt is delivered.",
)
@click.option(
    "-b",
    "--baudrate",
    "--baud",
    type=click.IntRange(1, 100_000_000),
    default=115200,
    show_default=True,
)
@click.option(
    "-d", "--databits", type=click.Choice(["5", "6", "7", "8"]), default="8", show_default=True
)
@click.option(
    "-p",
    "--parity",
    type=click.Choice(["none", "even", "odd", "mark", "space"]),
    default="none",
    show_default=True,
)
@click.option("-s", "--stopbits", type=click.Choice(["1", "2"]), default="1", show_default=True)
@click.option(
    "-f", "--flow", type=click.Choice(["none", "hard", "soft"]), default="none", show_default=True
)
@click.option(
    "--dtr",
    type=click.Choice(["keep", "on", "off"]),
    default="keep",
    show_default=True,
    help="What opening does to DTR and RTS; keep does not reset a board.",
)
@click.option("--frames", type=click.IntRange(1), help="How many frames; default 1000.")
@click.option(
    "--duration",
    type=_Seconds(0, min_open=True),
    metavar="SECONDS",
    help="Run so long instead of so many frames.",
)
@click.option(
    "--size", type=click.IntRange(1, 65536), default=64, show_default=True, help="Bytes in a frame."
)
@click.option(
    "--file",
    "file",
    type=click.Path(path_type=Path, readable=False),
    help="Send this file through the wire instead, and compare SHA-256.",
)
@click.option(
    "--timeout",
    type=_Seconds(0, min_open=True),
    metavar="SECONDS",
    help="How long to wait for a frame; default 1 s and what it takes on the wire twice.",
)
@click.option(
    "--max-p99-us",
    type=_Seconds(0, min_open=True),
    help="Fail if the p99 of the latency is above so many microseconds.",
)
@click.option(
    "--on-full",
    type=click.Choice(["throttle", "drop"]),
    default="throttle",
    show_default=True,
    help="When the kfifo is full: hold the device back, or drop.",
)
@click.option(
    "--fifo-size",
    type=click.IntRange(1024, 2**26),
    default=65536,
    show_default=True,
    help="Bytes in the kfifo; rounded up to a power of two.",
)
@click.option("--paced", is_flag=True, help="Let the built-in pty take as long as the baud rate.")
@click.option(
    "--keep-latency",
    is_flag=True,
    help="Leave the adapter's latency timer as it is, to see what other programs get.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
@click.option(
    "--check",
    is_flag=True,
    help="Run under the completion checker: its reports go to stderr, and fail the run.",
)
def run(**options: Any) -> None:
    """Drive frames through PORT and back, and check every byte.

    PORT is a path, a name in /dev/serial/by-id, VID:PID[:SERIAL] or "pty"; without one it is
    $UDRIVER_PORT or the built-in pty. An adapter needs TX wired to RX.
    """
    from udriver.cli_run import run_command

    raise SystemExit(run_command(**options))


@cli.command()
@click.option(
    "--usb",
    type=click.Choice(["ft232r", "cp210x", "cdc_acm"]),
    help="A USB chip instead, plugged into this kernel; needs root and vhci_hcd.",
)
@click.option(
    "--wiring",
    type=click.Choice(["jumper", "echo", "null-modem"]),
    default="jumper",
    show_default=True,
    help="What hangs on the wire; null-modem joins two USB chips.",
)
@click.option(
    "--script", type=click.Path(path_type=Path, readable=False), help="A scripted device instead."
)
@click.option("--paced", is_flag=True, help="Take as long as the baud rate.")
@click.option(
    "--link",
    type=click.Path(path_type=Path, readable=False),
    help="A symbolic link to the path of a pty.",
)
@click.option("--serial", help="The serial number of a USB chip.  [default: UDUSB001]")
@click.option(
    "--fault",
    "fault",
    multiple=True,
    metavar="TEXT",
    help='What goes wrong, such as "drop 3 at byte 100"; may be repeated.',
)
@click.option(
    "--faults",
    type=click.Path(path_type=Path, readable=False),
    help="A file of faults, one a line.",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Of the faults that are left to chance."
)
@click.option(
    "--fault-log",
    type=click.Path(path_type=Path, readable=False),
    help="Write a JSON object a line for each fault that happened.",
)
def sim(
    usb: str | None,
    wiring: str,
    script: Path | None,
    paced: bool,
    link: Path | None,
    serial: str | None,
    fault: tuple[str, ...],
    faults: Path | None,
    seed: int,
    fault_log: Path | None,
) -> None:
    """Print the path of a simulated device, and serve it until end of file on stdin.

    \b
    Without --usb it is a pty. With it each line on stdin is done to the chip, such as
    `line cts on` or `send b"hello"`, and answered; see hw/README.md.
    """
    from udriver_hw import loopback, plug

    if usb is None and (wiring == "null-modem" or serial is not None):
        raise click.UsageError("--wiring null-modem and --serial go with --usb only")
    if usb is not None and link is not None:
        raise click.UsageError("--link goes with a pty; udev names a USB chip in /dev/serial/by-id")
    arguments = ["--wiring", wiring] if script is None else ["--script", str(script)]
    arguments += ["--paced"] * paced
    arguments += ["--link", str(link)] if link else []
    arguments += ["--serial", serial] if serial else []
    arguments += [f"--fault={text}" for text in fault] + [f"--seed={seed}"]
    arguments += ["--faults", str(faults)] if faults else []
    arguments += ["--fault-log", str(fault_log)] if fault_log else []
    raise SystemExit(plug.main([usb, *arguments]) if usb else loopback.main(arguments))


@cli.command()
@click.option(
    "--posts",
    type=click.IntRange(1),
    help="How many complete() in all.  [default: 10,000,000, without --seconds]",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    help="Stop after so long, with unplugs of a simulated device meanwhile.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 64),
    default=2,
    show_default=True,
    help="Posting threads, and as many consuming ones.",
)
@click.option(
    "--wire/--no-wire",
    default=None,
    help="Send frames through a device that is pulled and plugged in.  [default: with --seconds]",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of all that is random.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def soak(
    posts: int | None,
    seconds: float | None,
    threads: int,
    wire: bool | None,
    seed: int,
    as_json: bool,
) -> None:
    """Post completions from threads and signal handlers; check each is consumed exactly once.

    \b
    With --seconds frames go through a simulated device that is pulled and plugged in again, and
    each byte is accounted for. Ctrl-C ends it with the balance of what was done.
    Exit status: 0 all balances, 1 something does not, 130 Ctrl-C, and all balances.
    """
    from udriver.cli_soak import soak_command

    if posts is None and seconds is None:
        posts = 10_000_000
    wire = seconds is not None if wire is None else wire
    raise SystemExit(soak_command(posts, seconds, threads, wire, seed, as_json))


@cli.command()
@click.argument("port", required=False)
@click.option("--quick", is_flag=True, help="A few seconds, to see that it works; no figures.")
@click.option(
    "--plot",
    "plot_file",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    help="Draw the ratios and the growth; .svg or .png.",
)
@click.option(
    "--slack",
    type=_Seconds(1),
    metavar="TIMES",
    help="Fail if a ratio misses its bar by more than so many times.  [default: never]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
@click.option(
    "--rounds",
    type=click.IntRange(1),
    metavar="N",
    help="How often everybody has a turn.  [default: 15, with --quick 2]",
)
@click.option(
    "--known",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="With --slack: a file of --json; what was missed in it is measured from there.",
)
@click.option("--runs", type=click.IntRange(1, 20), default=1, help="So often; say who is ahead.")
@click.option(
    "--compare",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Measure nothing: put together what --json gave; once for each run.",
)
@click.option(
    "--budget", is_flag=True, help="Count what a round trip is made of, and time nothing."
)
@click.option(
    "--before",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="With --budget: another checkout of udriver, counted beside this one.",
)
def bench(
    port: str | None,
    quick: bool,
    plot_file: Path | None,
    slack: float | None,
    as_json: bool,
    runs: int,
    compare: tuple[Path, ...],
    budget: bool,
    before: Path | None,
    rounds: int | None,
    known: Path | None,
) -> None:
    """Measure the driver beside a bare write and read, and beside its peers, in turn.

    \b
    Ratios first, with the bar that each is held to. The round trips go through PORT (TX wired
    to RX), or through a pty whose far end is another process; all else goes through ptys.
    """
    if before is not None and not budget:
        raise click.UsageError("--before goes with --budget")
    if budget:
        from udriver.bench.budget_table import budget_command

        raise SystemExit(budget_command(before, quick, as_json, next(iter(compare), None)))
    from udriver.cli_bench import Wishes, bench_command

    wishes = Wishes(quick, plot_file, slack, as_json, runs, compare, rounds, known)
    raise SystemExit(bench_command(port, wishes))


@cli.command()
@click.argument("port", required=False)
@click.option(
    "--irq",
    type=click.Choice(["signal", "select", "inline"]),
    default="inline",
    show_default=True,
    help="How the interrupt is delivered.",
)
@click.option("--frames", type=click.IntRange(1, 1000), default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line instead of columns.")
def trace(port: str | None, irq: str, frames: int, as_json: bool) -> None:
    """Print each station of the data path, in order, with microseconds, for a few frames."""
    from udriver.cli_trace import trace_command

    raise SystemExit(trace_command(port, irq, frames, as_json))


@cli.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def list_(as_json: bool) -> None:
    """Print every serial port: chip, driver, ids, place, latency, who holds it, which rule."""
    from udriver.cli_list import list_command

    raise SystemExit(list_command(as_json))


@cli.command()
@click.argument("port", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of lines.")
def doctor(port: str | None, as_json: bool) -> None:
    """Find what keeps PORT, or every port, from being used; each finding comes with its fix.

    \b
    Exit status: 0 nothing but warnings, 1 something prevents use, 3 no such device,
    77 there is nothing to examine.
    """
    from udriver.cli_doctor import doctor_command

    raise SystemExit(doctor_command(port, as_json))


def _interrupt(signum: int, frame: object) -> NoReturn:
    """Ctrl-C counts once: a second one must not cut short what puts the port back and reports."""
    # not SIG_IGN: of a second one that has just arrived the interpreter would print a traceback
    signal.signal(signal.SIGINT, _not_again)
    raise KeyboardInterrupt


def _not_again(signum: int, frame: object) -> None:
    pass


def _raise_again(unraisable: sys.UnraisableHookArgs) -> None:
    """Deliver once more a Ctrl-C that fell into a callback nothing can be raised from.

    The interpreter drops what a ``__del__`` or a weakref callback raises (each import runs one),
    and the command would go on as if nobody had asked it to end. A timer is the one way out of
    here that takes no lock; raising the signal at once would end in this hook.
    """
    exc = unraisable.exc_value
    if not isinstance(exc, (KeyboardInterrupt, SystemExit)):
        sys.__unraisablehook__(unraisable)
        return

    def deliver(signum: int, frame: object) -> NoReturn:
        raise exc.with_traceback(None)

    signal.signal(signal.SIGALRM, deliver)
    signal.setitimer(signal.ITIMER_REAL, 0.001)


def _open_missing_fds() -> bool:
    """Or the tty would get number 1 or 2, and notes land in it; true if it was stdout's."""
    stdout_was_closed = sys.stdout is None
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number, which is this one
    sys.stdout = sys.stdout or open(1, "w")  # noqa: SIM115 - for as long as we run
    sys.stderr = sys.stderr or open(2, "w")  # noqa: SIM115
    return stdout_was_closed


def _terminate(signum: int, frame: object) -> NoReturn:
    raise SystemExit(128 + signum)  # so that `finally` restores the port


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit with its status; no traceback reaches a user."""
    stdout_was_closed = _open_missing_fds()
    sys.unraisablehook = _raise_again
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _terminate)
    signal.signal(signal.SIGHUP, _terminate)
    try:
        cli.main(arguments, prog_name="udriver", standalone_mode=False)
    except SystemExit as exc:
        status = exc.code if isinstance(exc.code, int) else Status.FAILED
    except click.exceptions.Exit as exc:
        status = exc.exit_code
    except (
        OSError,
        UDriverError,
        ValueError,
        KeyboardInterrupt,
        click.ClickException,
        click.Abort,
    ) as exc:
        print(f"udriver: {sentence_of(exc)}", file=sys.stderr)
        status = status_of(exc)
    else:
        status = Status.OK
    if stdout_was_closed and not status:
        print("udriver: stdout is closed, so the result went nowhere; open it", file=sys.stderr)
        status = Status.FAILED
    sys.exit(status)
