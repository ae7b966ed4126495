# SPDX-License-Identifier: MIT
"""The irqchip of a port's four modem lines: cts, dsr, dcd and ri, an edge each an interrupt.

The capture makes the records on its own thread, for DCD with a time of the kernel's if N_PPS is
attached. The interrupt that says so is handed to the irqchip of the driver by way of a pipe, and so
lands where all of the driver's interrupts land: ``signal`` on the main thread, ``select`` on the irq
thread, ``inline`` on whoever sleeps. From there a chained handler raises the line, as a gpio expander's
does. A pipe and not an eventfd, because an eventfd sends no SIGURG; and not the tty's own fd, because
the kernel sends none for an edge.

When the tty goes, TIOCMIWAIT says so, too: the driver's own line is raised, whose handler finds the
hangup, and then once more each line that is requested; ``driver.gone`` is true by then.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Literal

from udriver.drivers.capture import Capture, Found
from udriver.drivers.edges import LINES, Edge
from udriver.drivers.miwait import INPUTS
from udriver.drivers.pps import Pps
from udriver.errors import Timeout, Unsupported
from udriver.kernel import tracepoint
from udriver.kernel.annotation import completion_set_kind
from udriver.kernel.completion import Completion, complete, complete_all
from udriver.kernel.irq import (
    IRQ_HANDLED,
    IRQ_NONE,
    IRQF_TRIGGER_FALLING,
    IRQF_TRIGGER_RISING,
    IrqReturn,
    free_irq,
    generic_handle_irq,
    irq_alloc_desc,
    irq_free_desc,
    request_irq,
)

if TYPE_CHECKING:
    from udriver.drivers.usbserial import UsbSerial

__all__ = ["ModemLines"]

QUEUE = 1024  # records of one line that wait to be taken; the oldest go first
BOTH = IRQF_TRIGGER_RISING | IRQF_TRIGGER_FALLING
# USB PSTN 1.2, table 31 has no bit for CTS, and acm_tty_tiocmget() says it is on, always
NOT_THERE = {"cdc_acm": ("cts",)}


class _Line:
    """One line and its records."""

    def __init__(self, name: str, irq: int) -> None:
        self.name = name
        self.irq = irq
        self.records: deque[Edge] = deque()
        self.trigger = BOTH
        self.requested = False
        self.masked = True
        self.raised = False
        self.line_seqno = 0


class ModemLines:
    """The lines of ``driver``; ``driver.modem`` is the one of these that it has.

    ``overflows`` are records that were thrown away because nobody took them; ``edges`` all edges of each
    line that were seen or counted while anybody asked for any, whatever their kind. ``failure`` is
    what the tty answers when it does not tell of its lines, though it has not gone; None as a rule.
    """

    def __init__(self, driver: UsbSerial) -> None:
        self._driver = driver
        self._lines: dict[str, _Line] = {}
        self._by_irq: dict[int, _Line] = {}
        # Process context only. The order of all locks of an interrupt, outermost first:
        #   request_mutex of a modem line     request_irq() and free_irq() of the user's
        #   _setup                            asked for the line's resources, or by wait() and close()
        #   request_mutex of the pipe's line, or the driver's irqchip's own _setup
        # Each may be taken alone, and none under one that is further down. desc.busy is only ever tried.
        # stop() waits for the capture's threads under _setup: what they take, Capture._looking, is held by
        # no one who wants any of these. Handlers take none.
        self._setup = threading.RLock()
        self._holders: dict[object, int] = {}  # and the lines that each asks for
        self._capture: Capture | None = None
        self._pps: Pps | None = None
        self._pipe: tuple[int, int] | None = None
        self._irq = -1
        self._waiters: dict[Completion, None] = {}
        self._seqno = 0
        self.failure: OSError | None = None
        self._closed = False
        self._hung_up: OSError | None = None
        self.overflows = 0
        self.edges = dict.fromkeys(LINES, 0)

    # process context

    def irq(self, line: str) -> int:
        """The irq number of "cts", "dsr", "dcd" or "ri", for request_irq(); always the same one.

        Of its flags IRQF_TRIGGER_RISING and _FALLING say which edges; without either it is both. An
        edge is one that came after request_irq() returned. Raises ValueError for another name, and
        the first time Unsupported where the tty has no modem lines, or not this one, and DeviceGone.
        """
        if line not in LINES:
            raise ValueError(f"a modem line is one of {', '.join(LINES)}, not {line!r}")
        known = self._lines.get(line)
        if known is not None:
            return known.irq  # without a lock: a handler may ask, too
        self._refuse_if_not_there(line)
        with self._setup:
            if line not in self._lines:
                self._driver.modem_lines()
                irq = irq_alloc_desc(f"{self._driver.port.name} {line}", self)
                self._lines[line] = self._by_irq[irq] = _Line(line, irq)
            return self._lines[line].irq

    def _refuse_if_not_there(self, *lines: str) -> None:
        port = self._driver.port
        driver = port.driver
        if set(lines) <= set(NOT_THERE.get(driver, ())):
            raise Unsupported(
                f"{port.path}: {driver} has no {', '.join(lines).upper()}, no edge of it would "
                "ever come; use another line or another adapter"
            )

    def attach_pps(self) -> str:
        """Have the kernel itself note when DCD moves, until close(); give the source, as "pps0".

        Records of dcd then have its time and an ``error_ns`` of microseconds. Bytes that arrive at
        this moment may be lost: the tty changes its line discipline. Raises Unsupported where the
        kernel has no N_PPS or the tty no modem lines, and DeviceGone.
        """
        with self._setup:
            self._driver.modem_lines()
            if self._pps is None:
                self._pps = Pps(self._driver.port)
            return self._pps.name

    def wait(self, lines: int, deadline: float | None, timeout: float | None) -> int:
        """See UsbSerial.wait_modem_lines()."""
        if not lines & INPUTS:
            raise ValueError(f"a line to wait for is CTS, DSR, CD or RI, and in {lines:#x} is none")
        self._refuse_if_not_there(*(line for line, bit in LINES.items() if bit & lines))
        changed = Completion(f"modem lines of {self._driver.port.name}")
        completion_set_kind(changed, "condition")
        before = self._seen(lines)
        self._waiters[changed] = None
        try:
            capture = self._hold(changed, lines)
            while self._seen(lines) == before:
                self._check()
                left = None if deadline is None else deadline - time.monotonic()
                # looked at here, for ``changed`` may be complete for good
                if left is not None and left <= 0:
                    raise Timeout(
                        f"{self._driver.port.path}: no modem line changed within {timeout} s"
                    )
                try:
                    changed.wait(left)
                except TimeoutError:
                    pass
            return capture.lines.level
        finally:
            try:
                self._leave(changed)
            except BaseException:
                self._leave(changed)  # as in_turn()
                raise

    def _leave(self, who: Completion) -> None:
        self._waiters.pop(who, None)
        self._drop(who)

    def _check(self) -> None:
        """Raise what keeps edges from coming, if anything does."""
        if self._hung_up is not None:
            self._tell_driver(self._hung_up)
        if self._driver.gone:
            raise self._driver._loss()
        if self.failure is not None:
            raise self._driver._trouble(self.failure) from self.failure

    def _tell_driver(self, error: OSError) -> None:
        """The tty has gone: the driver's own line finds it, with the bytes that came before."""
        generic_handle_irq(self._driver.irq)
        if not self._driver.gone:  # ENODEV comes before the hangup
            self._driver._hangup(str(error.strerror))

    def _seen(self, lines: int) -> list[int]:
        return [self.edges[line] for line, bit in LINES.items() if bit & lines]

    def _hold(self, who: object, lines: int) -> Capture:
        """Capture edges for as long as anybody holds; ``lines`` are what is asked for."""
        with self._setup:
            self._driver.modem_lines()
            self.failure = None  # it tells of them again
            self._holders[who] = lines
            try:
                if self._capture is None:
                    self._capture = self._start()
                else:
                    self._capture.watch()
            except BaseException:
                self._drop(who)
                raise
            return self._capture

    def _drop(self, who: object) -> None:
        with self._setup:
            self._holders.pop(who, None)
            if not self._holders:
                self._stop()

    def _start(self) -> Capture:
        driver = self._driver
        self._pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        name = f"{driver.port.name} modem"
        irq = driver.chip.attach(self._pipe[0], name)
        try:
            request_irq(irq, self._demultiplex, 0, name, self)
        except BaseException:
            driver.chip.detach(irq)
            raise
        self._irq = irq
        try:
            return Capture(driver.port, self._report, self._failing, self._ended, self._watched)
        except Unsupported:
            raise
        except OSError as exc:
            if driver.port.is_gone(exc):
                driver._hangup(str(exc.strerror))
                raise driver._loss() from None
            raise

    def _watched(self) -> int:
        return sum(
            bit for bit in LINES.values() if any(bit & own for own in self._holders.copy().values())
        )

    def _stop(self) -> None:
        try:
            if self._capture is not None:
                try:
                    self._capture.stop()
                except BaseException:
                    self._capture.stop()
                    raise
                finally:
                    self._capture = None
        finally:
            irq, self._irq = self._irq, -1
            if irq >= 0:
                free_irq(irq, self)
                self._driver.chip.detach(irq)
            # last: a handler that finds no pipe cannot lower its line, and is run for ever
            pipe, self._pipe = self._pipe, None
            for fd in pipe or ():
                os.close(fd)

    def close(self) -> None:
        """The driver is being removed, its waiters woken. A handler that is still there stays quiet."""
        with self._setup:
            self._closed = True
            self._stop()
            if self._pps is not None:
                self._pps.close()
            for line in tuple(self._lines.values()):
                if not line.requested:  # else its free_irq() is still to come
                    self._forget(line)

    def is_mine(self) -> bool:
        """Whether this very thread requests, waits or ends, below the handler that asks."""
        return self._setup._is_owned()  # type: ignore[attr-defined, no-any-return]

    def _forget(self, line: _Line) -> None:
        del self._lines[line.name], self._by_irq[line.irq]
        irq_free_desc(line.irq)

    def abandon(self) -> None:
        """In a child: the threads are not here, and the pipe is the parent's."""
        self._setup = threading.RLock()
        pipe, self._pipe = self._pipe, None
        self._capture, self._irq, self._closed = None, -1, True
        for fd in pipe or ():
            os.close(fd)

    # struct irq_chip

    @property
    def name(self) -> str:
        """What irq_stat() calls the chip: the method."""
        return self.method or "modem"

    @property
    def method(self) -> str | None:
        """How edges are learned of: "TIOCMIWAIT" or "polling"; None while nobody asks for any.

        With cdc_acm it is TIOCMIWAIT, and polling for RI, whose end wakes nobody there.
        """
        capture = self._capture
        return None if capture is None else capture.method

    @property
    def error_ns(self) -> int | None:
        """How late a record's time is at most, as measured when the capture began."""
        capture = self._capture
        return None if capture is None else capture.error_ns

    def irq_request_resources(self, irq: int) -> None:
        """The line's first handler comes."""
        try:
            with self._setup:  # to the end: close() forgets lines that are not requested
                line = self._by_irq.get(irq)
                if line is None:
                    raise self._driver._loss()
                self._hold(line, LINES[line.name])
                line.trigger = BOTH
                line.records.clear()
                line.raised = False
                line.requested = True
        except BaseException:
            if irq in self._by_irq:
                self.irq_release_resources(irq)  # Ctrl-C may have come behind the last step
            raise

    def irq_release_resources(self, irq: int) -> None:
        """Its last is gone; returns when nothing waits for its edges any more."""
        with self._setup:
            line = self._by_irq[irq]
            line.requested = False
            self._drop(line)
            if self._closed:
                self._forget(line)

    def irq_set_type(self, irq: int, flow_type: int) -> None:
        """Which edges. Raises ValueError (-EINVAL) for a level: no tty tells when one begins."""
        if flow_type & ~BOTH:
            raise ValueError(f"{self._by_irq[irq].name} interrupts on edges only")
        self._by_irq[irq].trigger = flow_type

    def irq_mask(self, irq: int) -> None:
        """Raise it no more; edges are recorded all the same. Any context."""
        self._by_irq[irq].masked = True

    def irq_unmask(self, irq: int) -> None:
        """Raise it, at once if an edge came meanwhile. Any context."""
        line = self._by_irq[irq]
        line.masked = False
        if line.raised:
            self._interrupt()

    # the capture's threads

    def _report(self, found: Found) -> None:
        for edges, timestamp_ns, error_ns in found:
            self.edges[edges.line] += edges.count
            line = self._lines.get(edges.line)
            if line is None or not line.requested:
                continue
            rising, falling = (
                line.trigger & IRQF_TRIGGER_RISING,
                line.trigger & IRQF_TRIGGER_FALLING,
            )
            count, is_rising = edges.of_kind(bool(rising), bool(falling))
            if count:
                stamp = self._pps.stamp(is_rising) if self._pps and line.name == "dcd" else None
                if stamp is not None and stamp[0] <= timestamp_ns:
                    timestamp_ns, error_ns = stamp
                self._seqno += 1
                line.line_seqno += count
                number = self._seqno, line.line_seqno, count - 1
                edge: Literal["rising", "falling"] = "rising" if is_rising else "falling"
                self._put(line, Edge(line.name, edge, timestamp_ns, error_ns, *number))
        for waiter in tuple(self._waiters):
            complete(waiter)
        self._interrupt()

    def _put(self, line: _Line, edge: Edge) -> None:
        while len(line.records) >= QUEUE:
            try:
                line.records.popleft()
            except IndexError:
                break  # taken meanwhile
            self.overflows += 1
        line.records.append(edge)
        line.raised = True
        if tracepoint.ring is not None:
            subject = f"{self._driver.port.name} {line.name}"
            tracepoint.ring("modem_edge", subject, edge.edge, edge.line_seqno, edge.error_ns)

    def _failing(self, error: OSError | None) -> None:
        self.failure = error
        for waiter in tuple(self._waiters):
            complete(waiter)

    def _ended(self, error: OSError) -> None:
        self._hung_up = error
        for line in tuple(self._lines.values()):
            line.raised = line.requested
        self.wake()
        self._interrupt()

    def _interrupt(self) -> None:
        pipe = self._pipe
        if pipe is not None:
            try:
                os.write(pipe[1], b"!")
            except BlockingIOError:
                pass  # full: it is raised already

    # hardirq

    def _demultiplex(self, irq: int, dev_id: object) -> IrqReturn:
        pipe = self._pipe
        if pipe is None:
            return IRQ_NONE
        try:
            os.read(pipe[0], 4096)
        except BlockingIOError:
            pass  # cut short after the read: the lines that were raised still are
        if self._hung_up is not None:
            self._tell_driver(self._hung_up)
        for line in tuple(self._lines.values()):
            if line.raised and not line.masked:
                self._raise(line)
        return IRQ_HANDLED

    def _raise(self, line: _Line) -> None:
        line.raised = False
        try:
            generic_handle_irq(line.irq)
        except BaseException:  # a signal handler's, perhaps before the line had it
            line.raised = True
            raise

    # any context

    def wake(self) -> None:
        """The device is gone: let those who wait find that."""
        for waiter in tuple(self._waiters):
            complete_all(waiter)

    def events(self, line: str) -> list[Edge]:
        """Take the records of ``line``, oldest first; empty when there is none, or no such request.

        Any context, a handler's too. Two takers share them out.
        """
        taken: list[Edge] = []
        known = self._lines.get(line)
        while known is not None:
            try:
                taken.append(known.records.popleft())
            except IndexError:
                break
        return taken
