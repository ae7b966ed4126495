# SPDX-License-Identifier: MIT
"""What the tests of the drivers share: waiting by condition, other threads, and a bare pty."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import tty
from collections.abc import Callable, Iterator
from typing import Any, Self

import pytest

from tests.conftest import guest_device
from tests.rungs import CHIPS, QUIRKS, Quirk, reason, rung
from udriver.kernel import sched
from udriver.kernel.completion import Completion
from udriver.kernel.context import hardirq_exit, hardirq_name

WATCHDOG_S = 20.0  # reached only by a bug


traces_opcodes = pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="settrace gives opcodes from a second call on only: 3.11"
)


def cuts_at_each_place(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a sweep of Ctrl-C over every place of the driver: slow, on 3.11, and not of the checker."""
    unchecked = pytest.mark.udriver_unchecked(
        "cuts at each place of the driver, not of the checker"
    )
    return traces_opcodes(unchecked(pytest.mark.slow(test)))


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Sleep a jiffy at a time until ``condition()``: an inline irqchip takes interrupts only there."""
    end = time.monotonic() + WATCHDOG_S
    never = Completion("never")
    while not condition():
        assert time.monotonic() < end, f"still not: {what}"
        try:
            never.wait(0)  # to the next jiffy; of 1 ms the kernel makes two
        except TimeoutError:
            pass


def open_files() -> list[str]:
    """What the process has open; not the numbers, for a Loopback's thread changes those of its own."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            pass  # the listing's own
    return sorted(found)


class Other(threading.Thread):
    """Another thread that runs one function; ``result`` is what came of it."""

    def __init__(self, function: Callable[..., Any], *args: Any, **options: Any) -> None:
        super().__init__(name=getattr(function, "__name__", "other"), daemon=True)
        self._call = lambda: function(*args, **options)
        self.result: Any = "still running"
        self.ended_at = 0.0
        self.start()

    def run(self) -> None:
        try:
            self.result = self._call()
        except BaseException as exc:  # noqa: BLE001 - the test looks at it
            self.result = exc
        self.ended_at = time.monotonic()

    def end(self) -> Any:
        """Wait for it, taking interrupts meanwhile; give its result."""
        wait_until(lambda: not self.is_alive(), f"{self.name} ends")
        self.join()
        return self.result


class BarePty:
    """A raw pty whose far end does nothing at all: nobody reads, so writers block.

    And no thread that opens and closes fds of its own while a test counts them, as a Loopback's does.
    """

    def __init__(self) -> None:
        self.master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self.master, False)
        self.path = os.ttyname(self._slave)

    def push(self, data: bytes) -> None:
        """Let the device send; all of it, as fast as the tty takes it."""
        end = time.monotonic() + WATCHDOG_S
        while data:
            assert time.monotonic() < end
            try:
                data = data[os.write(self.master, data) :]
            except BlockingIOError:
                os.sched_yield()

    def heard(self, count: int) -> bytes:
        """All that was written so far, of which ``count`` bytes are known to be on their way."""
        data = b""
        while True:
            try:
                data += os.read(self.master, 65536)
            except BlockingIOError:
                assert len(data) >= count  # a pty delays nothing
                return data

    def unplug(self) -> None:
        for fd in (self._slave, self.master):
            if fd >= 0:
                os.close(fd)
        self._slave = self.master = -1

    close = unplug

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


@pytest.fixture
def until() -> Callable[[Callable[[], object], str], None]:
    """``until(condition, what)``: bounded, and interrupts are taken meanwhile."""
    return wait_until


@pytest.fixture
def other() -> type[Other]:
    """``other(function, ...)``: run it on another thread; ``.end()`` gives its result."""
    return Other


@pytest.fixture
def bare(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A device whose far end does nothing unless told: a pty, or QEMU's without its jumper."""
    here = rung(request.config)
    if Quirk.NEVER_MUTE in QUIRKS[here]:
        pytest.skip(reason(here, Quirk.NEVER_MUTE))
    if here == "qemu" or here in CHIPS:
        device: Any = guest_device(request, jumper=False)
    else:
        device = BarePty()
    yield device
    device.close()


@pytest.fixture(autouse=True)
def nothing_pending() -> Iterator[None]:
    """After each test no signal is left pending for the main thread, and it is in no wait."""
    yield
    task = sched.active().current()
    left = task.pending[:], task.syscall_depth, hardirq_name()
    task.pending.clear()
    task.syscall_depth = 0
    hardirq_exit(None)
    assert left == ([], 0, None)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
