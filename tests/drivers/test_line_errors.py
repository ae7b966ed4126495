# SPDX-License-Identifier: MIT
r"""Line errors through the driver on a pty; real ones are in tests/vm/test_modem.py.

A pty writes no mark of its own, so the tests write them: once the driver is open they clear PARMRK, and
what the device then sends comes through as a tty would have marked it. Counters are played.
"""

from __future__ import annotations

import itertools
import os
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from tests.drivers.conftest import traces_opcodes
from udriver.drivers.irqchip import IRQCHIPS
from udriver.drivers.line_errors import LineError
from udriver.drivers.port import Icount, Port
from udriver.drivers.usbserial import UsbSerial
from udriver.errors import DeviceGone, Timeout, Unsupported
from udriver.kernel import tracepoint
from udriver.kernel.irq import generic_handle_irq
from udriver_hw.loopback import Loopback

Until = Callable[[Callable[[], object], str], None]
NOTHING = dict.fromkeys(Icount.__dataclass_fields__, 0)
MARKING = termios.INPCK | termios.PARMRK


class Marking:
    """A device whose tty marks what the test says it does."""

    def __init__(self, device: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
        self.device = device
        self.counts: dict[str, int] | None = NOTHING.copy()
        monkeypatch.setattr(Port, "icount", lambda port: self.counts and Icount(**self.counts))

    def open(self, **options: Any) -> UsbSerial:
        driver = UsbSerial.open(self.device.path, line_errors=True, **options)
        attributes = termios.tcgetattr(driver.port.fd)
        assert attributes[0] & MARKING == MARKING
        attributes[0] &= ~MARKING
        termios.tcsetattr(driver.port.fd, termios.TCSANOW, attributes)
        return driver

    def send(self, raw: bytes, **counted: int) -> None:
        """These bytes, and so many errors of each kind that the kernel counted by then."""
        for name, count in counted.items():
            assert self.counts is not None
            self.counts[name] += count
        self.device.push(raw)


@pytest.fixture
def device() -> Iterator[Loopback]:
    with Loopback() as loopback:
        yield loopback


@pytest.fixture
def marking(device: Loopback, monkeypatch: pytest.MonkeyPatch) -> Marking:
    return Marking(device, monkeypatch)


def summary(errors: list[LineError]) -> list[tuple[str, int, int | None]]:
    return [(error.kind, error.position, error.byte) for error in errors]


def test_without_errors_all_bytes_come_through(device: Loopback, udriver_irq: str) -> None:
    """255 among them, which the tty writes twice."""
    data = bytes(range(256)) * 40
    with UsbSerial.open(device.path, irqchip=udriver_irq, line_errors=True) as driver:
        assert driver.transact(data, len(data), timeout=20) == data
        stats = driver.stats()
        assert (stats.received, stats.read, stats.buffered) == (len(data), len(data), 0)
        assert driver.line_errors is not None
        assert driver.line_errors.take() == []


@pytest.mark.parametrize(
    ("counted", "raw", "data", "told"),
    [
        ({"parity": 1}, b"ab\xff\0Xcd", b"abXcd", [("parity", 2, ord("X"))]),
        ({"frame": 1}, b"ab\xff\0Xcd", b"abXcd", [("framing", 2, ord("X"))]),
        ({"frame": 1}, b"ab\xff\0\0cd", b"ab\0cd", [("framing", 2, 0)]),
        ({"brk": 1}, b"ab\xff\0\0cd", b"abcd", [("break", 2, None)]),
        ({"overrun": 1}, b"abcd", b"abcd", [("overrun", 4, None)]),
        ({"buf_overrun": 1}, b"abcd", b"abcd", [("overrun", 4, None)]),
    ],
    ids=["parity", "framing", "framing of a zero", "break", "overrun", "buf_overrun"],
)
def test_each_kind_is_told_once(
    marking: Marking,
    udriver_irq: str,
    counted: dict[str, int],
    raw: bytes,
    data: bytes,
    told: list[tuple[str, int, int | None]],
) -> None:
    with marking.open(irqchip=udriver_irq) as driver:
        marking.send(raw, **counted)
        assert driver.readexactly(len(data), timeout=20) == data
        assert summary(driver.wait_line_errors(timeout=20)) == told
        errors = driver.line_errors
        assert errors is not None
        assert sum(errors.seen.values()) == sum(errors.counted.values()) == 1
        assert errors.seen[told[0][0]] == errors.counted[told[0][0]] == 1  # type: ignore[index]
        with pytest.raises(Timeout, match=r"no line error within 0\.01 s"):
            driver.wait_line_errors(timeout=0.01)
        assert driver.stats().received == len(data)


def test_errors_come_in_the_order_of_the_stream(marking: Marking, until: Until) -> None:
    with marking.open(irqchip="select") as driver:
        at = 0
        for kind, name in [("break", "brk"), ("parity", "parity"), ("framing", "frame")] * 5:
            byte = b"\0" if kind == "break" else b"\xff"
            marking.send(b"data\xff\0" + byte, **{name: 1})
            at += 4 + (kind != "break")
            until(lambda: driver.stats().received == at, "it is drained")  # noqa: B023
        assert driver.line_errors is not None
        told = driver.line_errors.take()
        assert [error.kind for error in told] == ["break", "parity", "framing"] * 5
        positions = [error.position for error in told]
        assert positions[:4] == [4, 8, 13, 18]
        assert positions == sorted(positions)
        data = driver.readexactly(at)
        assert all(data[error.position] == 0xFF for error in told if error.byte is not None)
        assert data.replace(b"\xff", b"") == b"data" * 15


def test_two_kinds_that_come_at_once_are_not_guessed(marking: Marking, until: Until) -> None:
    with marking.open(irqchip="select") as driver:
        marking.send(b"\xff\0A\xff\0B", parity=1, frame=1)
        assert driver.readexactly(2, timeout=20) == b"AB"
        told = driver.wait_line_errors(timeout=20)
        assert summary(told) == [("parity or framing", 0, 65), ("parity or framing", 1, 66)]
        marking.send(b"\xff\0C", frame=1)  # and afterwards all is clear again
        assert driver.readexactly(1, timeout=20) == b"C"
        assert summary(driver.wait_line_errors(timeout=20)) == [("framing", 2, 67)]


def test_a_mark_that_is_cut_in_two_wakes_nobody_early(marking: Marking, until: Until) -> None:
    with marking.open(irqchip="select") as driver:
        for piece in (b"a\xff", b"\0", b"Xb\xff"):
            marking.send(piece, **({"parity": 1} if piece == b"a\xff" else {}))
            until(lambda: driver.port.in_waiting() == 0, "it is taken")
        until(lambda: len(driver.fifo) == 3, "what is whole is there")
        marking.send(b"\xff")
        assert driver.readexactly(4, timeout=20) == b"aXb\xff"
        assert summary(driver.wait_line_errors(timeout=20)) == [("parity", 1, ord("X"))]


def test_without_counters_a_zero_is_a_break(marking: Marking) -> None:
    marking.counts = None
    with marking.open(irqchip="select") as driver:
        marking.send(b"a\xff\0\0\xff\0X")
        assert driver.readexactly(2, timeout=20) == b"aX"
        told = driver.wait_line_errors(timeout=20)
        assert summary(told) == [("break", 1, None), ("parity or framing", 1, ord("X"))]


def test_what_is_counted_and_not_marked_stays_visible(marking: Marking, until: Until) -> None:
    """cdc_acm counts parity errors and marks none."""
    with marking.open(irqchip="select") as driver:
        marking.send(b"abc", parity=2)
        assert driver.readexactly(3, timeout=20) == b"abc"
        errors = driver.line_errors
        assert errors is not None
        assert (errors.counted["parity"], errors.seen["parity"], errors.take()) == (2, 0, [])


@pytest.mark.parametrize("on_full", ["throttle", "drop"])
def test_a_full_kfifo(marking: Marking, udriver_irq: str, on_full: Any, until: Until) -> None:
    raw = b"0123456789abcde\xff\0Xf\xff\xff" * 100
    data = b"0123456789abcdeXf\xff" * 100
    with marking.open(irqchip=udriver_irq, fifo_size=64, on_full=on_full) as driver:
        assert marking.counts is not None
        marking.counts["parity"] += 100
        marking.send(raw)
        if on_full == "throttle":
            assert driver.readexactly(len(data), timeout=20) == data
        else:
            until(lambda: driver.stats().received == len(data), "all is drained")
            assert driver.read() == data[:64]
        errors = driver.line_errors
        assert errors is not None
        assert [error.position for error in errors.take()] == list(range(15, len(data), 18))
        stats = driver.stats()
        assert stats.received == stats.read + stats.dropped + stats.buffered == len(data)


def test_all_that_was_received_is_thrown_away(marking: Marking, until: Until) -> None:
    """A byte more than the kfifo's size, too: of a mark that was none."""
    with marking.open(irqchip="select", fifo_size=4) as driver:
        for nth, raw in enumerate((b"abc", b"\xff", b"d"), 1):
            marking.send(raw)
            until(lambda: driver.stats().drains == nth, "it is drained")  # noqa: B023
        assert driver.stats().buffered == 5
        assert driver.reset_input_buffer() == 5
        assert driver.stats().buffered == 0
        marking.send(b"efgh")
        assert driver.readexactly(4, 5) == b"efgh"


def test_as_much_as_the_kfifo_holds_can_be_waited_for(marking: Marking) -> None:
    with marking.open(irqchip="inline", fifo_size=16) as driver:
        marking.send(b"x" * 40)
        assert driver.readexactly(driver.fifo.size, timeout=20) == b"x" * driver.fifo.size
        assert driver.readexactly(40 - driver.fifo.size, timeout=20) == b"x" * (
            40 - driver.fifo.size
        )


def test_a_break_alone_wakes_who_waits_for_one(
    marking: Marking, udriver_irq: str, other: Any, until: Until
) -> None:
    with marking.open(irqchip=udriver_irq) as driver:
        waiter = other(driver.wait_line_errors, timeout=20)
        until(lambda: waiter.is_alive(), "it waits")
        marking.send(b"\xff\0\0", brk=1)
        assert summary(waiter.end()) == [("break", 0, None)]
        assert driver.in_waiting == 0


def test_an_unplug_ends_the_wait_for_one(
    marking: Marking, udriver_irq: str, device: Loopback, other: Any
) -> None:
    with marking.open(irqchip=udriver_irq) as driver:
        waiter = other(driver.wait_line_errors)
        device.unplug()
        assert isinstance(waiter.end(), DeviceGone)


def test_events_that_nobody_takes_are_dropped_oldest_first(
    marking: Marking, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    monkeypatch.setattr("udriver.drivers.line_errors.QUEUE", 3)
    with marking.open(irqchip="select") as driver:
        marking.send(b"\xff\0A" * 5, parity=5)
        assert driver.readexactly(5, timeout=20) == b"AAAAA"
        errors = driver.line_errors
        assert errors is not None
        until(lambda: errors.overflows == 2, "all are told")
        assert [error.position for error in errors.take()] == [2, 3, 4]


def test_a_million_overruns_make_no_more_events_than_the_queue_holds(
    marking: Marking, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are made in hardirq, and the counter is a C int: an adapter may say anything."""
    made: list[int] = []

    def counting(*fields: Any) -> LineError:
        made.append(1)
        return LineError(*fields)

    monkeypatch.setattr("udriver.drivers.line_errors.LineError", counting)
    monkeypatch.setattr("udriver.drivers.line_errors.QUEUE", 8)
    with marking.open(irqchip="inline") as driver:
        marking.send(b"a\xff\0Xb", overrun=1_000_000, parity=1)
        assert driver.readexactly(3, timeout=20) == b"aXb"
        errors = driver.line_errors
        assert errors is not None
        assert summary(errors.take()) == [("overrun", 3, None)] * 8
        assert errors.overflows == 1_000_001 - 8
        assert errors.seen["overrun"] == errors.counted["overrun"] == 1_000_000
        assert len(made) == 2


# a signal handler that raises on top of the ISR


class Cut(BaseException):
    """What the handler raises: as KeyboardInterrupt."""


class OrdinaryCut(Exception):
    """Or this, which the core takes for the ISR's own: it does not run it again."""


SWEPT = ("line_errors.py", "marked_kfifo.py", "parmrk.py", "kfifo.py")


class CutAt:
    """Raises before the n-th bytecode of the way from the tty to the queues."""

    def __init__(self, nth: int, cut: type[BaseException]) -> None:
        self.left = nth
        self.cut = cut
        self.where = ""

    def __call__(self, frame: FrameType, event: str, arg: object) -> Any:
        code = frame.f_code
        if event == "call":
            frame.f_trace_opcodes = True
            swept = code.co_filename.endswith(SWEPT)
            return self if swept or code.co_name in ("_drain", "_account", "_filled") else None
        if event == "opcode" and not self.where:
            self.left -= 1
            if self.left == 0:
                self.where = f"{code.co_qualname}:{frame.f_lineno} +{frame.f_lasti}"
                raise self.cut
        return self


@traces_opcodes
@pytest.mark.parametrize(
    ("line_errors", "on_full"), [(True, "throttle"), (True, "drop"), (False, "throttle")]
)
@pytest.mark.parametrize("kind", [Cut, OrdinaryCut])
def test_wherever_the_isr_is_cut_short_nothing_is_lost_or_doubled(
    marking: Marking,
    line_errors: bool,
    on_full: Any,
    kind: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("udriver.drivers.line_errors.QUEUE", 2)
    monkeypatch.setattr(sys, "unraisablehook", lambda args: None)
    raw, data = b"ab\xff\0Xcd\xff\xff\xff\0\0ef", b"abXcd\xffef"
    told = [("break", 6, None), ("overrun", 8, None)]  # and a parity error, too many for the queue
    options: dict[str, Any] = {"irqchip": "inline", "on_full": on_full, "fifo_size": 16}
    if on_full == "drop":
        options["fifo_size"] = 4
    if line_errors:
        driver = marking.open(**options)
    else:
        driver, raw = UsbSerial.open(marking.device.path, **options), data
    errors = driver.line_errors
    wrong = []
    with driver:
        for nth in itertools.count(1):
            marking.send(raw, parity=1, brk=1, overrun=1)
            while driver.port.in_waiting() < len(raw):
                os.sched_yield()  # and no sleep, in which it would be taken
            cut = CutAt(nth, kind)
            sys.settrace(cut)
            try:
                generic_handle_irq(driver.irq)
            except Cut:
                pass
            finally:
                sys.settrace(None)
            if not cut.where:
                break
            if driver.port.in_waiting():
                generic_handle_irq(
                    driver.irq
                )  # cut short before the read: the level is still there
            stats = driver.stats()
            found: list[Any] = [stats.received, stats.dropped, stats.drains]
            found.append(driver.fifo.out_bytes(99))
            kept = data[: options["fifo_size"]]
            expected: list[Any] = [nth * 8, nth * (8 - len(kept)), nth, kept]
            if errors is not None:
                found += [list(errors.seen.values()), list(errors.counted.values())]
                found += [errors.overflows, summary(list(errors._events))]
                expected += [[nth, nth, 0, nth, 0], [nth, nth, 0, nth], 3 * nth - 2]
                expected.append([(kind, 8 * (nth - 1) + at, byte) for kind, at, byte in told])
            if found != expected:
                wrong.append(f"{cut.where}: {found} and not {expected}")
                break
    assert wrong == []
    assert nth > (300 if line_errors else 30)


# the end


def test_close_waits_for_who_waits_for_an_error(
    marking: Marking, other: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait raises the line if its level is asserted: of the fd, which will be another file's."""
    driver = marking.open(irqchip="select")
    there, on = threading.Event(), threading.Event()

    def resample(irq: int) -> None:
        there.set()
        assert on.wait(20)

    monkeypatch.setattr(driver.chip, "resample", resample)
    waiter = other(driver.wait_line_errors)
    assert there.wait(20)
    closing = other(driver.close)
    closing.join(0.1)  # time to be wrong in
    closed = not closing.is_alive()
    on.set()
    assert isinstance(waiter.end(), DeviceGone)
    assert closing.end() is None
    assert (closed, driver.inside) == (False, {})


@pytest.mark.parametrize("fails", ["the kfifo", "request_irq", "the counters", "the marking"])
def test_a_driver_that_does_not_come_up_leaves_the_termios(
    device: Loopback, fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The port is the caller's, who may open a driver without line errors on it."""

    def refuse(*args: Any) -> Any:
        raise PermissionError(fails)

    port = Port(device.path)
    found = termios.tcgetattr(port.fd)
    if fails == "request_irq":
        monkeypatch.setattr("udriver.drivers.usbserial.request_irq", refuse)
    elif fails == "the counters":
        monkeypatch.setattr(port, "icount", refuse)
    elif fails == "the marking":
        monkeypatch.setattr("udriver.drivers.line_errors._set_iflag", lambda port, iflag: None)
    try:
        with pytest.raises((ValueError, PermissionError, Unsupported)):
            UsbSerial(port, "select", line_errors=True, fifo_size=1 if fails == "the kfifo" else 64)
        assert termios.tcgetattr(port.fd) == found
        assert not IRQCHIPS["select"]._sources
    finally:
        port.close()


def test_it_is_refused_where_it_was_not_asked_for(device: Loopback) -> None:
    with UsbSerial.open(device.path, irqchip="select") as driver:
        assert driver.line_errors is None
        assert type(driver.fifo).__name__ == "Kfifo"
        with pytest.raises(Unsupported, match="line_errors=True"):
            driver.wait_line_errors()


def test_close_puts_the_termios_back(device: Loopback) -> None:
    fd = os.open(device.path, os.O_RDWR | os.O_NOCTTY)
    try:
        attributes = termios.tcgetattr(fd)
        attributes[0] = termios.IGNPAR | termios.BRKINT | termios.ICRNL
        termios.tcsetattr(fd, termios.TCSANOW, attributes)
        found = termios.tcgetattr(fd)
        with UsbSerial.open(device.path, irqchip="select", line_errors=True, exclusive=False):
            assert termios.tcgetattr(fd)[0] & (MARKING | termios.IGNPAR | termios.BRKINT) == MARKING
        assert termios.tcgetattr(fd) == found
    finally:
        os.close(fd)


def test_trace_shows_an_error(marking: Marking) -> None:
    with marking.open(irqchip="select") as driver, tracepoint.recording() as events:
        marking.send(b"ab\xff\0\0", brk=1)
        driver.wait_line_errors(timeout=20)
        told = [event for event in events if event.name == "line_error"]
        assert [(event.subject, event.values) for event in told] == [
            (driver.port.name, ("break", 2))
        ]
        assert told[0].context != "process"
