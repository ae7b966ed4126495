# SPDX-License-Identifier: MIT
"""Composition. Where a round trip's time goes: from a bare write and read to the driver, a layer a rung.

Each rung is a program of a few lines, without a class of ours until its own layer comes: what it takes
more than the one before it is what CPython asks for that layer. The rungs take turns in one run; a
figure is the median over the rounds of (rung / its floor in the same round).

The way without a sleep is what ``transact()`` takes when the answer is there by the time it looks,
which on a pty is nearly always: the far end often runs on the CPU that wrote, inside the write. The
way with one is what it takes on an adapter, whose answer is a millisecond away. It cannot be left
out: a blocking read(2), as the floor's, can be ended by no complete(), no unplug and no deadline.

Rungs named ``least`` have none of it (least.py): what a bar leaves above them is the room there is.

With a second thread the floor is what people write by hand. Each call that lets go of the GIL, a sleep or
a wake-up of a sleeper, is a chance for the other thread to take it, and then it is waited for.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial

from udriver.bench import least
from udriver.bench.floor import bare_fd, bare_trips, select_thread_trips
from udriver.bench.least import Ends
from udriver.bench.rounds import Block, Contestant, take_turns, timed
from udriver.bench.roundtrip import BY_HAND, FRAME, driver_trips
from udriver.bench.rows import Row
from udriver.drivers.turn import in_turn
from udriver.drivers.usbserial import UsbSerial
from udriver.kernel.completion import Completion
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
        ready, write = epoll.poll, partial(os.write, fd, FRAME)

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


@contextmanager
def _thread(path: str, ends: Callable[[], Ends]) -> Iterator[Block]:
    """A second thread reads and tells us, which we wait for: with select(), this is what BY_HAND is."""
    tell, wait = ends()
    with _nonblocking(path) as (fd, epoll), ExitStack() as stack:
        stop = os.eventfd(0, os.EFD_CLOEXEC)
        stack.callback(os.close, stop)
        epoll.register(stop, select.EPOLLIN)
        received = bytearray()

        def receive() -> None:
            while all(ready != stop for ready, _ in epoll.poll()):
                received.extend(os.read(fd, 4096))
                if len(received) >= len(FRAME):
                    tell()

        def trip() -> None:
            os.write(fd, FRAME)
            wait()
            received.clear()

        thread = threading.Thread(target=receive, name="ladder", daemon=True)
        thread.start()
        stack.callback(thread.join)
        stack.callback(os.eventfd_write, stop, 1)
        yield partial(timed, trip)


def _completion(timeout: float | None) -> Ends:
    x = Completion("ladder")
    return x.complete, partial(x.wait, timeout)


Way = dict[str, Callable[[str], AbstractContextManager[Block]]]
ALONE: Way = {
    "least: epoll, completion": least.sleep_and_complete,
    "sleeps: epoll": _epoll,
    "sleeps: and the wakeup fd": _wakeup_fd,
    "looks": _look,
    "looks: and a kfifo": partial(_look, drain=_ring),
    "looks: and an interrupt": _interrupt,
    "looks: and turns": _turns,
    "the driver, inline": partial(driver_trips, frame=FRAME, irqchip="inline"),
}
THREAD: Way = {
    "least: read, eventfd": partial(least.read_thread, ends=least.eventfd),
    "least: read, lock": partial(least.read_thread, ends=least.lock),
    "least: epoll, eventfd": partial(_thread, ends=least.eventfd_in_epoll),
    "thread: epoll, Event": partial(_thread, ends=least.event),
    "thread: a completion": partial(_thread, ends=partial(_completion, None)),
    "thread: and a deadline": partial(_thread, ends=partial(_completion, 5.0)),
    "the driver, select": partial(driver_trips, frame=FRAME, irqchip="select"),
}
FLOORS: Way = {
    "bare": partial(bare_trips, frame=FRAME),
    BY_HAND: partial(select_thread_trips, frame=FRAME),
}


def ladder_rows(path: str, rung: str, rounds: int, count: int) -> list[Row]:
    """A row a rung, against the floor of its kind; ``path`` has an echo behind it."""
    everybody = {**FLOORS, **ALONE, **THREAD}
    contestants = [Contestant(name, partial(trips, path)) for name, trips in everybody.items()]
    results = take_turns(contestants, rounds, count)
    return [
        Row(
            f"ladder, {name}, p50",
            floor,
            results.ratio(name, floor, 50),
            ours=results.value(name, 50) / 1000,
            theirs=results.value(floor, 50) / 1000,
            unit="us",
            rung=rung,
        )
        for floor, way in zip(FLOORS, (ALONE, THREAD), strict=True)
        for name in way
    ]
