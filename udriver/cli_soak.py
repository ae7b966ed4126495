# SPDX-License-Identifier: MIT
"""Composition. ``udriver soak``: completions from threads and signal handlers, all at once.

Threads post, the main thread posts, and the handler of two signals (a timer's, and another thread's)
posts on top of whatever the main thread is in the middle of. Consumers sleep, sleep with a timeout,
and try. With a wire, a driver meanwhile sends frames through a device that is pulled and plugged in
again. In the end each token must have been consumed exactly once, and each byte accounted for.
"""

from __future__ import annotations

import json
import math
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.table import Table

from udriver.cli import Status
from udriver.console import Console
from udriver.drivers.irqchip import IRQCHIPS
from udriver.kernel.completion import (
    Completion,
    complete_all,
    wait_for_completion_timeout,
)
from udriver.soak_parts import MOST_AHEAD, Tokens, Wire

__all__ = ["soak_command"]

HANDLER_PERIOD = 0.0005  # seconds
SWITCH_INTERVAL = 0.0001
FEW_AHEAD = 8  # tokens
SIGNALS = (signal.SIGALRM, signal.SIGUSR1)


@contextmanager
def _signalled(tokens: Tokens, interrupted: list[int]) -> Iterator[None]:
    """The timer runs and Ctrl-C stops the soak instead of tearing it at a chance place."""

    def stop(signum: int, frame: object) -> None:
        interrupted.append(signum)
        complete_all(tokens.stop)

    found = {signum: signal.signal(signum, tokens.handler) for signum in SIGNALS}
    found[signal.SIGINT] = signal.signal(signal.SIGINT, stop)
    signal.setitimer(signal.ITIMER_REAL, HANDLER_PERIOD, HANDLER_PERIOD)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for signum, handler in found.items():
            signal.signal(signum, handler)


def _knock(tokens: Tokens, seed: int) -> None:
    """Signals from a thread: they fall in with the timer's, and on top of its handler."""
    chance = random.Random(seed)
    main = threading.main_thread().ident
    while main is not None and not tokens.handler_is_done():
        signal.pthread_kill(main, signal.SIGUSR1)
        time.sleep(chance.random() * HANDLER_PERIOD)


def _wire(seed: int) -> Wire:
    from udriver_hw.loopback import Loopback

    return Wire(lambda: Loopback("jumper"), random.Random(seed))


def soak_command(
    posts: int | None,
    seconds: float | None,
    threads: int,
    wire: bool,
    seed: int,
    as_json: bool,
) -> int:
    """Run it; exit status 0 if every token was consumed exactly once and no byte went astray."""
    tokens = Tokens(_shares(posts, threads), seed, MOST_AHEAD if seconds is None else FEW_AHEAD)
    line = _wire(seed) if wire else None
    interrupted: list[int] = []
    consumers = [
        threading.Thread(target=tokens.consume, args=(slot,), daemon=True)
        for slot in range(threads)
    ]
    producers = [
        threading.Thread(target=tokens.post, args=(slot + 2,), daemon=True)
        for slot in range(threads)
    ]
    producers.append(threading.Thread(target=_knock, args=(tokens, seed), daemon=True))
    wires = []
    if line is not None:
        # each of a driver's many system calls would else wait 5 ms for the GIL, behind each thread
        sys.setswitchinterval(SWITCH_INTERVAL)
        # on the main thread; the wire's plugs and unplugs are on another
        IRQCHIPS["signal"].hold(line)
        wires.append(threading.Thread(target=line.run, args=(tokens.stop,), daemon=True))
    started = time.monotonic()
    with _signalled(tokens, interrupted):
        for thread in consumers + producers + wires:
            thread.start()
        alarm = threading.Timer(seconds or 0, complete_all, (tokens.stop,))
        alarm.daemon = True
        if seconds is not None:
            alarm.start()
        tokens.post(1)
        while not tokens.handler_is_done() or any(thread.is_alive() for thread in producers):
            wait_for_completion_timeout(Completion("the others' shares"), 10)
        complete_all(tokens.stop)
        while any(thread.is_alive() for thread in wires):
            wait_for_completion_timeout(Completion("the wire"), 10)
    alarm.cancel()
    complete_all(tokens.over)
    for thread in consumers:
        thread.join()
    if line is not None:
        IRQCHIPS["signal"].drop(line)
    return _report(tokens, line, time.monotonic() - started, seed, interrupted, as_json)


def _shares(posts: int | None, threads: int) -> list[float]:
    """How many the handler, the main thread and each thread post."""
    if posts is None:
        return [math.inf] * (threads + 2)
    shares = [posts // (threads + 2)] * (threads + 1)
    return [posts - sum(shares), *shares]


def _report(
    tokens: Tokens,
    line: Wire | None,
    elapsed: float,
    seed: int,
    interrupted: list[int],
    as_json: bool,
) -> int:
    balance = tokens.balance()
    report: dict[str, Any] = {
        "schema": "udriver.soak/1",
        **balance,
        "elapsed_s": round(elapsed, 3),
        "posts_per_s": round(balance["posted"] / elapsed),
        "seed": seed,
        "waits": tokens.histogram(),
        "wire": dict(sorted(line.counts.items())) if line is not None else None,
    }
    print(json.dumps(report), flush=True) if as_json else _print(report)
    faults = list(line.faults) if line is not None else []
    astray = balance["posted"] - balance["consumed"]
    if astray or balance["left"] or balance["waiters_left"]:
        faults.append(f"{astray} of {balance['posted']} tokens went astray")
    if faults:
        print(f"udriver: {'; '.join(faults[:5])}; report this, with --seed {seed}", file=sys.stderr)
        return Status.FAILED
    return Status.INTERRUPTED if interrupted else Status.OK


def _print(report: dict[str, Any]) -> None:
    table = Table(show_header=False, title="complete() from threads and signal handlers")
    for name, value in report.items():
        rows = value.items() if isinstance(value, dict) else [(name, value)]
        for row, number in rows:
            if number is not None:
                table.add_row(row, f"{number:,}" if isinstance(number, int) else str(number))
        if isinstance(value, dict) or name == "seed":
            table.add_section()
    Console().print(table)
