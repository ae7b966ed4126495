# SPDX-License-Identifier: MIT
"""Composition. ``udriver run``: bring the driver up, send, check, report."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from udriver.cli import Status, sentence_of, status_of
from udriver.drivers.latency import Latency
from udriver.drivers.port import Icount, Line
from udriver.drivers.usbserial import UsbSerial
from udriver.errors import DeviceGone, Timeout
from udriver.kernel import sched
from udriver.target import Target, open_target
from udriver.traffic import Tally, send_file, send_frames

if TYPE_CHECKING:
    from udriver.checker import Reports

__all__ = ["run_command"]

SCHEMA = "udriver.run/1"
PARITY = {"none": "N", "even": "E", "odd": "O", "mark": "M", "space": "S"}


def run_command(**options: Any) -> int:
    """Do what ``udriver run`` is asked to; give the exit status."""
    line = Line(
        baudrate=options["baudrate"],
        bytesize=int(options["databits"]),
        parity=PARITY[options["parity"]],
        stopbits=int(options["stopbits"]),
        rtscts=options["flow"] == "hard",
        xonxoff=options["flow"] == "soft",
    )
    if options["file"] and (options["frames"] or options["duration"]):
        raise click.UsageError("--file is sent once: give it without --frames and --duration")
    if options["file"] and options["flow"] == "soft":
        raise click.UsageError("a file may hold XON and XOFF, which -f soft eats: leave one out")
    if options["size"] > options["fifo_size"] // 2:
        raise click.UsageError(
            f"--size {options['size']} does not fit into half a kfifo of {options['fifo_size']} "
            "bytes, and a frame is written before it is read: raise --fifo-size"
        )
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(_source(options["file"])) if options["file"] else None
        target = stack.enter_context(open_target(options["port"], paced=options["paced"]))
        end_check = _check(stack) if options["check"] else None
        driver = stack.enter_context(
            UsbSerial.open(
                target.path,
                line=line,
                dtr=options["dtr"],
                irqchip=options["irq"],
                fifo_size=options["fifo_size"],
                on_full=options["on_full"],
                low_latency=not options["keep_latency"],
            )
        )
        print(
            f"udriver: {target.path}, {line}, {options['irq']} interrupts ({target.reason})",
            file=sys.stderr,
        )
        return _drive(driver, target, source, options, end_check)


def _check(stack: contextlib.ExitStack) -> Callable[[], Reports]:
    """Begin to check; what is returned ends it, and gives the reports."""
    from udriver.checker import checking

    block = stack.enter_context(contextlib.ExitStack())
    reports = block.enter_context(checking())

    def end() -> Reports:
        block.close()
        return reports

    return end


@contextlib.contextmanager
def _source(path: Path) -> Iterator[BinaryIO]:
    try:
        if not path.is_file():
            raise click.UsageError(f"--file {path} is not a regular file")
        with path.open("rb") as source:
            if not path.stat().st_size:
                raise click.UsageError(f"--file {path} is empty, so nothing would be sent")
            yield source
    except OSError as exc:
        if exc.filename != str(path):
            raise
        raise click.UsageError(f"--file {path} cannot be read: {exc.strerror}") from None


def _drive(
    driver: UsbSerial,
    target: Target,
    source: BinaryIO | None,
    options: dict[str, Any],
    end_check: Callable[[], Reports] | None,
) -> int:
    tally = Tally()
    ended: BaseException | None = None
    before = sched.active().current().nvcsw
    try:
        _send(driver, tally, source, options)
    except (Timeout, DeviceGone, KeyboardInterrupt, SystemExit) as exc:
        ended = exc
    wakeups = sched.active().current().nvcsw - before
    report = _report(driver, target, tally, wakeups, options)
    broken: list[str] = []
    if end_check is not None:
        driver.close()  # how a driver ends is checked, too
        broken = end_check().rules
        report["check_reports"] = len(broken)
    print(json.dumps(report), flush=True) if options["as_json"] else _print_table(report)
    _explain_latency(report, driver.port.latency)
    return _verdict(report, tally, ended, options["max_p99_us"], broken)


def _send(
    driver: UsbSerial, tally: Tally, source: BinaryIO | None, options: dict[str, Any]
) -> None:
    frames = options["frames"] or (None if options["duration"] else 1000)
    end = time.monotonic() + options["duration"] if options["duration"] else None
    size = options["size"]
    in_flight = driver.fifo.size // 2 if source else size
    timeout = options["timeout"] or 1 + 2 * in_flight * driver.port.line.char_time
    total = Path(options["file"]).stat().st_size if source else frames

    def more(tally: Tally) -> bool:
        return (frames is None or tally.frames < frames) and (end is None or time.monotonic() < end)

    with _bar(total, "bytes" if source else "frames") as progress:
        if source is not None:
            send_file(driver, tally, source, timeout, progress)
        else:
            send_frames(driver, tally, size, more, timeout, progress)


@contextlib.contextmanager
def _bar(total: int | None, unit: str) -> Iterator[Callable[[Tally], None]]:
    if not sys.stderr.isatty():
        yield lambda tally: None
        return
    # rich takes as long to load as all the rest: who wants JSON, and shows no bar, has no use for it
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from udriver.console import Console

    columns = (
        TextColumn("{task.completed}/{task.total} " + unit),
        BarColumn(),
        TimeRemainingColumn(),
    )
    shown = 0.0
    with Progress(
        *columns, console=Console(stderr=True), auto_refresh=False, transient=True
    ) as progress:
        task = progress.add_task(unit, total=total)

        def update(tally: Tally) -> None:
            nonlocal shown
            if tally.elapsed - shown > 0.1:  # drawing costs more than a frame does
                shown = tally.elapsed
                progress.update(task, completed=getattr(tally, unit), refresh=True)

        yield update


def _report(
    driver: UsbSerial, target: Target, tally: Tally, wakeups: int, options: dict[str, Any]
) -> dict[str, Any]:
    stats = driver.stats()
    rate = tally.bytes / tally.elapsed if tally.elapsed else 0.0
    line = driver.port.line
    icount = _icount(driver)
    percentile = tally.latency_ns.get_value_at_percentile
    return {
        "schema": SCHEMA,
        "port": target.path,
        "rung": target.rung,
        "reason": target.reason,
        "irq": options["irq"],
        "line": str(line),
        "frames": tally.frames,
        "bytes": tally.bytes,
        "errors": tally.errors,
        "lost": tally.lost,
        "dropped": stats.dropped,
        "elapsed_s": round(tally.elapsed, 6),
        "bytes_per_s": round(rate, 1),
        "line_rate_percent": round(100 * rate * line.bits_per_char / line.baudrate, 2),
        "latency_us": {
            "p50": percentile(50) / 1000,
            "p99": percentile(99) / 1000,
            "p999": percentile(99.9) / 1000,
            "max": tally.latency_ns.get_max_value() / 1000,
        },
        "interrupts": stats.irq.count,
        "missed": stats.irq.missed,
        "spurious": stats.irq.spurious,
        "drains_per_interrupt": round(stats.drains / stats.irq.count, 3) if stats.irq.count else 0,
        "wakeups": wakeups,
        "throttles": stats.throttles,
        "low_latency": driver.port.low_latency,
        "low_latency_method": driver.port.latency.method,
        "low_latency_reason": driver.port.latency.reason,
        "latency_timer_ms": driver.port.latency.timer_ms,
        "icount": asdict(icount) if icount else None,
        **({"file": str(options["file"]), "sha256": tally.sha256} if options["file"] else {}),
    }


def _icount(driver: UsbSerial) -> Icount | None:
    try:
        return driver.port.icount() if not driver.gone else None
    except OSError:
        return None  # it went just now


def _print_table(report: dict[str, Any]) -> None:
    from rich.table import Table

    from udriver.console import Console

    table = Table(show_header=False, title=f"{report['port']}, {report['irq']} interrupts")
    latency = report["latency_us"]
    rows = {
        "frames": f"{report['frames']:,}",
        "bytes": f"{report['bytes']:,}",
        "errors, lost, dropped": f"{report['errors']}, {report['lost']}, {report['dropped']}",
        "bytes/s": f"{report['bytes_per_s']:,.0f} ({report['line_rate_percent']} % of {report['line']})",
        "latency p50 / p99 / p99.9 / max": " / ".join(f"{us:,.1f}" for us in latency.values())
        + " us",
        "low latency": _low_latency(report),
        "interrupts, missed": f"{report['interrupts']:,}, {report['missed']:,}",
        "drains per interrupt": str(report["drains_per_interrupt"]),
        "wakeups": f"{report['wakeups']:,}",
        "line errors": _line_errors(report["icount"]),
    }
    if "check_reports" in report:
        rows["reports of the completion checker"] = str(report["check_reports"])
    if "sha256" in report:
        rows["SHA-256 of what came back"] = str(report["sha256"])
    for name, value in rows.items():
        table.add_row(name, value)
    Console().print(table)


def _low_latency(report: dict[str, Any]) -> str:
    timer = report["latency_timer_ms"]
    shown = "" if timer is None else f", latency_timer {timer} ms"
    if report["low_latency_method"]:
        return f"by {report['low_latency_method']}{shown}"
    return f"not set{shown}: {report['low_latency_reason']}"


def _explain_latency(report: dict[str, Any], latency: Latency) -> None:
    """Where there is a timer, short answers are as late as it says: which, why, and what to do next."""
    timer, found = report["latency_timer_ms"], latency.found_ms
    if timer is None:
        return
    if not report["low_latency"]:
        why = f"left so: {latency.reason or '--keep-latency'}"
        then = "run `udriver udev install`, its rule sets the timer to 1 ms"
    elif found is not None and found > timer:
        why = f"set for this run by {latency.method}, {found} ms before and after"
        then = "run `udriver udev install`, its rule sets the timer to 1 ms for all programs"
    else:
        why = "which is the shortest"
        then = f"run `udriver bench {report['port']}` to see what else a round trip is made of"
    print(
        f"udriver: {report['port']} holds answers of less than 62 bytes back for its latency timer, "
        f"{timer} ms in {latency.file} ({why}); round trips took "
        f"{report['latency_us']['p50'] / 1000:.1f} ms; {then}",
        file=sys.stderr,
    )


def _line_errors(icount: dict[str, int] | None) -> str:
    if icount is None:
        return "not counted by this tty"
    kinds = ("frame", "parity", "overrun", "buf_overrun", "brk")
    return ", ".join(f"{kind} {icount[kind]}" for kind in kinds)


def _verdict(
    report: dict[str, Any],
    tally: Tally,
    ended: BaseException | None,
    max_p99_us: float | None,
    broken: list[str],
) -> int:
    p99 = report["latency_us"]["p99"]
    if isinstance(ended, SystemExit):
        raise ended
    if ended is not None:
        complaint, status = sentence_of(ended), status_of(ended)
    elif tally.errors or tally.lost:
        complaint = (
            f"{tally.errors} wrong and {tally.lost} lost on {report['port']}; "
            "is TX wired to RX, and nothing else writing?"
        )
        status = Status.FAILED
    elif max_p99_us is not None and p99 > max_p99_us:
        complaint = f"p99 is {p99} us, above --max-p99-us {max_p99_us:g}; try another --irq"
        status = Status.FAILED
    elif broken:
        complaint = (
            f"the completion checker reported {', '.join(dict.fromkeys(broken))}; "
            "above are the two places of each, and the fix"
        )
        status = Status.FAILED
    else:
        return Status.OK
    print(f"udriver: {complaint}", file=sys.stderr)
    return status
