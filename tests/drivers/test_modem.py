# SPDX-License-Identifier: MIT
"""Modem-line interrupts on a pty whose ioctls are played; real edges are in tests/vm/test_modem.py."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import signal
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest

from tests.drivers.conftest import BarePty, cuts_at_each_place, open_files
from tests.drivers.fake_lines import FakeLines
from tests.drivers.test_usbserial import cut, first_few, in_child
from udriver.drivers import capture, miwait, modem
from udriver.drivers.edges import LINES, Edge
from udriver.drivers.irqchip import IRQCHIPS
from udriver.drivers.port import Port
from udriver.drivers.usbserial import UsbSerial
from udriver.errors import DeviceGone, Timeout, UDriverError, Unsupported
from udriver.kernel import tracepoint
from udriver.kernel.completion import Completion, complete
from udriver.kernel.irq import (
    IRQ_HANDLED,
    IRQF_TRIGGER_FALLING,
    IRQF_TRIGGER_HIGH,
    IRQF_TRIGGER_RISING,
    IrqReturn,
    disable_irq,
    enable_irq,
    free_irq,
    irq_stat,
    request_irq,
)
from udriver.kernel.irqdesc import irq_to_desc

Until = Callable[[Callable[[], object], str], None]
BOTH = IRQF_TRIGGER_RISING | IRQF_TRIGGER_FALLING
HELPERS = {"irq/modem", "irq/modem-look"}


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLines]:
    with FakeLines(monkeypatch) as fake:
        yield fake


@pytest.fixture
def device() -> Iterator[BarePty]:
    with BarePty() as pty:
        yield pty


@pytest.fixture
def driver(lines: FakeLines, device: BarePty, udriver_irq: str) -> Iterator[UsbSerial]:
    with UsbSerial.open(device.path, irqchip=udriver_irq) as opened:
        yield opened


@pytest.fixture
def on_select(lines: FakeLines, device: BarePty) -> Iterator[UsbSerial]:
    """Where it does not matter on which thread interrupts land."""
    with UsbSerial.open(device.path, irqchip="select") as opened:
        yield opened


class Handler:
    """Takes a line's records; remembers them, and where it ran."""

    def __init__(self, driver: UsbSerial, line: str, flags: int = BOTH) -> None:
        self.driver = driver
        self.line = line
        self.records: list[Edge] = []
        self.threads: set[str] = set()
        self.runs = 0
        self.gone: list[bool] = []
        self.irq = driver.line_irq(line)
        request_irq(self.irq, self, flags, line, self)

    def __call__(self, irq: int, dev_id: object) -> IrqReturn:
        self.records += self.driver.modem.events(self.line)
        self.threads.add(threading.current_thread().name)
        self.gone.append(self.driver.gone)
        self.runs += 1
        return IRQ_HANDLED

    def free(self) -> None:
        free_irq(self.irq, self)

    @property
    def kinds(self) -> list[str]:
        return [record.edge for record in self.records]


def helpers() -> set[str]:
    return {thread.name for thread in threading.enumerate()} & HELPERS


# edges


@pytest.mark.parametrize("line", LINES)
def test_both_edges_of_each_line_interrupt(
    driver: UsbSerial, lines: FakeLines, line: str, until: Until
) -> None:
    handlers = {name: Handler(driver, name) for name in LINES}
    for number, level in enumerate((True, False, True), 1):
        lines.set(**{line: level})
        until(lambda: len(handlers[line].records) == number, f"edge {number} of {line}")  # noqa: B023
    for handler in handlers.values():
        handler.free()
    records = handlers[line].records
    assert [(r.line, r.edge, r.seqno, r.line_seqno, r.missed) for r in records] == [
        (line, "rising", 1, 1, 0),
        (line, "falling", 2, 2, 0),
        (line, "rising", 3, 3, 0),
    ]
    assert [r.timestamp_ns for r in records] == sorted(r.timestamp_ns for r in records)
    assert all(r.error_ns > 0 for r in records)
    assert sum(handler.runs for handler in handlers.values()) == 3, "other lines stay quiet"


def test_they_land_where_the_driver_s_interrupts_land(
    driver: UsbSerial, lines: FakeLines, until: Until
) -> None:
    handler = Handler(driver, "cts")
    lines.set(cts=True)
    until(lambda: handler.runs, "the edge")
    handler.free()
    expected = {"signal": "MainThread", "select": "irq/select", "inline": "MainThread"}
    assert handler.threads == {expected[driver.chip.name]}


def test_the_main_thread_learns_of_an_edge_in_a_wait_for_anything(
    lines: FakeLines, device: BarePty
) -> None:
    """The kernel sends no SIGIO for an edge; ours comes while we sleep for something else."""
    seen = Completion("seen")

    def isr(irq: int, dev_id: object) -> IrqReturn:
        complete(seen)
        return IRQ_HANDLED

    with UsbSerial.open(device.path, irqchip="signal") as driver:
        request_irq(driver.line_irq("dcd"), isr, 0, "dcd", driver)
        timer = threading.Timer(0.02, lines.set, kwargs={"dcd": True})
        timer.start()
        seen.wait(20)
        timer.join()
        free_irq(driver.line_irq("dcd"), driver)


@pytest.mark.parametrize(
    ("flags", "kinds", "numbers"),
    [
        (IRQF_TRIGGER_RISING, ["rising", "rising"], [1, 2]),
        (IRQF_TRIGGER_FALLING, ["falling", "falling"], [1, 2]),
        (BOTH, ["rising", "falling", "rising", "falling"], [1, 2, 3, 4]),
        (0, ["rising", "falling", "rising", "falling"], [1, 2, 3, 4]),
    ],
    ids=["rising", "falling", "both", "none said"],
)
def test_only_the_edges_that_were_asked_for(
    on_select: UsbSerial,
    lines: FakeLines,
    flags: int,
    kinds: list[str],
    numbers: list[int],
    until: Until,
) -> None:
    handler = Handler(on_select, "dsr", flags)
    for number, level in enumerate((True, False, True, False), 1):
        lines.set(dsr=level)
        until(lambda: on_select.modem.edges["dsr"] == number, "the edge is seen")  # noqa: B023
    until(lambda: len(handler.records) == len(kinds), "all records")
    handler.free()
    assert handler.kinds == kinds
    assert [record.line_seqno for record in handler.records] == numbers


def test_edges_too_close_to_tell_apart_are_counted(
    on_select: UsbSerial, lines: FakeLines, until: Until
) -> None:
    handler = Handler(on_select, "cts")
    rising = Handler(on_select, "ri", IRQF_TRIGGER_RISING)
    with on_select.modem._capture._looking:  # type: ignore[union-attr]
        for _ in range(3):
            lines.set(cts=True, ri=True)
            lines.set(cts=False, ri=False)
        lines.set(cts=True)
    until(lambda: handler.records and rising.records, "the records")
    handler.free()
    rising.free()
    (cts,), (ri,) = handler.records, rising.records
    assert (cts.edge, cts.line_seqno, cts.missed) == ("rising", 7, 6)
    assert (ri.edge, ri.line_seqno, ri.missed) == ("rising", 3, 2)
    assert on_select.modem.edges == {"cts": 7, "dsr": 0, "dcd": 0, "ri": 6}


def test_an_edge_between_the_look_and_the_wait_is_not_lost(
    on_select: UsbSerial, lines: FakeLines, until: Until
) -> None:
    """TIOCMIWAIT compares with what it finds on entry: only a second look can see this one."""
    handler = Handler(on_select, "cts")
    until(lambda: lines.sleeps, "it waits")  # else cts may be set at its entry, and wake nobody
    for number in range(1, 9):
        entries = lines.entries
        lines.before_entry.append(lambda: lines.set(dcd=not lines.level & LINES["dcd"]))
        lines.set(cts=bool(number % 2))
        until(lambda: on_select.modem.edges["dcd"] == number, "the edge nobody woke for")  # noqa: B023
        assert lines.entries == entries + 1, "and the waiting thread did not"
    until(lambda: len(handler.records) == 8, "the others")
    handler.free()


def test_where_proc_does_not_tell_who_waits_it_is_found_all_the_same(
    on_select: UsbSerial, lines: FakeLines, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "is_inside", lambda tid, fd: None)
    handler = Handler(on_select, "cts")
    until(lambda: lines.sleeps, "it waits")  # else cts may be set at its entry, and wake nobody
    lines.before_entry.append(lambda: lines.set(dcd=True))
    lines.set(cts=True)
    until(lambda: on_select.modem.edges["dcd"] == 1, "the edge nobody woke for")
    handler.free()
    assert helpers() == set()


def test_an_interrupt_that_comes_while_the_last_handler_is_freed_is_handled(
    on_select: UsbSerial, lines: FakeLines, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A demultiplexer that cannot lower its line any more would be run as fast as the CPU goes."""
    handler = Handler(on_select, "cts")
    irq, stop, spurious = on_select.modem._irq, capture.Capture.stop, []

    def late(found: capture.Capture) -> None:
        before = irq_stat(irq)
        enable_irq(irq)
        until(lambda: irq_stat(irq).count > before.count, "the interrupt")
        spurious.append(irq_stat(irq).spurious)
        stop(found)

    monkeypatch.setattr(capture.Capture, "stop", late)
    disable_irq(irq)
    lines.set(cts=True)
    until(lambda: on_select.modem.edges["cts"], "the edge")
    handler.free()
    assert spurious == [0]
    assert helpers() == set()


def test_a_level_that_is_ahead_of_its_counter_is_one_edge(
    on_select: UsbSerial, lines: FakeLines, until: Until
) -> None:
    """TIOCMGET asks the chip, the counters have what it sent: the edge is told once, and right."""
    handler = Handler(on_select, "cts")
    late = lines.counts.copy()

    def catch_up() -> None:
        lines.counts.update(late)

    lines.set(cts=True)
    until(lambda: handler.kinds == ["rising"], "the first")
    late = lines.counts | {"cts": 2}
    lines.level ^= LINES["cts"]  # low already, not counted yet
    timer = threading.Timer(0.01, catch_up)
    timer.start()
    lines.set(dsr=True)  # something else makes the driver look
    until(lambda: on_select.modem.edges["dsr"] == 1, "the look")
    timer.join()
    lines.set(cts=True)
    until(lambda: on_select.modem.edges["cts"] == 3, "the next")
    until(lambda: sum(1 + record.missed for record in handler.records) == 3, "all")
    handler.free()
    assert handler.kinds[-1] == "rising"


def test_an_edge_that_the_kernel_does_not_count_turns_nothing_round(
    on_select: UsbSerial, lines: FakeLines, until: Until
) -> None:
    """RI of an 8250: of its two edges one is counted, and by its count alone it would be a rise."""
    handler = Handler(on_select, "ri")
    for number in range(1, 4):
        lines.level |= LINES["ri"]
        lines.set(ri=False)
        until(lambda: len(handler.records) == number, "the edge that is counted")  # noqa: B023
    handler.free()
    assert handler.kinds == ["falling"] * 3


def test_while_edges_keep_coming_their_count_is_right(
    on_select: UsbSerial, lines: FakeLines, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TIOCMGET is ahead of the counters all the time, and they do not stand still."""
    # so long that this thread, which moves them, is not itself kept from it for as long
    monkeypatch.setattr(capture, "STILL_NS", 300_000_000)
    handler = Handler(on_select, "cts")

    def ahead(port: object) -> int:
        return lines._modem_lines() ^ LINES["cts"]

    with monkeypatch.context() as while_moving:
        while_moving.setattr("udriver.drivers.port.Port.modem_lines", ahead)
        end = time.monotonic() + 20
        while not handler.records:
            lines.set(cts=not lines.level & LINES["cts"])
            time.sleep(0.001)
            assert time.monotonic() < end
    until(lambda: on_select.modem.edges["cts"] == lines.counts["cts"], "all are seen")
    handler.free()
    for earlier, later in pairwise(handler.records):
        assert (earlier.edge != later.edge) == (later.missed % 2 == 0)
    first = handler.records[0]
    assert (first.edge == "rising") == (first.missed % 2 == 0)
    assert sum(1 + record.missed for record in handler.records) == lines.counts["cts"]


def test_records_that_nobody_takes_are_dropped_oldest_first_and_counted(
    on_select: UsbSerial, lines: FakeLines, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modem, "QUEUE", 4)
    irq = on_select.line_irq("cts")
    request_irq(irq, lambda irq, dev_id: IRQ_HANDLED, 0, "cts", lines)
    for number in range(1, 8):
        lines.set(cts=bool(number % 2))
        until(lambda: on_select.modem.edges["cts"] == number, "the edge")  # noqa: B023
    left = on_select.modem.events("cts")
    free_irq(irq, lines)
    assert [record.seqno for record in left] == [4, 5, 6, 7]
    assert on_select.modem.overflows == 3


def test_a_disabled_line_keeps_its_edges(
    on_select: UsbSerial, lines: FakeLines, until: Until
) -> None:
    handler = Handler(on_select, "cts")
    disable_irq(handler.irq)
    lines.set(cts=True)
    until(lambda: on_select.modem.edges["cts"] == 1, "the edge is seen")
    assert handler.runs == 0
    enable_irq(handler.irq)
    until(lambda: handler.kinds == ["rising"], "it is told")
    handler.free()


def test_trace_shows_an_edge(on_select: UsbSerial, lines: FakeLines, until: Until) -> None:
    handler = Handler(on_select, "ri")
    with tracepoint.recording() as events:
        lines.set(ri=True)
        until(lambda: handler.runs, "the edge")
    handler.free()
    subject = f"{on_select.port.name} ri"
    told = [(event.name, event.subject) for event in events]
    assert told.index(("modem_edge", subject)) < told.index(("irq_handler_entry", "ri"))
    error = handler.records[0].error_ns
    assert [e.values for e in events if e.name == "modem_edge"] == [("rising", 1, error)]


# what a line refuses


def test_a_pty_has_no_modem_lines(device: BarePty) -> None:
    with UsbSerial.open(device.path, irqchip="select") as driver:
        with pytest.raises(
            Unsupported, match=r"^/dev/pts/\d+ has no modem lines; .*a pty has none$"
        ):
            driver.line_irq("cts")
        with pytest.raises(Unsupported, match="has no modem lines"):
            driver.wait_modem_lines(termios.TIOCM_CTS, timeout=1)
        assert helpers() == set()


def test_a_name_that_is_none(on_select: UsbSerial) -> None:
    with pytest.raises(ValueError, match="one of cts, dsr, dcd, ri, not 'dtr'"):
        on_select.line_irq("dtr")


def test_a_level_is_no_edge(on_select: UsbSerial) -> None:
    with pytest.raises(ValueError, match="cts interrupts on edges only"):
        request_irq(on_select.line_irq("cts"), lambda i, d: IRQ_HANDLED, IRQF_TRIGGER_HIGH, "x", 1)
    assert helpers() == set()


def test_a_number_stays_the_same_and_tells_its_method(on_select: UsbSerial) -> None:
    handler = Handler(on_select, "cts")
    assert on_select.line_irq("cts") == handler.irq
    assert irq_stat(handler.irq).chip == on_select.modem.method == "TIOCMIWAIT"
    handler.free()
    assert on_select.modem.method is None


@pytest.mark.parametrize("counters", ["count", "stand still", "are not there"])
def test_where_tiocmiwait_is_not_the_lines_are_polled(
    on_select: UsbSerial, lines: FakeLines, counters: str, until: Until
) -> None:
    lines.waits, lines.counted = False, counters != "are not there"
    lines.moves = counters == "count"  # else as cp210x's
    handler = Handler(on_select, "dcd")
    moments = []
    for number, level in enumerate((True, False), 1):
        before = time.monotonic_ns()
        lines.set(dcd=level)
        moments.append((before, time.monotonic_ns()))
        until(lambda: len(handler.records) == number, "the edge")  # noqa: B023
    assert on_select.modem.method == "polling"
    handler.free()
    assert handler.kinds == ["rising", "falling"]
    for record, (before, after) in zip(handler.records, moments, strict=True):
        # it lies between two looks, and the error bar reaches back to the first of them
        assert record.timestamp_ns - record.error_ns <= after
        assert before <= record.timestamp_ns


def test_an_idle_line_asks_the_chip_nothing(
    on_select: UsbSerial, lines: FakeLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For ftdi_sio TIOCMGET is a transfer on the USB; the counters are in memory."""
    monkeypatch.setattr(capture, "is_inside", lambda tid, fd: None)
    monkeypatch.setattr(capture, "BLIND_WINDOW", capture.WINDOW)
    handler = Handler(on_select, "dcd")
    before = lines.looks
    time.sleep(10 * capture.WINDOW)
    assert lines.looks == before
    handler.free()


# cdc_acm, which counts a ring as often as it is told of it, and wakes nobody at its end


def test_the_end_of_a_ring_that_wakes_nobody_is_polled_for(
    on_select: UsbSerial, lines: FakeLines, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Port, "driver", "cdc_acm")
    other = Handler(on_select, "dsr")
    handler = Handler(on_select, "ri")  # the capture runs already, and begins to poll
    for number in range(1, 4):
        lines.set(ri=True)
        until(lambda: len(handler.records) == 2 * number - 1, "the ring")  # noqa: B023
        lines.counts["rng"] += 1  # as with each message
        lines.set(dsr=bool(number & 1))
        lines.level &= ~LINES["ri"]
        until(lambda: len(handler.records) == 2 * number, "its end")  # noqa: B023
    until(lambda: len(other.records) == 3, "the other line")
    handler.free()
    other.free()
    assert handler.kinds == ["rising", "falling"] * 3
    assert [record.missed for record in handler.records] == [0] * 6
    assert other.kinds == ["rising", "falling", "rising"]


def test_without_a_request_for_ri_nobody_polls(
    on_select: UsbSerial, lines: FakeLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Port, "driver", "cdc_acm")
    handler = Handler(on_select, "dcd")
    before = lines.looks
    time.sleep(10 * capture.WINDOW)
    assert lines.looks <= before + 1  # the second look behind the waiting thread's entry
    handler.free()


def test_a_line_that_a_driver_has_not_is_refused(
    on_select: UsbSerial, lines: FakeLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Port, "driver", "cdc_acm")
    with pytest.raises(Unsupported, match="cdc_acm has no CTS"):
        on_select.line_irq("cts")
    assert on_select.line_irq("dcd") > 0
    with pytest.raises(Unsupported, match="cdc_acm has no CTS"):
        on_select.wait_modem_lines(termios.TIOCM_CTS | termios.TIOCM_RTS, timeout=0.05)


def test_of_several_lines_one_that_is_there_is_enough(
    on_select: UsbSerial,
    lines: FakeLines,
    monkeypatch: pytest.MonkeyPatch,
    other: Any,
    until: Until,
) -> None:
    monkeypatch.setattr(Port, "driver", "cdc_acm")
    waiter = other(on_select.wait_modem_lines, miwait.INPUTS, 20)
    until(lambda: lines.entries, "it waits")
    lines.set(dsr=True)
    assert waiter.end() & termios.TIOCM_DSR


# the end


def test_free_irq_ends_both_threads(driver: UsbSerial, lines: FakeLines) -> None:
    for _ in range(20):
        handlers = [Handler(driver, "cts"), Handler(driver, "ri")]
        assert helpers() == HELPERS
        handlers.pop().free()
        assert helpers() == HELPERS
        handlers.pop().free()
        assert helpers() == set()


def held_after_any_cut(path: str) -> Iterator[str]:
    """Where a Ctrl-C in request_irq() left something of a line that then has no handler."""

    def handler(irq: int, dev_id: object) -> IrqReturn:
        return IRQ_HANDLED

    with UsbSerial.open(path, irqchip="select") as driver:
        irq = driver.line_irq("cts")
        for nth in itertools.count(1):
            where = cut(nth, lambda: request_irq(irq, handler, 0, "cts", driver))
            if not where:
                break
            if helpers() or driver.modem._holders or irq_to_desc(irq).actions:
                yield f"place {nth}, in {where}"
        free_irq(irq, driver)
    assert nth > 100


@cuts_at_each_place
def test_ctrl_c_anywhere_in_a_request_leaves_nothing(lines: FakeLines, device: BarePty) -> None:
    assert in_child(lambda: first_few(held_after_any_cut(device.path))) == ""


def held_after_any_cut_of_a_wait(path: str) -> Iterator[str]:
    """Where a Ctrl-C in a wait that times out left something of it."""
    with UsbSerial.open(path, irqchip="select") as driver:
        for nth in itertools.count(1):
            try:
                where = cut(nth, lambda: driver.wait_modem_lines(termios.TIOCM_CTS, timeout=0))
            except Timeout:
                break
            if helpers() or driver.modem._holders or driver.modem._waiters:
                yield f"place {nth}, in {where}"
    assert nth > 200


@cuts_at_each_place
def test_ctrl_c_anywhere_in_a_wait_leaves_nothing(lines: FakeLines, device: BarePty) -> None:
    assert in_child(lambda: first_few(held_after_any_cut_of_a_wait(device.path))) == ""


@pytest.mark.parametrize("signal_first", [False, True])
def test_a_kick_arrives_though_the_signal_irqchip_came_and_went(
    on_select: UsbSerial, lines: FakeLines, until: Until, *, signal_first: bool
) -> None:
    """Both use SIGURG, and the irqchip puts the default back, which ends no ioctl."""
    with BarePty() as second:
        with UsbSerial.open(second.path, irqchip="signal"):
            if signal_first:
                handler = Handler(on_select, "cts")
        if not signal_first:
            handler = Handler(on_select, "cts")
            UsbSerial.open(second.path, irqchip="signal").close()
        until(lambda: lines.entries, "it waits")
        handler.free()
    assert helpers() == set()


def test_a_close_on_top_of_who_has_the_lines_ends_with_that(
    on_select: UsbSerial, until: Until
) -> None:
    """As a signal handler's is, in the middle of a request: to wait for the end would be for ever."""
    with on_select.modem._setup:
        on_select.close()
        with pytest.raises(DeviceGone):
            on_select.read(1)
    until(lambda: on_select._closed, "the end")


def test_stop_ends_if_ctrl_c_came_between_the_kick_s_handler_and_its_flag(
    device: BarePty, lines: FakeLines, until: Until, other: Any
) -> None:
    """Without the flag the kernel begins the call again, and nobody comes out of it."""
    port = Port(device.path)
    miwait._libc().siginterrupt(miwait.kick_signal(), 0)
    both = capture.Capture(port, list, list, list, int)
    until(lambda: lines.entries, "it waits")
    assert other(both.stop).end() is None
    assert helpers() == set()
    port.close()


def test_free_irq_on_another_thread(driver: UsbSerial, lines: FakeLines, other: Any) -> None:
    handler = Handler(driver, "cts")
    assert other(handler.free).end() is None
    assert helpers() == set()


def test_a_kick_that_comes_too_early_comes_again(
    on_select: UsbSerial, lines: FakeLines, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    """One that arrives just before the system call has no effect on it."""
    handler = Handler(on_select, "cts")
    until(lambda: lines.entries, "it waits")
    kicks: list[int] = []
    kill = signal.pthread_kill

    def lossy(ident: int, signum: int) -> None:
        kicks.append(signum)
        if len(kicks) > 3:
            kill(ident, signum)

    monkeypatch.setattr(capture.signal, "pthread_kill", lossy)
    handler.free()
    assert len(kicks) > 3
    assert helpers() == set()


def test_stop_ends_whatever_became_of_the_second_look(
    device: BarePty, lines: FakeLines, monkeypatch: pytest.MonkeyPatch, until: Until, other: Any
) -> None:
    reported: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: reported.append(args.exc_type))

    def no_memory(tid: int, fd: int) -> bool:
        raise MemoryError

    monkeypatch.setattr(capture, "is_inside", no_memory)
    port = Port(device.path)
    both = capture.Capture(port, list, list, list, int)
    until(lambda: reported, "the second thread has failed")
    assert other(both.stop).end() is None
    assert set(reported) == {MemoryError}
    assert helpers() == set()
    port.close()


def test_edges_go_on_when_a_second_look_has_failed(
    on_select: UsbSerial, lines: FakeLines, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    reported: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: reported.append(args.exc_type))
    handler = Handler(on_select, "cts")

    def no_memory(tid: int, fd: int) -> bool:
        raise MemoryError

    with monkeypatch.context() as short:
        short.setattr(capture, "is_inside", no_memory)
        lines.before_entry.append(lambda: lines.set(dcd=True))
        lines.set(cts=True)
        until(lambda: reported, "the second thread has failed")
    until(lambda: on_select.modem.edges["dcd"] == 1, "the edge that only the second look sees")
    lines.set(cts=False)
    until(lambda: handler.kinds == ["rising", "falling"], "both")
    handler.free()
    assert helpers() == set()


@pytest.mark.parametrize("line", LINES)
def test_an_unplug_raises_the_line_once_more(
    driver: UsbSerial, lines: FakeLines, device: BarePty, line: str, until: Until
) -> None:
    handler = Handler(driver, line)
    device.unplug()
    lines.unplug()
    until(lambda: handler.runs, "the last interrupt")
    handler.free()
    assert (handler.runs, handler.gone, handler.records) == (1, [True], [])
    assert helpers() == set()
    assert driver.line_irq(line) == handler.irq
    with pytest.raises(DeviceGone):
        driver.line_irq("cts" if line == "ri" else "ri")
    with pytest.raises(DeviceGone):
        request_irq(handler.irq, handler, 0, line, handler)


def test_an_unplug_that_only_the_modem_lines_tell_of(
    driver: UsbSerial, lines: FakeLines, device: BarePty, until: Until
) -> None:
    """The driver's own line is raised, too, and so everybody learns of it."""
    handler = Handler(driver, "cts")
    driver.chip.irq_mask(driver.irq)  # from here on its irqchip is blind to the hangup
    device.unplug()
    lines.unplug()
    until(lambda: driver.gone, "the driver knows")
    handler.free()


@pytest.mark.parametrize("unplugged", [False, True], ids=["there", "unplugged"])
def test_close_with_a_handler_still_there(
    lines: FakeLines, device: BarePty, unplugged: bool, until: Until
) -> None:
    driver = UsbSerial.open(device.path, irqchip="select")
    handler = Handler(driver, "cts")
    driver.line_irq("ri")
    if unplugged:
        device.unplug()
        lines.unplug()
        until(lambda: handler.runs, "it is told")
    driver.close()
    assert helpers() == set()
    handler.free()
    with pytest.raises(ValueError, match="there is no irq"):
        irq_stat(handler.irq)


def test_the_kick_is_a_signal_that_does_nothing(lines: FakeLines, on_select: UsbSerial) -> None:
    """No Python handler runs for it, and what is sent when nobody waits any more is ignored."""
    before = {signum: signal.getsignal(signum) for signum in signal.valid_signals()}
    Handler(on_select, "cts").free()
    os.kill(os.getpid(), miwait.kick_signal())
    assert {signum: signal.getsignal(signum) for signum in signal.valid_signals()} == before


def test_a_handler_of_the_user_s_is_not_disturbed(lines: FakeLines, on_select: UsbSerial) -> None:
    ran: list[int] = []
    found = signal.signal(signal.SIGURG, lambda signum, frame: ran.append(signum))
    try:
        assert miwait.kick_signal() != signal.SIGURG
        for _ in range(5):
            Handler(on_select, "cts").free()
        assert ran == []
        signal.raise_signal(signal.SIGURG)
        assert ran == [signal.SIGURG]
    finally:
        signal.signal(signal.SIGURG, found)


def test_the_user_s_signals_do_not_end_the_wait(
    lines: FakeLines, on_select: UsbSerial, until: Until
) -> None:
    handler = Handler(on_select, "cts")
    until(lambda: lines.entries == 1, "it waits")
    found = signal.signal(signal.SIGUSR1, lambda signum, frame: None)
    try:
        waiter = next(thread for thread in threading.enumerate() if thread.name == "irq/modem")
        assert waiter.ident is not None
        signal.pthread_kill(waiter.ident, signal.SIGUSR1)
        lines.set(cts=True)
        until(lambda: handler.records and lines.entries > 1, "the edge, and the next wait")
    finally:
        signal.signal(signal.SIGUSR1, found)
    assert lines.entries == 2
    handler.free()


# a transfer that fails: the tty is there, and does not tell


@pytest.mark.parametrize("number", [errno.EPROTO, errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize("waits", [True, False], ids=["TIOCMIWAIT", "polling"])
def test_a_look_that_fails_loses_no_edge(
    on_select: UsbSerial, lines: FakeLines, waits: bool, number: int, until: Until
) -> None:
    """EIO is what the kernel makes of EPROTO, and is no hangup either."""
    lines.waits = waits
    handler = Handler(on_select, "cts")
    for count, level in enumerate((True, False, True), 1):
        lines.fails = [number] * 3 + [0]
        lines.set(cts=level)
        until(lambda: lines.fails == [0] and len(handler.records) == count, "the edge")  # noqa: B023
    handler.free()
    assert handler.kinds == ["rising", "falling", "rising"]
    assert (on_select.gone, on_select.modem.failure) == (False, None)


def test_wait_modem_lines_ends_in_time_if_one_fails(driver: UsbSerial, lines: FakeLines) -> None:
    lines.counted = lines.waits = False  # so that each look asks
    lines.fails = [0] * 5 + [errno.EPROTO, 0]
    with pytest.raises(Timeout, match=r"no modem line changed within 0\.1 s"):
        driver.wait_modem_lines(termios.TIOCM_CTS, timeout=0.1)
    assert lines.fails == [0]
    assert not driver.gone


def test_who_waits_is_told_if_they_keep_failing(
    driver: UsbSerial,
    lines: FakeLines,
    other: Any,
    until: Until,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(capture, "PATIENCE", 0.02)
    handler = Handler(driver, "cts")
    waiter = other(driver.wait_modem_lines, termios.TIOCM_CTS)
    until(lambda: driver.modem._waiters, "it waits")
    lines.fails = [errno.EPROTO]
    lines.set(cts=True)
    told = waiter.end()
    assert type(told) is UDriverError
    assert "does not tell of its modem lines (Protocol error); ask again" in str(told)
    assert isinstance(told.__cause__, OSError)
    assert told.__cause__.errno == errno.EPROTO
    with pytest.raises(UDriverError, match="does not tell"):
        driver.modem_lines()
    assert not driver.gone
    lines.fails = []
    until(lambda: driver.modem.failure is None and handler.runs, "it tells again")
    assert handler.kinds == ["rising"]
    lines.set(cts=False)
    until(lambda: handler.kinds == ["rising", "falling"], "and goes on")
    handler.free()


def test_a_device_that_is_away_before_its_tty_is_gone(
    driver: UsbSerial, lines: FakeLines, other: Any, until: Until
) -> None:
    """ENODEV, while poll() on the tty still knows of nothing."""
    lines.waits = False
    waiter = other(driver.wait_modem_lines, termios.TIOCM_CTS)
    until(lambda: driver.modem._waiters and driver.modem.method == "polling", "it waits")
    lines.fails = [errno.ENODEV]
    lines.set(cts=True)
    assert isinstance(waiter.end(), DeviceGone)
    assert driver.gone
    assert helpers() == set()


def test_no_descriptor_to_be_had_leaves_nothing_behind(lines: FakeLines, driver: UsbSerial) -> None:
    """Whichever open is the one that fails: that of the pipe, or one of the capture's."""
    irq = driver.line_irq("cts")
    Handler(driver, "cts").free()  # what is made once is there
    found = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = open_files()
    lowest = os.dup(0)
    os.close(lowest)
    refused = 0
    try:
        for limit in range(lowest, found[0]):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, found[1]))
            try:
                request_irq(irq, lambda irq, dev_id: IRQ_HANDLED, 0, "cts", lines)
            except OSError as exc:
                refused += exc.errno == errno.EMFILE
            else:
                break
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, found)
            assert open_files() == before
            assert helpers() == set()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, found)
    free_irq(irq, lines)
    assert refused >= 3
    assert helpers() == set()


# one thread requests, another waits or closes


def test_a_request_and_a_wait_do_not_wait_for_each_other(
    on_select: UsbSerial, lines: FakeLines, other: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One has the line and wants the capture, the other has the capture and wants a line for it."""
    irq = on_select.line_irq("cts")
    waiting, requesting = threading.Event(), threading.Event()
    attach, resources = on_select.chip.attach, on_select.modem.irq_request_resources

    def attach_late(fd: int, name: str) -> int:
        waiting.set()
        assert requesting.wait(20)
        return attach(fd, name)

    def ask(irq: int) -> None:
        requesting.set()
        resources(irq)

    monkeypatch.setattr(on_select.chip, "attach", attach_late)
    monkeypatch.setattr(on_select.modem, "irq_request_resources", ask)
    waiter = other(on_select.wait_modem_lines, termios.TIOCM_CTS, timeout=0.01)
    assert waiting.wait(20)
    requester = other(request_irq, irq, lambda irq, dev_id: IRQ_HANDLED, 0, "cts", lines)
    assert (type(waiter.end()), requester.end()) == (Timeout, None)
    free_irq(irq, lines)
    assert helpers() == set()


def test_requests_and_waits_all_the_time(
    on_select: UsbSerial, lines: FakeLines, other: Any
) -> None:
    irq = on_select.line_irq("cts")

    def request() -> int:
        for _ in range(200):
            request_irq(irq, lambda irq, dev_id: IRQ_HANDLED, 0, "cts", lines)
            free_irq(irq, lines)
        return 200

    def wait() -> int:
        for _ in range(200):
            with pytest.raises(Timeout):
                on_select.wait_modem_lines(termios.TIOCM_CTS, timeout=0)
        return 200

    found = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # so that each is stopped where the other can meet it
    try:
        loops = [other(request), other(wait)]
        assert [loop.end() for loop in loops] == [200, 200]
    finally:
        sys.setswitchinterval(found)
    assert helpers() == set()


def test_close_while_the_last_handler_is_freed(
    on_select: UsbSerial, lines: FakeLines, other: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = Handler(on_select, "cts")
    drop = on_select.modem._drop
    closing = []

    def drop_late(who: object) -> None:
        closing.append(other(on_select.close))
        closing[0].join(0.1)  # time to forget the line in
        drop(who)

    monkeypatch.setattr(on_select.modem, "_drop", drop_late)
    handler.free()
    assert closing[0].end() is None
    assert (on_select.modem._lines, helpers()) == ({}, set())


def test_a_handler_may_ask_for_a_number_while_the_driver_closes(
    on_select: UsbSerial, lines: FakeLines, other: Any, until: Until
) -> None:
    """close() holds the lines' lock, and waits for the handler."""
    entered, on = threading.Event(), threading.Event()
    asked: list[int] = []

    def isr(irq: int, dev_id: object) -> IrqReturn:
        entered.set()
        assert on.wait(20)
        asked.append(on_select.line_irq("cts"))
        return IRQ_HANDLED

    irq = on_select.line_irq("cts")
    request_irq(irq, isr, 0, "cts", lines)
    lines.set(cts=True)
    assert entered.wait(20)
    pipe = irq_to_desc(on_select.modem._irq)
    closing = other(on_select.close)
    until(lambda: pipe.idle_waiters, "close() waits for the handler")
    on.set()
    assert closing.end() is None
    free_irq(irq, lines)
    assert asked == [irq]


# wait_modem_lines()


def test_wait_modem_lines_sees_only_what_it_was_asked(
    driver: UsbSerial, lines: FakeLines, other: Any, until: Until
) -> None:
    waiter = other(driver.wait_modem_lines, termios.TIOCM_RI, timeout=20)
    until(lambda: lines.entries, "it waits")
    lines.set(cts=True)
    until(lambda: driver.modem.edges["cts"] == 1, "another line")
    assert waiter.is_alive()
    lines.set(ri=True)
    assert waiter.end() == termios.TIOCM_CTS | termios.TIOCM_RI
    assert helpers() == set()


def test_wait_modem_lines_beside_a_handler(
    driver: UsbSerial, lines: FakeLines, other: Any, until: Until
) -> None:
    handler = Handler(driver, "cts")
    waiters = [other(driver.wait_modem_lines, termios.TIOCM_CTS, timeout=20) for _ in range(3)]
    until(lambda: len(driver.modem._waiters) == 3, "they wait")
    lines.set(cts=True)
    assert [waiter.end() for waiter in waiters] == [termios.TIOCM_CTS] * 3
    until(lambda: handler.kinds == ["rising"], "the handler, too")
    handler.free()


def test_the_level_it_gives_is_of_the_last_edge(
    on_select: UsbSerial, lines: FakeLines, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not what TIOCMGET said when it began, if the edge came before the wait."""
    handler = Handler(on_select, "ri")

    def overtaken() -> int:
        level = lines.level
        lines.set(cts=True)
        until(lambda: on_select.modem.edges["cts"] == 1, "the edge")
        return level

    monkeypatch.setattr(on_select, "modem_lines", overtaken)
    assert on_select.wait_modem_lines(termios.TIOCM_CTS, timeout=20) == termios.TIOCM_CTS
    handler.free()


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_wait_modem_lines_refuses_a_timeout_that_is_none(
    on_select: UsbSerial, timeout: float
) -> None:
    with pytest.raises(ValueError, match="timeout is a number of seconds >= 0"):
        on_select.wait_modem_lines(termios.TIOCM_CTS, timeout)


@pytest.mark.parametrize("mask", [0, termios.TIOCM_DTR | termios.TIOCM_RTS])
def test_wait_modem_lines_refuses_what_never_changes(on_select: UsbSerial, mask: int) -> None:
    with pytest.raises(ValueError, match=f"is CTS, DSR, CD or RI, and in {mask:#x} is none"):
        on_select.wait_modem_lines(mask, timeout=20)


def test_wait_modem_lines_times_out(driver: UsbSerial, lines: FakeLines) -> None:
    with pytest.raises(Timeout, match=r"no modem line changed within 0\.02 s"):
        driver.wait_modem_lines(termios.TIOCM_CTS, timeout=0.02)
    assert helpers() == set()


@pytest.mark.parametrize("end", ["unplug", "close"])
def test_wait_modem_lines_ends_with_the_device(
    driver: UsbSerial, lines: FakeLines, device: BarePty, other: Any, end: str, until: Until
) -> None:
    waiter = other(driver.wait_modem_lines, termios.TIOCM_CTS)
    until(lambda: lines.entries, "it waits")
    if end == "close":
        driver.close()
    else:
        device.unplug()
        lines.unplug()
    assert isinstance(waiter.end(), DeviceGone)
    assert helpers() == set()


def test_in_a_child_the_parent_s_lines_are_not_touched(
    on_select: UsbSerial, lines: FakeLines, until: Until
) -> None:
    handler = Handler(on_select, "cts")
    child = os.fork()
    if not child:
        status = 1
        try:
            handler.free()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    lines.set(cts=True)
    until(lambda: handler.kinds == ["rising"], "the parent has its edge")
    handler.free()


def test_every_irqchip_is_here() -> None:
    assert set(IRQCHIPS) == {"signal", "select", "inline"}
