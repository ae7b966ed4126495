# SPDX-License-Identifier: MIT
"""Composition. A completion beside a bare lock and a threading.Event: uncontended, and ping-pong."""

from __future__ import annotations

import os
import statistics
import threading
import time
import timeit
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from udriver.bench import least
from udriver.bench.least import Ends
from udriver.bench.rows import Row
from udriver.kernel.completion import (
    Completion,
    complete,
    try_wait_for_completion,
    wait_for_completion,
)

__all__ = ["completion_rows"]


def _uncontended(count: int) -> dict[str, float]:
    """Seconds of a post and a take, nobody else about; the two calls and the loop, nothing else."""
    event, lock, x = threading.Event(), threading.Lock(), Completion("bench")
    lock.acquire()
    statements: dict[str, tuple[str, dict[str, Any]]] = {
        "lock": ("release(); acquire()", {"release": lock.release, "acquire": lock.acquire}),
        "Event": (
            "put(); wait(); clear()",
            {"put": event.set, "wait": event.wait, "clear": event.clear},
        ),
        "completion": (
            "complete(x); take(x)",
            {"x": x, "complete": complete, "take": try_wait_for_completion},
        ),
    }
    return {
        name: timeit.timeit(statement, globals=names, number=count) / count
        for name, (statement, names) in statements.items()
    }


def _completion() -> Ends:
    x = Completion("ball")
    return x.complete, lambda: wait_for_completion(x)


def _pair(ends: Callable[[], Ends]) -> tuple[Ends, Ends]:
    (ping, take_ping), (pong, take_pong) = ends(), ends()
    return (ping, take_pong), (pong, take_ping)


def _play(sides: tuple[Ends, Ends], count: int, *, on_main: bool, apart: bool = False) -> float:
    """Seconds for a ball there and back; one end on the main thread, or both on threads.

    ``apart``: each end stays on a CPU of its own; without, they are where the scheduler puts them.
    """
    (post, wait), (post_back, wait_back) = sides
    took: list[float] = []

    def serve() -> None:
        if apart:
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # 0: this thread
        before = time.perf_counter()
        for _ in range(count):
            post()
            wait()
        took.append((time.perf_counter() - before) / count)

    def give_back() -> None:
        if apart:
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        for _ in range(count):
            wait_back()
            post_back()

    other = threading.Thread(target=give_back, name="pong", daemon=True)
    other.start()
    if on_main:
        serve()
    else:
        server = threading.Thread(target=serve, name="ping", daemon=True)
        server.start()
        server.join()
    other.join()
    return took[0]


PLAYERS = {
    "lock": partial(_pair, least.lock),
    "Event": partial(_pair, least.event),
    "completion": partial(_pair, _completion),
    "eventfd": partial(_pair, least.eventfd),
    "eventfd in epoll": partial(_pair, least.eventfd_in_epoll),
}
LEAST = ("eventfd", "eventfd in epoll")


def _ping_pong(
    who: Iterable[str], count: int, *, on_main: bool, apart: bool = False
) -> dict[str, float]:
    return {name: _play(PLAYERS[name](), count, on_main=on_main, apart=apart) for name in who}


@contextmanager
def _one_cpu() -> Iterator[None]:
    """Threads that share a GIL gain nothing from a second CPU, and wake each other across it."""
    found = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(found)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, found)


def completion_rows(rounds: int, count: int) -> list[Row]:
    """Post and take ``count`` times a round; a fiftieth of that in ping-pong."""
    still = [_uncontended(count) for _ in range(rounds)]

    def play(*more: str, **how: bool) -> list[dict[str, float]]:
        return [
            _ping_pong(("completion", "lock", "Event", *more), count // 50, **how)
            for _ in range(rounds)
        ]

    places = {"two threads": play(on_main=False), "main and a thread": play(on_main=True)}
    with _one_cpu():
        near = {"two threads on one CPU": play(*LEAST, on_main=False)}
    far = {}
    if len(os.sched_getaffinity(0)) > 1:
        far = {"two threads on two CPUs": play(*LEAST, on_main=False, apart=True)}
    rows = [
        _row("complete() + try, uncontended", still, "lock", 2.0),
        _row("complete() + try, uncontended", still, "Event", 0.15),
    ]
    for theirs, bar in (("lock", 1.1), ("Event", 0.6)):
        for place, results in (places | near | far).items():
            limit = bar if place == "two threads" else None
            rows.append(_row(f"ping-pong, {place}", results, theirs, limit))
        rows += [
            _row(f"ladder, least: {who}, {place}", results, theirs, None, who)
            for place, results in (near | far).items()
            for who in (*LEAST, "lock")
            if who != theirs
        ]
    return rows


def _row(
    figure: str,
    results: list[dict[str, float]],
    theirs: str,
    limit: float | None,
    ours: str = "completion",
) -> Row:
    return Row(
        figure,
        theirs,
        statistics.median(result[ours] / result[theirs] for result in results),
        limit=limit,
        ours=statistics.median(result[ours] for result in results) * 1e6,
        theirs=statistics.median(result[theirs] for result in results) * 1e6,
        unit="us",
    )
