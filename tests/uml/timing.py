# SPDX-License-Identifier: MIT
"""How long things take on our FT232R under ftdi_sio, in the guest's virtual time: timing.py [SEED].

Prints a line for each, `WHEN WHAT ASKED TOOK...`, all in ns of CLOCK_MONOTONIC. The bytes come from SEED.
"""

from __future__ import annotations

import os
import random
import select
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

from udriver import Timeout, UsbSerial
from udriver_hw.spawned import SpawnedUsb, spawn_usb

RATES = {9600: termios.B9600, 19200: termios.B19200, 115200: termios.B115200}
PACKET = 62  # characters; the FT232R sends as many of them at once, and earlier only by its timer
TRIPS = 5


def say(what: str, asked: int, *took: int) -> None:
    print(time.monotonic_ns(), what, asked, *took, flush=True)


def took(function: Callable[[], object]) -> int:
    began = time.monotonic_ns()
    function()
    return time.monotonic_ns() - began


def opened(server: SpawnedUsb, rate: int, vmin: int = 1, vtime: int = 0) -> int:
    """A blocking, raw fd."""
    fd = os.open(server.path, os.O_RDWR | os.O_NOCTTY)
    cc: list[bytes | int] = [b"\0"] * 32
    cc[termios.VMIN], cc[termios.VTIME] = vmin, vtime
    cflag = termios.CS8 | termios.CREAD | termios.CLOCAL
    termios.tcsetattr(fd, termios.TCSANOW, [0, 0, cflag, 0, RATES[rate], RATES[rate], cc])
    return fd


def set_latency(server: SpawnedUsb, milliseconds: int) -> None:
    name = Path(server.path).name
    Path(f"/sys/class/tty/{name}/device/latency_timer").write_text(str(milliseconds))


def latency_timer(server: SpawnedUsb, source: random.Random) -> None:
    """A byte goes round the jumper, and waits in the chip for the end of the timer."""
    for milliseconds in (16, 8, 2, 1):
        fd = opened(server, 115200)
        set_latency(server, milliseconds)

        def trip(fd: int = fd) -> None:
            byte = source.randbytes(1)
            os.write(fd, byte)
            assert os.read(fd, 1) == byte

        trip()  # meets a timer that already runs
        say("latency_timer", milliseconds * 1_000_000, *(took(trip) for _ in range(TRIPS)))
        os.close(fd)


def pacing(server: SpawnedUsb, source: random.Random) -> None:
    """A packet's worth of characters: it is whole when the last bit has come."""
    set_latency(server, 255)
    for rate in RATES:
        fd = opened(server, rate, vmin=PACKET)
        data = source.randbytes(PACKET)

        def trip(fd: int = fd, data: bytes = data) -> None:
            os.write(fd, data)
            assert os.read(fd, PACKET) == data

        say("pacing", rate, *(took(trip) for _ in range(TRIPS)))
        os.close(fd)


def timeouts(server: SpawnedUsb) -> None:
    """Of the kernel's three ways to wait, and of the driver's read on each irqchip."""
    fd = opened(server, 115200)
    say("select", 37_000_000, took(lambda: select.select([fd], [], [], 0.037)))
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    say("poll", 37_000_000, took(lambda: poll.poll(37)))
    os.close(fd)
    fd = opened(server, 115200, vmin=0, vtime=5)
    say("vtime", 500_000_000, took(lambda: os.read(fd, 1)))
    os.close(fd)

    def read(driver: UsbSerial) -> None:
        try:
            driver.read(timeout=0.25)
        except Timeout:
            return
        raise AssertionError("a silent device was read from")

    for irqchip in ("signal", "select", "inline"):
        with UsbSerial.open(server.path, irqchip=irqchip) as driver:
            say(f"read_{irqchip}", 250_000_000, took(lambda driver=driver: read(driver)))


def main(seed: str = "0") -> None:
    source = random.Random(seed)
    with spawn_usb("ft232r") as server:
        say("plugged", 0)
        latency_timer(server, source)
        timeouts(server)
    with spawn_usb("ft232r", "--paced") as server:
        pacing(server, source)


if __name__ == "__main__":
    main(*sys.argv[1:])
