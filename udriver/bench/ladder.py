# SPDX-License-Identifier: MIT
"""Composition. Where a round trip's time goes: from a bare write and read to the driver, a layer a rung.

Each rung is a program of a few lines, without a class of ours until its own layer comes: what it takes
more than the one before it is what CPython asks for that layer. The rungs take turns in one run; a
figure is the median over the rounds of (rung / bare).

The way without a sleep is what ``transact()`` takes when the answer is there by the time it looks,
which on a pty is nearly always: the far end often runs on the CPU that wrote, inside the write. The
way with one is what it takes on an adapter, whose answer is a millisecond away. It cannot be left
out: a blocking read(2), as the floor's, can be ended by no complete(), no unplug and no deadline.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial

from udriver.bench.floor import bare_fd, bare_trips
from udriver.bench.rounds import Block, Contestant, take_turns, timed
from udriver.bench.roundtrip import FRAME, driver_trips
from udriver.bench.rows import Row
from udriver.drivers.turn import in_turn
from udriver.drivers.usbserial import UsbSerial
from udriver.kernel.irq import (
    IRQ_HANDLED,
    IrqReturn,
    free_irq,
    generic_handle_irq,
    irq_alloc_desc,
    irq_free_desc,
    request_irq,
)
from udriver.kernel.kfifo import Kfifo

__all__ = ["ladder_rows"]

Take = Callable[[], bytes]


@contextmanager
def _nonblocking(path: str) -> Iterator[tuple[int, select.epoll]]:
    with bare_fd(path) as fd, select.epoll() as epoll:
        os.set_blocking(fd, False)
        epoll.register(fd, select.EPOLLIN)
        yield fd, epoll


@contextmanager
def _epoll(path: str) -> Iterator[Block]:
    """The sleep that something else can end, too."""
    with _nonblocking(path) as (fd, epoll):

        def trip() -> None:
            os.write(fd, FRAME)
            got = 0
            while got < len(FRAME):
                epoll.poll(5.0)
                got += len(os.read(fd, 65536))

        yield partial(timed, trip)


@contextmanager
def _wakeup_fd(path: str) -> Iterator[Block]:
    """And a signal, without a gap: taken over, given back, and a last look at what it has."""
    with _nonblocking(path) as (fd, epoll), ExitStack() as stack:
        signals, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        stack.callback(os.close, signals)
        stack.callback(os.close, wakeup)
        own = stack.enter_context(select.epoll())
        own.register(signals, select.EPOLLIN)
        epoll.register(signals, select.EPOLLIN)

        def trip() -> None:
            os.write(fd, FRAME)
            got = 0
            while got < len(FRAME):
                found = signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
                epoll.poll(5.0)
                signal.set_wakeup_fd(found, warn_on_full_buffer=False)
                own.poll(0)
                got += len(os.read(fd, 65536))

        yield partial(timed, trip)


@contextmanager
def _look(path: str, drain: Callable[[int], Take] | None = None) -> Iterator[Block]:
    """A look before the sleep; ``drain`` makes what takes the bytes in, os.read is the default."""
    with _nonblocking(path) as (fd, epoll):
        take: Take = drain(fd) if drain else partial(os.read, fd, 65536)
        ready = epoll.poll

        def trip() -> None:
            os.write(fd, FRAME)
            got = 0
            while got < len(FRAME):
                if ready(0, 32) or ready(5.0):
                    got += len(take())

        yield partial(timed, trip)


def _ring(fd: int) -> Take:
    """Into a kfifo and out again: room for what nobody has asked for yet."""
    fifo = Kfifo(65536)

    def take() -> bytes:
        fifo.dma_in_finish(os.readv(fd, fifo.dma_in_prepare()))
        return fifo.out_bytes(65536)

    return take


@contextmanager
def _interrupt(path: str, driver: UsbSerial | None = None) -> Iterator[Block]:
    """And the interrupt core, with a handler that has nothing in it but the kfifo."""
    fifo = Kfifo(65536)

    def isr(irq: int, dev_id: object) -> IrqReturn:
        fifo.dma_in_finish(os.readv(fd, fifo.dma_in_prepare()))
        return IRQ_HANDLED

    with _nonblocking(path) as (fd, epoll), ExitStack() as stack:
        irq = irq_alloc_desc("ladder")
        stack.callback(irq_free_desc, irq)
        request_irq(irq, isr, 0, "ladder", fifo)
        stack.callback(free_irq, irq, fifo)
        ready = epoll.poll

        def write() -> None:
            os.write(fd, FRAME)

        def read() -> bytes:
            while fifo.in_ - fifo.out < len(FRAME):
                if ready(0, 32) or ready(5.0):
                    generic_handle_irq(irq)
            return fifo.out_bytes(65536)

        def trip() -> None:
            if driver is None:
                write()
                read()
            else:
                in_turn(driver, driver._write_turn, None, "write", write)
                in_turn(driver, driver._read_turn, None, "read", read)

        yield partial(timed, trip)


@contextmanager
def _turns(path: str) -> Iterator[Block]:
    """And a turn for each half, that a close can end: those of a driver that is idle meanwhile."""
    far, near = os.openpty()
    try:
        with UsbSerial.open(os.ttyname(near)) as driver, _interrupt(path, driver) as block:
            yield block
    finally:
        os.close(far)
        os.close(near)


WAYS: dict[str, dict[str, Callable[[str], AbstractContextManager[Block]]]] = {
    "sleeps": {"epoll": _epoll, "wakeup fd": _wakeup_fd},
    "looks": {
        "a look first": _look,
        "kfifo": partial(_look, drain=_ring),
        "interrupt": _interrupt,
        "turns": _turns,
    },
}


def ladder_rows(path: str, rung: str, rounds: int, count: int) -> list[Row]:
    """A row a rung, each against a bare write and read; ``path`` has an echo behind it."""
    rungs = {
        f"{way}: {name}": trips for way, names in WAYS.items() for name, trips in names.items()
    }
    contestants = [
        Contestant("bare", partial(bare_trips, path, FRAME)),
        *(Contestant(name, partial(trips, path)) for name, trips in rungs.items()),
        Contestant("the driver", partial(driver_trips, path, FRAME, "inline")),
    ]
    results = take_turns(contestants, rounds, count)
    return [
        Row(
            f"ladder, {contestant.name}, p50",
            "bare",
            results.ratio(contestant.name, "bare", 50),
            ours=results.value(contestant.name, 50) / 1000,
            theirs=results.value("bare", 50) / 1000,
            unit="us",
            rung=rung,
        )
        for contestant in contestants[1:]
    ]
