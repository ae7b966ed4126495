# SPDX-License-Identifier: MIT
"""Composition. One contestant's round trips in a process of their own, counted from the inside.

``python -P trip.py HOW WHO PATH COUNT`` prints one JSON object, each figure for one round trip. It is
run by its path and not with ``-m``: then the driver it counts may be that of another checkout.

``plain``      nothing in the way: context switches and CPU time. strace counts this one from outside,
               between the two markers.
``bytecodes``  by function, in all threads (``f_trace_opcodes``).
``locks``      acquire() and release() of every lock made from Python; the GIL is none of them.
``idle``       an open port, and nobody says anything; COUNT is ms.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import count as counter
from types import FrameType
from typing import Any

BEGIN, END = "udriver:begin", "udriver:end"
OUTSIDE = ("udriver.bench.rounds", "udriver.bench.roundtrip", "__main__")

Counting = Callable[[], dict[str, int]]
"""What the figure is by now, for all round trips together."""


def _trips(who: str, path: str) -> AbstractContextManager[Callable[[int], object]]:
    # here: the locks have to be exchanged before anybody makes one
    from udriver.bench import completions, floor, peers, roundtrip

    if who.startswith("ping-pong, "):
        make = completions.PLAYERS[who.removeprefix("ping-pong, ")]
        return nullcontext(lambda count: completions._play(make(), count, on_main=False))
    if who in roundtrip.CHIPS:
        return roundtrip.driver_trips(path, roundtrip.FRAME, who)
    if who == "bare":
        return floor.bare_trips(path, roundtrip.FRAME)
    if who == roundtrip.BY_HAND:
        return floor.select_thread_trips(path, roundtrip.FRAME)
    trips: AbstractContextManager[Callable[[int], object]] = peers.PEERS[who](path, roundtrip.FRAME)
    return trips


@contextmanager
def _plain() -> Iterator[Counting]:
    def now() -> dict[str, int]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "voluntary": usage.ru_nvcsw,
            "involuntary": usage.ru_nivcsw,
            "user_us": round(usage.ru_utime * 1e6),
            "system_us": round(usage.ru_stime * 1e6),
        }

    yield now


@contextmanager
def _bytecodes() -> Iterator[Counting]:
    # before the tracer: what their import executes is not counted, and was most of the run
    from udriver.bench import completions, floor, peers, roundtrip  # noqa: F401

    executed: Counter[str] = Counter()

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        name = f"{frame.f_globals.get('__name__')}.{frame.f_code.co_qualname}"

        def opcode(frame: FrameType, event: str, arg: object) -> Any:
            executed[name] += event == "opcode"
            return opcode

        return None if name.startswith(OUTSIDE) else opcode

    threading.settrace(trace)
    sys.settrace(trace)
    try:
        yield lambda: dict(executed)  # in C, and so not traced
    finally:
        sys.settrace(None)
        threading.settrace(None)


@contextmanager
def _locks() -> Iterator[Counting]:
    """Exchange what makes locks: a method of a C type cannot be counted in its place."""
    taken, released = counter(), counter()

    def counted(make: Callable[[], Any]) -> Callable[[], Any]:
        class Lock:
            def __init__(self) -> None:
                self._lock = make()
                for name in ("locked", "_is_owned", "_at_fork_reinit"):
                    if hasattr(self._lock, name):
                        setattr(self, name, getattr(self._lock, name))

            def acquire(self, *how: Any, **named: Any) -> bool:
                next(taken)
                return bool(self._lock.acquire(*how, **named))

            def release(self) -> None:
                next(released)
                self._lock.release()

            def __enter__(self) -> bool:
                return self.acquire()

            def __exit__(self, *exc_info: object) -> None:
                self.release()

        return Lock

    for name in ("Lock", "_allocate_lock", "RLock"):
        setattr(threading, name, counted(getattr(threading, name)))

    def now() -> dict[str, int]:
        # a copy of a counter says where it is and does not move it
        acquired, let_go = (int(repr(which)[6:-1]) for which in (taken, released))
        return {"acquire": acquired, "release": let_go}

    yield now


HOW = {"plain": _plain, "bytecodes": _bytecodes, "locks": _locks}


def _mark(what: str) -> None:
    os.access(what, os.F_OK)  # a system call that nobody else makes, for whoever reads the log


def _idle(who: str, path: str, seconds: float) -> None:
    from udriver.drivers.usbserial import UsbSerial
    from udriver.kernel.completion import Completion

    end = Completion("the end of the idle time")
    with UsbSerial.open(path, irqchip=who):
        _mark(BEGIN)
        try:
            end.wait(seconds)
        except TimeoutError:
            _mark(END)


def main(how: str, who: str, path: str, number: str) -> None:
    """See the module."""
    if how == "idle":
        _idle(who, path, int(number) / 1000)
        print("{}")
        return
    count = int(number)
    with HOW[how]() as counting, _trips(who, path) as block:
        block(max(5, count // 10))  # what is made at the first use, and threads that start
        before = counting()
        _mark(BEGIN)
        block(count)
        _mark(END)
        after = counting()
    more = Counter(after)
    more.subtract(before)
    print(json.dumps({name: value / count for name, value in more.most_common() if value}))


if __name__ == "__main__":
    main(*sys.argv[1:])
