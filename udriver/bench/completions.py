# SPDX-License-Identifier: MIT
"""Composition. A completion beside a bare lock and a threading.Event: uncontended, and ping-pong."""

from __future__ import annotations

import os
import statistics
import threading
import time
import timeit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

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


Side = tuple[Callable[[], object], Callable[[], object]]
"""How one end posts, and how it waits."""


def _locks() -> tuple[Side, Side]:
    ping, pong = threading.Lock(), threading.Lock()
    ping.acquire()
    pong.acquire()
    return (ping.release, pong.acquire), (pong.release, ping.acquire)


def _events() -> tuple[Side, Side]:
    ping, pong = threading.Event(), threading.Event()

    def take(event: threading.Event) -> Callable[[], None]:
        def wait() -> None:
            event.wait()
            event.clear()

        return wait

    return (ping.set, take(pong)), (pong.set, take(ping))


def _completions() -> tuple[Side, Side]:
    ping, pong = Completion("ping"), Completion("pong")

    def take(x: Completion) -> Callable[[], None]:
        return lambda: wait_for_completion(x)

    return (ping.complete, take(pong)), (pong.complete, take(ping))


def _play(sides: tuple[Side, Side], count: int, *, on_main: bool) -> float:
    """Seconds for a ball there and back; one end on the main thread, or both on threads."""
    (post, wait), (post_back, wait_back) = sides
    took: list[float] = []

    def serve() -> None:
        before = time.perf_counter()
        for _ in range(count):
            post()
            wait()
        took.append((time.perf_counter() - before) / count)

    def give_back() -> None:
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


PLAYERS = {"lock": _locks, "Event": _events, "completion": _completions}


def _ping_pong(count: int, *, on_main: bool) -> dict[str, float]:
    return {name: _play(make(), count, on_main=on_main) for name, make in PLAYERS.items()}


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
    """Post and take ``count`` times a round; a tenth of that in ping-pong."""
    still = [_uncontended(count) for _ in range(rounds)]
    threads = [_ping_pong(count // 10, on_main=False) for _ in range(rounds)]
    main = [_ping_pong(count // 10, on_main=True) for _ in range(rounds)]
    with _one_cpu():
        near = [_ping_pong(count // 10, on_main=False) for _ in range(rounds)]
    return [
        _row("complete() + try, uncontended", still, "lock", 2.0),
        _row("complete() + try, uncontended", still, "Event", 0.15),
        _row("ping-pong, two threads", threads, "lock", 1.1),
        _row("ping-pong, two threads", threads, "Event", 0.6),
        _row("ping-pong, two threads on one CPU", near, "lock", None),
        _row("ping-pong, two threads on one CPU", near, "Event", None),
        _row("ping-pong, main and a thread", main, "lock", None),
        _row("ping-pong, main and a thread", main, "Event", None),
    ]


def _row(figure: str, results: list[dict[str, float]], theirs: str, limit: float | None) -> Row:
    return Row(
        figure,
        theirs,
        statistics.median(result["completion"] / result[theirs] for result in results),
        limit=limit,
        ours=statistics.median(result["completion"] for result in results) * 1e6,
        theirs=statistics.median(result[theirs] for result in results) * 1e6,
        unit="us",
    )
