# SPDX-License-Identifier: MIT
"""The driver, on a pty, with each irqchip: its calls, their ends, and what must not get lost."""

from __future__ import annotations

import dis
import errno
import fcntl
import gc
import itertools
import os
import resource
import signal
import sys
import termios
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

import pytest

from tests.drivers.conftest import BarePty, cuts_at_each_place, traces_opcodes
from tests.rungs import Quirk, without
from udriver import UsbSerial
from udriver.drivers import usbserial
from udriver.drivers.inline_chip import InlineChip
from udriver.drivers.irqchip import IRQCHIPS
from udriver.drivers.port import Port
from udriver.errors import Busy, DeviceGone, Timeout, UDriverError
from udriver.kernel import sched
from udriver.kernel.completion import Completion
from udriver.kernel.kfifo import Kfifo

Until = Callable[[Callable[[], object], str], None]
GENEROUS_S = 5.0
PATTERN = bytes(number % 251 for number in range(65536))


@pytest.fixture
def driver(udriver_driver: UsbSerial) -> UsbSerial:
    """Up on a device whose TX is wired to its RX."""
    return udriver_driver


@pytest.fixture
def opened(udriver_irq: str) -> Iterator[Callable[..., UsbSerial]]:
    """``opened(path, ...)``: a driver that the test's end closes."""
    with ExitStack() as stack:
        yield lambda path, **options: stack.enter_context(
            UsbSerial.open(path, irqchip=udriver_irq, **options)
        )


@pytest.fixture
def mute(bare: Any, opened: Callable[..., UsbSerial]) -> UsbSerial:
    """Up on a device that neither reads nor sends, unless ``bare`` does it by hand."""
    return opened(bare.path, fifo_size=1024)


# what it does


def test_read_gives_what_there_is(driver: UsbSerial) -> None:
    driver.write(b"hello", 5)
    data = b""
    while len(data) < 5:
        data += driver.read(timeout=5)
    assert data == b"hello"


def test_read_gives_no_more_than_asked(driver: UsbSerial) -> None:
    driver.write(b"hello", 5)
    assert driver.readexactly(5, 5) == b"hello"
    driver.write(b"hello", 5)
    data = [driver.read(1, 5) for _ in range(5)]
    assert data == [b"h", b"e", b"l", b"l", b"o"]


def test_readline(driver: UsbSerial) -> None:
    driver.write(b"one\ntwo\n\nrest", 5)
    assert [driver.readline(5) for _ in range(3)] == [b"one\n", b"two\n", b"\n"]
    assert driver.readexactly(4, 5) == b"rest"


def test_readline_has_a_limit(driver: UsbSerial) -> None:
    driver.write(b"abcdefg\n", 5)
    assert driver.readline(5, limit=4) == b"abcd"
    assert driver.readline(5, limit=4) == b"efg\n"


def test_a_line_longer_than_the_kfifo_comes_in_pieces(
    udriver_device: Any, opened: Callable[..., UsbSerial]
) -> None:
    driver = opened(udriver_device.path, fifo_size=64)
    driver.write(b"x" * 100 + b"\n", 5)
    assert driver.readline(5) == b"x" * 64
    assert driver.readline(5) == b"x" * 36 + b"\n"


def test_transact(driver: UsbSerial) -> None:
    assert [driver.transact(bytes([n]), 1, 5) for n in range(50)] == [bytes([n]) for n in range(50)]


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """What each look of the inline chip does first; the last one stays."""
    steps: list[Callable[[], object]] = [int]
    resample = InlineChip.resample

    def look(chip: InlineChip, irq: int) -> None:
        (steps.pop(0) if len(steps) > 1 else steps[0])()
        resample(chip, irq)

    monkeypatch.setattr(InlineChip, "resample", look)
    return steps


def test_inline_an_answer_that_comes_at_once_is_looked_for_and_not_slept_for(
    looks: list[Callable[[], object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usbserial, "LOOK", 10.0)
    device = BarePty()
    with UsbSerial.open(device.path, irqchip="inline") as driver:
        with pytest.raises(Timeout):
            driver.read(timeout=0)  # its task is made
        slept = sched.active().current().nvcsw
        looks[:] = [int, int, lambda: device.push(b"pong"), int]
        assert driver.transact(b"ping", 4, 5) == b"pong"
        assert sched.active().current().nvcsw == slept
    device.close()


def test_inline_an_answer_that_never_comes_at_once_is_looked_for_more_and_more_seldom(
    looks: list[Callable[[], object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []
    looked: list[int] = []
    monkeypatch.setattr(usbserial, "LOOK", -1.0)
    look = UsbSerial._look
    monkeypatch.setattr(UsbSerial, "_look", lambda *args: (looked.append(len(tried)), look(*args)))
    device = BarePty()
    with UsbSerial.open(device.path, irqchip="inline") as driver:
        while len(tried) < 40:
            with pytest.raises(Timeout):
                driver.transact(b"?", 1, 0)
            tried.append(1)
        assert looked == [0, 3, 8, 17, 34]
        looked.clear()
        looks[:] = [int, int, lambda: device.push(b"!"), int]
        monkeypatch.setattr(usbserial, "LOOK", 10.0)
        driver._unlooked = 0
        assert driver.transact(b"?", 1, 5) == b"!"
        assert driver._next_unlooked == 2  # and from there on it is looked for at once again
    device.close()


def never() -> None:
    pytest.fail("it looked once too often")


def test_inline_a_look_ends_with_the_timeout(
    looks: list[Callable[[], object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usbserial, "LOOK", 10.0)
    device = BarePty()
    with UsbSerial.open(device.path, irqchip="inline") as driver:
        looks[:] = [int, int, never]  # one by the look, one before the sleep
        with pytest.raises(Timeout):
            driver.transact(b"?", 1, 0)
    device.close()


def test_inline_a_look_lets_come_what_it_looks_for(
    looks: list[Callable[[], object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usbserial, "LOOK", 10.0)
    device = BarePty()
    with UsbSerial.open(device.path, irqchip="inline", fifo_size=64) as driver:
        device.push(PATTERN[:100])
        assert driver.readexactly(1, 5) == PATTERN[:1]
        assert driver.stats().throttles == 1  # and on it stays: less than half is free
        looks[:] = [int, int, never]
        assert driver.transact(b"?", 64, 5) == PATTERN[1:65]
    device.close()


def test_inline_a_reader_takes_what_is_there_and_does_not_sleep() -> None:
    device = BarePty()
    with UsbSerial.open(device.path, irqchip="inline") as driver:
        with pytest.raises(Timeout):
            driver.read(timeout=0)  # its task is made
        slept = sched.active().current().nvcsw
        device.push(b"hello")
        while driver.port.in_waiting() < 5:
            os.sched_yield()
        assert driver.read(timeout=5) == b"hello"
        assert driver.stats().irq.count == 1
        assert sched.active().current().nvcsw == slept
        assert driver.rx_ready.done == 1  # nobody slept on it
        with pytest.raises(Timeout):
            driver.read(timeout=0.01)  # the token of bytes that were read is not taken for bytes
        device.push(b"more")
        assert driver.readexactly(4, 5) == b"more"
    device.close()


def test_one_interrupt_drains_more_than_the_tty_holds_at_a_time() -> None:
    """A tty gives 4095 bytes a read; what was behind them comes as soon as there is room."""
    device = BarePty()
    with UsbSerial.open(device.path, irqchip="inline") as driver:
        device.push(PATTERN[:12000])
        while driver.port.in_waiting() < 4095:
            os.sched_yield()
        assert driver.readexactly(12000, 5) == PATTERN[:12000]
        assert driver.stats().drains > driver.stats().irq.count
    device.close()


@pytest.mark.parametrize("size", [64, 2048])
def test_a_drain_ends_where_the_kfifo_is_full(size: int) -> None:
    device = BarePty()
    with UsbSerial.open(device.path, irqchip="inline", fifo_size=size) as driver:
        device.push(PATTERN[:12000])
        assert driver.readexactly(12000, 5) == PATTERN[:12000]
        assert driver.stats().throttles > 0
        assert driver.stats().high_water == size
    device.close()


def test_flush_returns_when_all_has_left(driver: UsbSerial) -> None:
    driver.write(b"x" * 1000, 5)
    driver.flush(5)
    assert driver.port.out_waiting() == 0
    driver.flush(5)


def test_flush_sleeps_until_the_transmitter_is_empty(mute: UsbSerial, other: Any) -> None:
    log: list[str] = []
    empty = threading.Event()

    def transmitter_empty() -> bool:
        if empty.is_set():
            log.append("empty")
        return empty.is_set()

    mute.port.transmitter_empty = transmitter_empty  # type: ignore[method-assign]

    def finish() -> None:
        spin(lambda: len(mute.tx_empty.wait_queue) > 0)
        log.append("flush sleeps")
        empty.set()

    helper = other(finish)
    mute.flush(10)
    log.append("flush returns")
    helper.end()
    assert (log[0], log[1], log[-1]) == ("flush sleeps", "empty", "flush returns")


def test_nothing_to_write_is_no_write(driver: UsbSerial) -> None:
    assert driver.write(b"", 5) == 0


def test_writes_any_bytes_like(driver: UsbSerial) -> None:
    for data in (b"ab", bytearray(b"ab"), memoryview(b"ab")):
        assert driver.write(data, 5) == 2
        assert driver.readexactly(2, 5) == b"ab"


@pytest.mark.parametrize("shape", [[len(PATTERN) // 4], [4, len(PATTERN) // 16]])
def test_items_that_are_no_bytes_are_written_in_pieces_to_the_byte(
    driver: UsbSerial, other: Any, shape: list[int]
) -> None:
    items = memoryview(PATTERN).cast("I", shape)
    writer = other(driver.write, items, 20)
    assert driver.readexactly(len(PATTERN), 5) == PATTERN
    assert writer.end() == driver.stats().written == len(PATTERN)


def test_what_does_not_lie_in_one_piece_is_refused_as_a_whole(driver: UsbSerial) -> None:
    with pytest.raises(BufferError, match="not C-contiguous"):
        driver.write(memoryview(b"abcd")[::2], 5)
    assert driver.stats().written == 0
    assert driver.transact(b"ab", 2, 5) == b"ab"


def test_what_is_waiting_and_what_is_thrown_away(driver: UsbSerial, until: Until) -> None:
    driver.write(b"abc", 5)
    until(lambda: driver.in_waiting == 3 and driver.stats().buffered == 3, "it came back")
    assert driver.reset_input_buffer() == 3
    assert driver.in_waiting == 0


def test_all_values_of_a_byte_get_through(driver: UsbSerial) -> None:
    data = bytes(range(256)) * 4
    driver.write(data, 5)
    assert driver.readexactly(len(data), 5) == data


# timeouts


@pytest.mark.parametrize(
    "call",
    [
        lambda driver: driver.read(timeout=0.01),
        lambda driver: driver.readexactly(4, 0.01),
        lambda driver: driver.readexactly(4, 0),
        lambda driver: driver.readexactly(5000, 0.01),
        lambda driver: driver.readline(0.01),
        lambda driver: driver.transact(b"x", 4, 0.01),
        pytest.param(
            lambda driver: driver.write(bytes(1 << 20), 0.01),
            marks=without(Quirk.NO_WRITER_SLEEPS),
        ),
    ],
    ids=["read", "readexactly", "at once", "readexactly long", "readline", "transact", "write"],
)
def test_each_call_has_its_timeout(mute: UsbSerial, call: Callable[[UsbSerial], Any]) -> None:
    with pytest.raises(Timeout) as caught:
        call(mute)
    assert caught.value.errno == errno.ETIMEDOUT
    assert mute.port.path in str(caught.value)


def test_flush_has_its_timeout(mute: UsbSerial) -> None:
    mute.port.transmitter_empty = lambda: False  # type: ignore[method-assign]
    with pytest.raises(Timeout):
        mute.flush(0.01)
    del mute.port.transmitter_empty
    mute.flush(5)


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_a_timeout_that_is_none(mute: UsbSerial, timeout: float) -> None:
    with pytest.raises(ValueError, match="seconds >= 0"):
        mute.read(timeout=timeout)


def test_a_short_answer_stays_for_the_next_read(mute: UsbSerial, bare: Any) -> None:
    bare.push(b"abc")
    with pytest.raises(Timeout) as caught:
        mute.readexactly(10, 0.02)
    assert caught.value.partial == b""
    bare.push(b"defghij")
    assert mute.readexactly(10, 5) == b"abcdefghij"


def test_a_line_without_its_end_stays(mute: UsbSerial, bare: Any) -> None:
    bare.push(b"abc")
    with pytest.raises(Timeout):
        mute.readline(0.02)
    bare.push(b"d\n")
    assert mute.readline(5) == b"abcd\n"


class LateFifo(Kfifo):
    """Bytes come in just after somebody looked for a newline."""

    __slots__ = ("late",)

    def find(self, byte: int, limit: int) -> int:
        found = super().find(byte, limit)
        late, self.late = self.late, b""
        self.in_bytes(late)
        return found


def test_a_newline_that_comes_while_it_looks(mute: UsbSerial) -> None:
    mute.fifo = LateFifo(1024)
    mute.fifo.in_bytes(b"abc")
    mute.fifo.late = b"d\n"
    assert mute.readline(0.1) == b"abcd\n"


def test_a_long_read_gives_its_part_with_the_timeout(mute: UsbSerial, bare: Any) -> None:
    bare.push(PATTERN[:2000])
    with pytest.raises(Timeout) as caught:
        mute.readexactly(3000, 0.1)
    rest = b""
    while len(caught.value.partial) + len(rest) < 2000:
        rest += mute.read(timeout=5)
    assert caught.value.partial + rest == PATTERN[:2000]


@without(Quirk.NO_WRITER_SLEEPS)
def test_a_write_says_how_far_it_got(mute: UsbSerial, bare: Any) -> None:
    with pytest.raises(Timeout) as caught:
        mute.write(PATTERN, 0.02)
    sent = caught.value.transferred
    assert 0 < sent < len(PATTERN)
    assert bare.heard(sent) == PATTERN[:sent]
    assert mute.stats().written == sent


def test_readexactly_may_be_larger_than_the_kfifo(
    udriver_device: Any, opened: Callable[..., UsbSerial]
) -> None:
    driver = opened(udriver_device.path, fifo_size=256)
    udriver_device.push(PATTERN)
    assert driver.readexactly(len(PATTERN), 10) == PATTERN


# a full kfifo


@pytest.mark.slow
def test_throttled_loses_nothing(udriver_device: Any, opened: Callable[..., UsbSerial]) -> None:
    # smaller than one USB transfer, or a reader that keeps up with the wire is never throttled
    driver = opened(udriver_device.path, fifo_size=256)
    data = PATTERN * 4
    udriver_device.push(data)
    received = bytearray()
    while len(received) < len(data):
        received += driver.read(700, 10)
    assert received == data
    stats = driver.stats()
    assert (stats.received, stats.read, stats.dropped) == (len(data), len(data), 0)
    assert stats.throttles > 0
    assert stats.high_water == 256


def test_throttled_holds_the_device_back(
    udriver_device: Any, opened: Callable[..., UsbSerial], until: Until
) -> None:
    driver = opened(udriver_device.path, fifo_size=64)
    udriver_device.push(PATTERN)
    until(lambda: driver.stats().throttles, "the kfifo is full")
    assert driver.stats().received == 64
    assert driver.in_waiting > 64, "the rest waits in the tty"
    assert driver.readexactly(len(PATTERN), 10) == PATTERN


def test_dropped_is_counted_to_the_byte(
    udriver_device: Any, opened: Callable[..., UsbSerial], until: Until
) -> None:
    driver = opened(udriver_device.path, fifo_size=1024, on_full="drop")
    udriver_device.push(PATTERN)
    until(lambda: driver.stats().received == len(PATTERN), "all was taken from the tty")
    stats = driver.stats()
    assert (stats.dropped, stats.buffered, stats.throttles) == (len(PATTERN) - 1024, 1024, 0)
    assert driver.readexactly(1000, 5) == PATTERN[:1000], "the newest is what is dropped"
    stats = driver.stats()
    assert stats.received == stats.read + stats.dropped + stats.buffered


@pytest.mark.slow
def test_dropping_under_a_reader_adds_up(
    udriver_device: Any, opened: Callable[..., UsbSerial], until: Until
) -> None:
    driver = opened(udriver_device.path, fifo_size=1024, on_full="drop")
    total = 4 * len(PATTERN)
    udriver_device.push(PATTERN * 4)
    got = 0
    while driver.stats().received < total or driver.stats().buffered:
        try:
            got += len(driver.read(100, 0.01))
        except Timeout:
            pass  # the last ones may be dropped while we look
    stats = driver.stats()
    assert (stats.received, stats.read) == (total, got)
    assert stats.received == stats.read + stats.dropped + stats.buffered


# blocking calls, ended from outside


def spin(condition: Callable[[], object]) -> None:
    """Without joining any wait: the thread that spins must not take an inline interrupt."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        os.sched_yield()


class Blocking:
    """A call that blocks on a mute device, and the completion on which it does."""

    def __init__(self, call: Callable[[UsbSerial], Any], event: str) -> None:
        self._call = call
        self._event = event

    def __call__(self, driver: UsbSerial) -> Any:
        return self._call(driver)

    def asleep(self, driver: UsbSerial) -> bool:
        event: Completion = getattr(driver, self._event)
        return len(event.wait_queue) > 0


BLOCKING = {
    "read": Blocking(lambda driver: driver.read(), "rx_ready"),
    "read with timeout": Blocking(lambda driver: driver.read(timeout=60), "rx_ready"),
    "readexactly": Blocking(lambda driver: driver.readexactly(10), "rx_ready"),
    "readexactly long": Blocking(lambda driver: driver.readexactly(5000), "rx_ready"),
    "readline": Blocking(lambda driver: driver.readline(), "rx_ready"),
    "transact": Blocking(lambda driver: driver.transact(b"?", 10), "rx_ready"),
    "write": Blocking(lambda driver: driver.write(bytes(1 << 20)), "tx_room"),
    "flush": Blocking(lambda driver: driver.flush(), "tx_empty"),
    "turn to read": Blocking(lambda driver: driver.read(), "_read_turn"),
    "turn to write": Blocking(lambda driver: driver.write(b"x"), "_write_turn"),
    "turn to flush": Blocking(lambda driver: driver.flush(), "_write_turn"),
}
WRITERS = ("write", "turn to write", "turn to flush")


def blocking(*but: str) -> pytest.MarkDecorator:
    """One run for each call that blocks; where no writer sleeps, those that do are left out."""
    sleepy = without(Quirk.NO_WRITER_SLEEPS)
    names = [name for name in BLOCKING if name not in but]
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=sleepy if name in WRITERS else ()) for name in names]
    )


each_blocking = blocking()


@contextmanager
def somebody_before(name: str, driver: UsbSerial, other: Any) -> Iterator[None]:
    """Whoever has the turn that ``name`` waits for, if that is what it waits for."""
    if not name.startswith("turn"):
        if name == "flush":
            driver.port.transmitter_empty = lambda: False  # type: ignore[method-assign]
        yield
        return
    first = BLOCKING["read" if name == "turn to read" else "write"]
    holder = other(first, driver)
    spin(lambda: first.asleep(driver))
    yield
    if not driver.gone:
        driver._hangup("the test is over")
    assert isinstance(holder.end(), DeviceGone)


@each_blocking
def test_unplug_wakes_the_main_thread(
    mute: UsbSerial, bare: Any, other: Any, name: str, record_property: Any
) -> None:
    call = BLOCKING[name]
    with somebody_before(name, mute, other):
        pulled: list[float] = []

        def pull() -> None:
            spin(lambda: call.asleep(mute))
            pulled.append(time.monotonic())
            bare.unplug()

        puller = other(pull)
        with pytest.raises(DeviceGone) as caught:
            call(mute)
        took = time.monotonic() - pulled[0]
        puller.end()
    record_property("unplug_to_enodev_ms", round(took * 1e3, 3))
    assert caught.value.errno == errno.ENODEV
    assert mute.port.path in str(caught.value)
    assert took < GENEROUS_S


@each_blocking
def test_unplug_wakes_another_thread(
    mute: UsbSerial, bare: Any, other: Any, name: str, record_property: Any
) -> None:
    call = BLOCKING[name]
    with somebody_before(name, mute, other):
        caller = other(call, mute)
        spin(lambda: call.asleep(mute))
        pulled = time.monotonic()
        bare.unplug()
        caller.join(20)  # a plain join: the main thread is in none of our waits
        took = caller.ended_at - pulled
    record_property("unplug_to_enodev_ms", round(took * 1e3, 3))
    assert isinstance(caller.result, DeviceGone)
    assert caller.result.errno == errno.ENODEV
    assert took < GENEROUS_S


@each_blocking
def test_unplug_wakes_everybody_at_once(mute: UsbSerial, bare: Any, other: Any, name: str) -> None:
    call = BLOCKING[name]
    with somebody_before(name, mute, other):
        callers = [other(call, mute) for _ in range(4)]
        spin(lambda: call.asleep(mute))
        bare.unplug()
        for caller in callers:
            assert isinstance(caller.end(), DeviceGone)


def test_every_call_after_an_unplug(mute: UsbSerial, bare: Any, until: Until) -> None:
    bare.unplug()
    until(lambda: mute.gone, "the hangup is seen")
    for name in ("read", "readexactly", "readline", "transact", "write", "flush"):
        with pytest.raises(DeviceGone) as caught:
            BLOCKING[name](mute)
        assert caught.value.errno == errno.ENODEV


def test_what_came_before_the_unplug_is_read_first(
    mute: UsbSerial, bare: Any, until: Until
) -> None:
    bare.push(b"one\ntwo")
    until(lambda: mute.stats().buffered == 7, "the bytes are here")
    bare.unplug()
    until(lambda: mute.gone, "the hangup is seen")
    assert mute.readline() == b"one\n"
    with pytest.raises(DeviceGone):
        mute.readline()
    assert mute.read() == b"two"
    with pytest.raises(DeviceGone):
        mute.read()


def test_an_unplug_gives_the_part_of_a_long_read_once(
    mute: UsbSerial, bare: Any, other: Any, until: Until
) -> None:
    bare.push(PATTERN[:3000])

    def pull() -> None:
        spin(lambda: mute.stats().received == 3000)
        bare.unplug()

    puller = other(pull)
    with pytest.raises(DeviceGone) as caught:
        mute.readexactly(5000, 20)
    puller.end()
    partial = caught.value.partial
    assert partial + b"".join(rest(mute)) == PATTERN[:3000]
    with pytest.raises(DeviceGone) as again:
        mute.read()
    assert again.value.partial == b"", "bytes that were given already are not given again"


def rest(driver: UsbSerial) -> Iterator[bytes]:
    while driver.stats().buffered:
        yield driver.read()


def test_unplug_while_throttled(bare: Any, opened: Callable[..., UsbSerial], until: Until) -> None:
    driver = opened(bare.path, fifo_size=64)
    bare.push(PATTERN[:1000])
    until(lambda: driver.stats().throttles, "throttled")
    bare.unplug()
    until(lambda: driver.gone, "the hangup is seen")
    assert driver.readexactly(64) == PATTERN[:64]
    with pytest.raises(DeviceGone) as caught:
        driver.read()
    assert caught.value.errno == errno.ENODEV


@without(Quirk.NO_WRITER_SLEEPS)
def test_unplug_wakes_a_writer_while_throttled(
    bare: Any, opened: Callable[..., UsbSerial], other: Any, until: Until
) -> None:
    driver = opened(bare.path, fifo_size=64)
    bare.push(PATTERN[:1000])
    until(lambda: driver.stats().throttles, "throttled")
    writer = other(driver.write, bytes(1 << 20))
    spin(lambda: len(driver.tx_room.wait_queue))
    bare.unplug()
    writer.join(20)
    assert isinstance(writer.result, DeviceGone)


# Ctrl-C


@contextmanager
def ctrl_c_when(condition: Callable[[], object], other: Any) -> Iterator[None]:
    """A real SIGINT for the process, as soon as ``condition()``; the block must end with it."""

    def press() -> None:
        spin(condition)
        os.kill(os.getpid(), signal.SIGINT)

    finger = other(press)
    with pytest.raises(KeyboardInterrupt):
        yield
    finger.end()


@each_blocking
def test_ctrl_c_ends_the_call_and_nothing_else(
    mute: UsbSerial, bare: Any, other: Any, name: str
) -> None:
    call = BLOCKING[name]
    with somebody_before(name, mute, other):
        with ctrl_c_when(lambda: call.asleep(mute), other):
            call(mute)
        if name == "flush":
            del mute.port.transmitter_empty
        if not name.startswith("turn"):
            heard = bare.heard(mute.stats().written)
            assert len(heard) == mute.stats().written, "what was written is counted, and left"
            bare.push(b"still here\n")
            assert mute.readline(5) == b"still here\n"
            assert mute.write(b"ping", 5) == 4
            mute.flush(5)
            assert bare.heard(4) == b"ping"


@pytest.mark.parametrize("name", ["readexactly", "readline"])
def test_ctrl_c_keeps_what_came(mute: UsbSerial, bare: Any, other: Any, name: str) -> None:
    bare.push(b"abc")
    call = BLOCKING[name]
    with ctrl_c_when(lambda: mute.stats().buffered == 3 and call.asleep(mute), other):
        call(mute)
    bare.push(b"defghi\n")
    assert mute.readexactly(10, 5) == b"abcdefghi\n"


def test_ctrl_c_in_a_long_read_keeps_what_came(mute: UsbSerial, bare: Any, other: Any) -> None:
    bare.push(PATTERN[:3000])

    def press() -> None:
        spin(lambda: mute.stats().received == 3000 and len(mute.rx_ready.wait_queue))
        os.kill(os.getpid(), signal.SIGINT)

    finger = other(press)
    with pytest.raises(KeyboardInterrupt) as caught:
        mute.readexactly(5000)
    finger.end()
    kept = getattr(caught.value, "partial", b"")
    assert kept + b"".join(rest(mute)) == PATTERN[:3000]


def test_a_signal_handler_that_returns_ends_no_call(mute: UsbSerial, bare: Any, other: Any) -> None:
    hits: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda signum, frame: hits.append(signum))

    def knock() -> None:
        for count in range(1, 4):
            spin(lambda: len(mute.rx_ready.wait_queue))
            os.kill(os.getpid(), signal.SIGUSR1)
            spin(lambda count=count: len(hits) == count)
        bare.push(b"x")

    try:
        knocker = other(knock)
        assert mute.read(timeout=20) == b"x"
        knocker.end()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(hits) == 3


UDRIVER = os.path.join("udriver", "")
CALLS = {"CALL", "CALL_FUNCTION_EX", "CALL_KW"}


class CtrlC:
    """Raises KeyboardInterrupt at the n-th place in udriver where CPython looks for signals.

    Those are: after a call into C, at the start of a frame, at a jump back.
    """

    def __init__(self, nth: int) -> None:
        self.left = nth
        self.where = ""
        self._called: FrameType | None = None
        self._start = False

    def __call__(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "call":
            self._called = None  # into Python: no check when that returns
            if UDRIVER not in frame.f_code.co_filename or frame.f_code.co_name == "__del__":
                return None
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
            self._start = True
        elif event == "opcode":
            name = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            looks = self._called is frame or name.startswith("JUMP_BACKWARD")
            before = name in ("RESUME", "COPY_FREE_VARS", "MAKE_CELL", "RETURN_GENERATOR")
            looks = looks or (self._start and not before)
            self._called = frame if name in CALLS else None
            self._start = self._start and before
            self.left -= looks
            if looks and self.left == 0:
                self.where = f"{frame.f_code.co_qualname}:{frame.f_lineno}"
                raise KeyboardInterrupt
        return self


def cut(nth: int, call: Callable[[], object]) -> str:
    """Run ``call`` with a Ctrl-C at the n-th place; where that was, or "" behind the last."""
    finger = CtrlC(nth)
    try:
        sys.settrace(finger)  # inside: an interrupt's handler may be cut before the call begins
        call()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    return finger.where


def works(driver: UsbSerial, number: int) -> bool:
    """Whether bytes still go round."""
    token = b"<%d>" % number
    received = b""
    try:
        driver.write(token, 1)
        while token not in received:
            received += driver.read(timeout=1)
    except (Timeout, DeviceGone):
        return False
    return True


def usable_after_any_cut(path: str, irq: str) -> Iterator[str]:
    """Where a Ctrl-C in a transaction made the driver useless."""
    nth = 0
    more = True
    while more:
        with UsbSerial.open(path, irqchip=irq) as driver:
            while more:
                nth += 1
                where = cut(nth, lambda: driver.transact(b"ping", 4, 5))
                more = bool(where)
                if not works(driver, nth):
                    yield f"place {nth}, in {where}"
                    break
    assert nth > 30


@cuts_at_each_place
def test_ctrl_c_anywhere_leaves_the_driver_usable(udriver_device: Any, udriver_irq: str) -> None:
    assert in_child(lambda: first_few(usable_after_any_cut(udriver_device.path, udriver_irq))) == ""


READS: dict[str, Callable[[UsbSerial], bytes]] = {
    "read": lambda driver: driver.read(timeout=5),
    "readexactly": lambda driver: driver.readexactly(5, 5),
    "readline": lambda driver: driver.readline(5),
    "transact": lambda driver: driver.transact(b"?", 5, 5),
    "readexactly long": lambda driver: driver.readexactly(5, 5),
}


def lost_in_any_cut(device: Any, irq: str, name: str) -> Iterator[str]:
    """Where a Ctrl-C in a read lost bytes, or left them uncounted."""
    size = 4 if name == "readexactly long" else 64
    step = 5 if os.environ.get("UDRIVER_IN_VM") else 1  # each on a pty; a round trip there is long
    with UsbSerial.open(device.path, irqchip=irq, fifo_size=size) as driver:
        for nth in itertools.count(1, step):
            before = driver.stats().read
            device.push(b"ping\n")
            while driver.in_waiting < 5:
                time.sleep(0.0001)  # in virtual time, none passes while somebody spins
            came: list[bytes] = []

            def call(came: list[bytes] = came) -> None:
                try:
                    came.append(READS[name](driver))
                except KeyboardInterrupt as exc:
                    came.append(getattr(exc, "partial", b""))
                    raise

            where = cut(nth, call)
            try:
                while len(b"".join(came)) < 5:
                    came.append(driver.read(timeout=1))
            except Timeout:
                pass
            counted = driver.stats().read - before
            if (b"".join(came), counted) != (b"ping\n", 5):
                yield f"place {nth}, in {where}: {came}, {counted} counted"
            if not where:
                break
    assert nth > 20


@cuts_at_each_place
@pytest.mark.parametrize("name", READS)
def test_ctrl_c_anywhere_in_a_read_loses_nothing(bare: Any, udriver_irq: str, name: str) -> None:
    assert in_child(lambda: first_few(lost_in_any_cut(bare, udriver_irq, name))) == ""


def open_after_any_cut(path: str, irq: str) -> Iterator[str]:
    """Where a Ctrl-C in close() left something that a second close() did not do."""
    more = True
    where = "none"
    for nth in itertools.count(1):
        try:
            driver = UsbSerial.open(path, irqchip=irq)
        except Busy as exc:
            yield f"place {nth - 1}, in {where}: {exc}"
            return
        driver.write(b"x", 5)
        where = cut(nth, driver.close)
        more = bool(where)
        driver.close()
        if driver.port._serial.is_open or driver.chip._sources:
            yield f"place {nth}, in {where}"
            return  # the chip is not as it was: what follows says nothing
        if not more:
            return


@pytest.mark.udriver_unchecked("cuts at each place of the driver, not of the checker")
@pytest.mark.slow
def test_ctrl_c_anywhere_in_close_leaves_a_close_to_do(
    udriver_device: Any, udriver_irq: str
) -> None:
    assert in_child(lambda: first_few(open_after_any_cut(udriver_device.path, udriver_irq))) == ""


def restored_after_any_cut(path: str) -> Iterator[str]:
    """Where a Ctrl-C while a port is opened left its settings changed.

    The fd itself is CPython's to lose, between os.open() and whoever it is given to.
    """
    keeper = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    found = termios.tcgetattr(keeper)
    ports: list[Port] = []
    for nth in itertools.count(1):
        where = cut(nth, lambda: ports.append(Port(path, exclusive=False)))
        while ports:
            ports.pop().close()  # it came between Port() and us, or not at all
        if not where:
            break
        if termios.tcgetattr(keeper) != found:
            yield f"place {nth}, in {where}"
    assert nth > 30


@traces_opcodes
@pytest.mark.slow
def test_ctrl_c_anywhere_in_open_leaves_the_settings(udriver_device: Any) -> None:
    assert in_child(lambda: first_few(restored_after_any_cut(udriver_device.path))) == ""


def first_few(bad: Iterator[str]) -> str:
    """A sentence about them; each may have cost seconds."""
    return "; ".join(itertools.islice(bad, 4))


# closing


@blocking("turn to read", "turn to write", "turn to flush")
def test_close_from_another_thread_wakes_the_call(mute: UsbSerial, other: Any, name: str) -> None:
    call = BLOCKING[name]
    keeper = IRQCHIPS[mute.chip.name]  # its handler is given back on the main thread only
    far, fd = os.openpty()
    irq = keeper.attach(fd, "keeper")
    with somebody_before(name, mute, other):

        def close() -> None:
            spin(lambda: call.asleep(mute))
            mute.close()

        closer = other(close)
        with pytest.raises(DeviceGone, match="was closed"):
            call(mute)
        assert closer.end() is None
    keeper.detach(irq)
    os.close(far)
    os.close(fd)


def test_close_wakes_a_call_on_another_thread(mute: UsbSerial, other: Any) -> None:
    caller = other(mute.read)
    spin(lambda: len(mute.rx_ready.wait_queue))
    mute.close()
    assert isinstance(caller.end(), DeviceGone)


def test_the_last_close_may_be_on_another_thread(
    bare: Any, udriver_irq: str, other: Any, request: pytest.FixtureRequest
) -> None:
    # should it fail, it fails alone
    request.addfinalizer(lambda: signal.signal(signal.SIGURG, signal.SIG_DFL))
    driver = UsbSerial.open(bare.path, irqchip=udriver_irq)
    assert other(driver.close).end() is None
    with UsbSerial.open(bare.path, irqchip=udriver_irq) as again:
        bare.push(b"x")
        assert again.read(timeout=5) == b"x"


def test_close_may_be_repeated_and_the_counts_stay(driver: UsbSerial) -> None:
    assert driver.transact(b"abc", 3, 5) == b"abc"
    driver.close()
    driver.close()
    stats = driver.stats()
    assert (stats.received, stats.read, stats.written) == (3, 3, 3)
    assert stats.irq.count >= 1
    with pytest.raises(DeviceGone, match="was closed"):
        driver.read()


def test_opened_again_and_again(udriver_device: Any, opened: Callable[..., UsbSerial]) -> None:
    for _ in range(5):
        driver = opened(udriver_device.path)
        assert driver.transact(b"x", 1, 5) == b"x"
        driver.close()


@without(Quirk.ONE_DEVICE)
def test_two_drivers_at_once(udriver_device: Any, bare: Any, opened: Callable[..., Any]) -> None:
    a, b = opened(udriver_device.path), opened(bare.path)
    bare.push(b"for b")
    assert a.transact(b"for a", 5, 5) == b"for a"
    assert b.readexactly(5, 5) == b"for b"


@without(Quirk.ONE_DEVICE)
def test_an_unplugged_driver_leaves_the_other_one_alone(
    udriver_device: Any, bare: Any, opened: Callable[..., Any], until: Until
) -> None:
    a, b = opened(udriver_device.path), opened(bare.path)
    bare.unplug()
    until(lambda: b.gone, "b's hangup")
    b.close()
    assert a.transact(b"for a", 5, 5) == b"for a"


# fork


def in_child(body: Callable[[], str]) -> str:
    """What ``body`` says in a forked child; an exception is its text."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: there are threads
        pid = os.fork()
    if pid == 0:
        gc.freeze()  # a collection would go over, and so copy, all that the tests before left
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 40)
        try:
            said = body()
        except BaseException as exc:  # noqa: BLE001 - the parent looks at it
            said = f"{type(exc).__name__}: {exc}"
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    strays: list[int] = []
    found = signal.getsignal(signal.SIGURG)
    if found == signal.SIG_DFL:  # which would end us
        signal.signal(signal.SIGURG, lambda signum, frame: strays.append(signum))
    with open(reader, "rb") as pipe:
        said = pipe.read().decode()
    signal.signal(signal.SIGURG, found)
    assert strays == [], "the child's interrupts came to its parent"
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return said if status == 0 else f"ended with {status}; said {said!r}"


@pytest.mark.parametrize("name", ["read", "readexactly", "readline", "write", "flush", "transact"])
def test_a_child_is_refused_with_a_sentence(mute: UsbSerial, name: str) -> None:
    said = in_child(lambda: str(BLOCKING[name](mute)))
    assert said.startswith(UDriverError.__name__)
    assert "opened before fork()" in said


def test_the_parent_is_unharmed_by_a_child(driver: UsbSerial) -> None:
    assert driver.transact(b"before", 6, 5) == b"before"

    def child() -> str:
        driver.close()
        return "closed"

    assert in_child(child) == "closed"
    assert driver.transact(b"after!", 6, 5) == b"after!"
    with pytest.raises(OSError):  # noqa: PT011 - exclusivity is still on
        UsbSerial.open(driver.port.path)


@without(Quirk.ONE_DEVICE)
def test_a_child_may_open_a_port_of_its_own(mute: UsbSerial, bare: Any) -> None:
    def child() -> str:
        device = type(bare)()
        with UsbSerial.open(device.path, irqchip=mute.chip.name) as mine:
            device.push(b"mine")
            return mine.readexactly(4, 5).decode()

    assert in_child(child) == "mine"
    bare.push(b"parent's")
    assert mute.readexactly(8, 5) == b"parent's"


# many at once, and far away


@pytest.mark.slow
def test_several_readers_and_writers_each_byte_once(driver: UsbSerial, other: Any) -> None:
    frames, size = 150, 16

    def write(writer: int) -> None:
        for number in range(frames):
            driver.write(b"%02d:%06d" % (writer, number) + b"." * 6 + b"\n", 20)

    def read() -> list[bytes]:
        return [driver.readexactly(size, 20) for _ in range(frames)]

    readers = [other(read) for _ in range(3)]
    writers = [other(write, number) for number in range(3)]
    for writer in writers:
        assert writer.end() is None
    received = Counter(frame for reader in readers for frame in reader.end())
    assert received == {
        b"%02d:%06d......\n" % (writer, number): 1
        for writer in range(3)
        for number in range(frames)
    }


def test_an_fd_beyond_1023(udriver_device: Any, opened: Callable[..., UsbSerial]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1100:
        pytest.skip("RLIMIT_NOFILE allows no fd beyond 1023")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1100), hard))
    used: list[int] = []
    try:
        while not used or used[-1] < 1023:
            used.append(fcntl.fcntl(2, fcntl.F_DUPFD_CLOEXEC, 0))
        driver = opened(udriver_device.path)
        assert driver.port.fd >= 1024
        assert driver.transact(b"far away", 8, 5) == b"far away"
        driver.flush(5)
        driver.close()
    finally:
        for fd in used:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def storm(hertz: int) -> Iterator[list[int]]:
    """Signals for the main thread, from a timer; pytest-timeout's own timer is put back."""
    hits = [0]

    def hit(signum: int, frame: object) -> None:
        hits[0] += 1

    handler = signal.signal(signal.SIGALRM, hit)
    timer = signal.setitimer(signal.ITIMER_REAL, 1 / hertz, 1 / hertz)
    try:
        yield hits
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        time.sleep(0.1)  # one that another thread has taken, and not handled yet, is no timeout
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *timer)


@pytest.mark.slow
def test_a_storm_of_signals_changes_no_byte(driver: UsbSerial, other: Any) -> None:
    data = PATTERN * 4
    with storm(5000) as hits:
        writer = other(driver.write, data, 20)
        received = bytearray()
        while len(received) < len(data):
            received += driver.read(timeout=20)
        assert writer.end() == len(data)
    assert received == data
    assert hits[0] > 0


def test_a_negative_size_is_refused_and_takes_nothing(udriver_driver: UsbSerial) -> None:
    udriver_driver.write(b"hello", 1)
    for call in (udriver_driver.read, udriver_driver.readexactly):
        with pytest.raises(ValueError, match="-1 bytes"):
            call(-1, 1)
    assert udriver_driver.readexactly(5, 5) == b"hello"
    assert udriver_driver.read(0, 0) == b""
