# SPDX-License-Identifier: MIT
"""Composition. ``udriver soak``: completions from threads and signal handlers, all at once.

Threads post, the main thread posts, and a timer's signal handler posts on top of whatever the
main thread is in the middle of. Consumers sleep, sleep with a timeout, and try. In the end each
token must have been consumed exactly once: what was posted is what was taken, and none is left.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.table import Table

from udriver.cli import Status
from udriver.console import Console
from udriver.kernel.completion import (
    Completion,
    complete,
    complete_all,
    completion_done,
    try_wait_for_completion,
    wait_for_completion_timeout,
)

__all__ = ["soak_command"]

HANDLER_BURST = 20
HANDLER_PERIOD = 0.0005  # seconds


class _Soak:
    def __init__(self, posts: int, threads: int) -> None:
        self.event = Completion("soak")
        self.over = Completion("soak is over")
        shares = [posts // (threads + 2)] * (threads + 1)
        self.shares = [posts - sum(shares), *shares]  # handler, main thread, threads
        self.posted = [0] * len(self.shares)
        self.consumed = [0] * threads

    def handler(self, signum: int, frame: object) -> None:
        """A signal handler: hardirq context in all but name."""
        for _ in range(HANDLER_BURST):
            if self.posted[0] < self.shares[0]:
                self.posted[0] += 1  # only ever here, and a handler does not interrupt itself
                complete(self.event)

    def post(self, slot: int) -> None:
        for _ in range(self.shares[slot]):
            complete(self.event)
            self.posted[slot] += 1

    def consume(self, slot: int) -> None:
        taken = 0
        while not (completion_done(self.over) and not completion_done(self.event)):
            if try_wait_for_completion(self.event) or wait_for_completion_timeout(self.event, 20):
                taken += 1
        self.consumed[slot] = taken


@contextmanager
def _ticking(soak: _Soak) -> Iterator[None]:
    found = signal.signal(signal.SIGALRM, soak.handler)
    signal.setitimer(signal.ITIMER_REAL, HANDLER_PERIOD, HANDLER_PERIOD)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, found)


def soak_command(posts: int, threads: int, as_json: bool) -> int:
    """Run it; exit status 0 if every token was consumed exactly once."""
    soak = _Soak(posts, threads)
    consumers = [
        threading.Thread(target=soak.consume, args=(slot,), daemon=True) for slot in range(threads)
    ]
    producers = [
        threading.Thread(target=soak.post, args=(slot + 2,), daemon=True) for slot in range(threads)
    ]
    started = time.monotonic()
    with _ticking(soak):
        for thread in consumers + producers:
            thread.start()
        soak.post(1)
        while soak.posted[0] < soak.shares[0]:
            wait_for_completion_timeout(Completion("the handler's share"), 10)
        for thread in producers:
            thread.join()
    complete_all(soak.over)
    for thread in consumers:
        thread.join()
    return _report(soak, time.monotonic() - started, as_json)


def _report(soak: _Soak, elapsed: float, as_json: bool) -> int:
    posted, consumed, left = sum(soak.posted), sum(soak.consumed), soak.event.done
    report = {
        "schema": "udriver.soak/1",
        "posted": posted,
        "posted_by_handler": soak.posted[0],
        "consumed": consumed,
        "left": left,
        "waiters_left": len(soak.event.wait_queue),
        "elapsed_s": round(elapsed, 3),
        "posts_per_s": round(posted / elapsed),
    }
    if as_json:
        print(json.dumps(report))
    else:
        table = Table(show_header=False, title="complete() from threads and signal handlers")
        for name, value in report.items():
            table.add_row(name, f"{value:,}" if isinstance(value, int) else str(value))
        Console().print(table)
    if posted == consumed and not left and not report["waiters_left"]:
        return Status.OK
    print(
        f"udriver: {posted - consumed} of {posted} tokens went astray; report this", file=sys.stderr
    )
    return Status.FAILED
