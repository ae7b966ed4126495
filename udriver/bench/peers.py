# SPDX-License-Identifier: MIT
"""Composition. The peers, each as its own documentation has it used; one that is missing is named."""

from __future__ import annotations

import asyncio
import importlib.util
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import serial
import serial.threaded

from udriver.bench.rounds import Block, timed

__all__ = ["PEERS", "STREAMS", "missing"]

Trips = Callable[[str, bytes], Any]
BAUDRATE = 115200


def missing(name: str) -> str | None:
    """Why the peer of that name cannot take part, with the command that would change it."""
    module, package = NEEDS[name]
    if importlib.util.find_spec(module) is not None:
        return None
    return f"{package} is not installed; `pip install {package}` lets it take part"


@contextmanager
def _pyserial(path: str, frame: bytes) -> Iterator[Block]:
    with serial.Serial(path, BAUDRATE, timeout=5) as port:

        def trip() -> None:
            port.write(frame)
            port.read(len(frame))

        yield partial(timed, trip)


@contextmanager
def _reader_thread(path: str, frame: bytes) -> Iterator[Block]:
    full = threading.Event()
    size = len(frame)

    class Collect(serial.threaded.Protocol):
        def __init__(self) -> None:
            self.buffer = bytearray()

        def data_received(self, data: bytes) -> None:
            self.buffer += data
            if len(self.buffer) >= size:
                self.buffer.clear()
                full.set()

    with (
        serial.Serial(path, BAUDRATE) as port,
        serial.threaded.ReaderThread(port, Collect) as _,
    ):

        def trip() -> None:
            port.write(frame)
            full.wait()
            full.clear()

        yield partial(timed, trip)


@contextmanager
def _serialx(path: str, frame: bytes) -> Iterator[Block]:
    import serialx

    with serialx.serial_for_url(path, baudrate=BAUDRATE) as port:

        def trip() -> None:
            port.write(frame)
            port.readexactly(len(frame))

        yield partial(timed, trip)


@contextmanager
def _streams(path: str, frame: bytes, connect: Callable[..., Awaitable[Any]]) -> Iterator[Block]:
    with asyncio.Runner() as runner:

        async def opened() -> Any:
            return await connect(url=path, baudrate=BAUDRATE)

        reader, writer = runner.run(opened())

        async def trips(count: int) -> list[int]:
            clock = time.perf_counter_ns
            durations = []
            for _ in range(count):
                before = clock()
                writer.write(frame)
                await reader.readexactly(len(frame))
                durations.append(clock() - before)
            return durations

        async def closed() -> None:
            writer.close()
            await writer.wait_closed()

        yield lambda count: runner.run(trips(count))
        runner.run(closed())


def _serialx_async(path: str, frame: bytes) -> Any:
    import serialx

    return _streams(path, frame, serialx.open_serial_connection)


def _asyncio_fast(path: str, frame: bytes) -> Any:
    import serial_asyncio_fast

    return _streams(path, frame, serial_asyncio_fast.open_serial_connection)


def _pyserial_stream(path: str) -> Any:
    return serial.Serial(path, BAUDRATE)


def _serialx_stream(path: str) -> Any:
    import serialx

    return serialx.serial_for_url(path, baudrate=BAUDRATE)


NEEDS = {
    "pySerial": ("serial", "pyserial"),
    "pySerial ReaderThread": ("serial", "pyserial"),
    "serialx": ("serialx", "serialx"),
    "serialx async": ("serialx", "serialx"),
    "pyserial-asyncio-fast": ("serial_asyncio_fast", "pyserial-asyncio-fast"),
}
PEERS: dict[str, Trips] = {
    "pySerial": _pyserial,
    "pySerial ReaderThread": _reader_thread,
    "serialx": _serialx,
    "serialx async": _serialx_async,
    "pyserial-asyncio-fast": _asyncio_fast,
}
"""Round trips; by name, a context manager of path and frame."""

STREAMS: dict[str, Callable[[str], Any]] = {
    "pySerial": _pyserial_stream,
    "serialx": _serialx_stream,
}
"""Streams; by name, a port with read(), write() and in_waiting."""
