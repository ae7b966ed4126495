# SPDX-License-Identifier: MIT
"""THE driver: tty FIFO -> isr (hardirq) -> kfifo -> complete() -> reader (process context).

1. The ISR never waits. It drains the tty until there is no more, then completes.
2. Only the ISR puts bytes into the kfifo, only the one reader whose turn it is takes them out.
3. The ISR completes by state ("there are bytes"), so a run that was cut short is repaired by
   the next one; a reader looks at the kfifo again after each wait.
4. A device that is gone is gone for good: complete_all() on everything anybody waits for, once.
   Its bytes that were received are still read first.
5. A turn (read, write, flush) is a completion with one token, not a lock: who waits for it
   sleeps as any other waiter, and wakes when the device goes.
"""

from __future__ import annotations

import errno
import os
import select
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from operator import call
from typing import Any, Literal, Self, TypeVarTuple

from udriver.drivers.fd_irqchip import IN, OUT, FdIrqChip
from udriver.drivers.irqchip import IRQCHIPS
from udriver.drivers.line_errors import LineError, LineErrors
from udriver.drivers.marked_kfifo import MarkedKfifo
from udriver.drivers.modem import ModemLines
from udriver.drivers.port import Port
from udriver.drivers.realtime import Realtime, Recipe
from udriver.drivers.transmitter import Transmitter
from udriver.drivers.turn import in_turn, inside
from udriver.errors import DeviceGone, Timeout, UDriverError, Unsupported
from udriver.kernel import tracepoint
from udriver.kernel.annotation import completion_set_kind
from udriver.kernel.completion import (
    Completion,
    complete,
    complete_all,
    completion_done,
    wait_for_completion,
)
from udriver.kernel.irq import (
    IRQ_HANDLED,
    IRQ_NONE,
    IrqReturn,
    IrqStat,
    free_irq,
    irq_stat,
    request_irq,
)
from udriver.kernel.kfifo import Kfifo

__all__ = ["Stats", "UsbSerial"]

Ts = TypeVarTuple("Ts")
GONE = select.EPOLLHUP | select.EPOLLERR
RX = IN | GONE
# half a tty's buffer: behind a read of so many bytes there is more, if a stream is coming
MORE = 2048
MOST_READS = 64  # in one interrupt, as NAPI's weight: the chip's other lines wait meanwhile
# as KVM's halt_poll_ns: an answer that comes sooner costs less looked for than slept for, and one that
# does not is looked for again after 2, 4, 8 ... transactions
LOOK = 0.0001  # seconds
MOST_UNLOOKED = 1024
OnFull = Literal["throttle", "drop"]


@dataclass(frozen=True, slots=True)
class Stats:
    """What the driver counted since it was opened; bytes unless said otherwise.

    ``received`` came out of the tty: ``read`` of them were read, ``dropped`` were thrown away
    because the kfifo was full, ``buffered`` are still in it. ``discarded`` lay in the tty before.
    ``drains`` are the reads of the tty that gave something, in ``irq.count`` interrupts.
    """

    received: int
    read: int
    dropped: int
    buffered: int
    discarded: int
    written: int
    drains: int
    throttles: int
    high_water: int
    irq: IrqStat


class UsbSerial:
    """A driver on one port. ``irqchip`` is "signal", "select", "inline" or a chip of one's own.

    ``fifo_size`` in bytes is the kfifo's; ``on_full`` says what happens when it is full:
    ``throttle`` leaves the bytes in the tty, which then holds the device back, ``drop`` throws
    the newest away and counts them. ``line_errors`` has the tty mark breaks and broken bytes, which
    ``driver.line_errors`` then tells of. Timeouts are seconds per call, None for none.
    ``realtime=True``, or a Recipe of one's own, takes the steps of realtime.py until close();
    ``driver.realtime`` then says which of them took.

    If a read has taken bytes out when an exception ends it, KeyboardInterrupt included, they are in its
    ``partial``. After the device has gone every call raises DeviceGone. In asyncio, ``await driver.rx_ready``
    needs an irqchip that does not wait for a sleeping thread: select, or signal.
    """

    def __init__(
        self,
        port: Port,
        irqchip: str | FdIrqChip = "inline",
        *,
        fifo_size: int = 65536,
        on_full: OnFull = "throttle",
        realtime: bool | Recipe = False,
        line_errors: bool = False,
    ) -> None:
        if on_full not in ("throttle", "drop"):
            raise ValueError(f'on_full is "throttle" or "drop", not {on_full!r}')
        if isinstance(irqchip, str) and irqchip not in IRQCHIPS:
            raise ValueError(f"irqchip is one of {', '.join(IRQCHIPS)}, not {irqchip!r}")
        self.port = port
        self.chip = IRQCHIPS[irqchip] if isinstance(irqchip, str) else irqchip
        self._drop = on_full == "drop"
        self.line_errors = LineErrors(port) if line_errors else None
        self._marked: MarkedKfifo | None = None
        if self.line_errors is None:
            self.fifo = Kfifo(fifo_size)
        else:
            self.fifo = self._marked = MarkedKfifo(fifo_size, self.line_errors, drop=self._drop)
        self.rx_ready = Completion(f"rx_ready of {port.name}")
        self.tx_room = Completion(f"tx_room of {port.name}")
        self.tx_empty = Completion(f"tx_empty of {port.name}")
        self.unplugged = Completion(f"unplugged of {port.name}")
        self._read_turn = Completion(f"read turn of {port.name}")
        self._write_turn = Completion(f"write turn of {port.name}")
        self._gone: Exception | None = None
        self._rx_on = True
        self._tx_on = False
        self.inside: dict[int, int] = {}
        self.quiet = Completion(f"{port.name} quiet")
        self._dropped = self._drains = self._throttles = self._written = 0
        self._unlooked, self._next_unlooked = 0, 2
        self._scratch = memoryview(bytearray(4096))
        self._got: list[int] = []  # of a read that is not accounted for; it began with this:
        self._before = 0, 0, 0, False
        self._transmitter: Transmitter | None = None
        self._modem = ModemLines(self)
        self._closed = self._attached = False
        self._removed = Completion(f"{port.name} removed")
        self._remover: threading.Thread | None = None
        self._final_irq: IrqStat
        for event in (self.rx_ready, self.tx_room, self.tx_empty, self.unplugged, self.quiet):
            completion_set_kind(event, "condition")  # see rule 3
        for turn in (self._read_turn, self._write_turn):
            completion_set_kind(turn, "counted")  # see rule 5
        complete(self._read_turn)
        complete(self._write_turn)
        self.realtime: Realtime | None = None
        recipe = (realtime if isinstance(realtime, Recipe) else Recipe()) if realtime else None
        self._probe(recipe)

    @classmethod
    def open(cls, path: str | os.PathLike[str], **options: Any) -> Self:
        """Open ``path`` and bring the driver up on it; options of Port and UsbSerial together."""
        mine = {"irqchip", "fifo_size", "on_full", "line_errors", "realtime"}
        ports: list[Port] = []
        drivers: list[Self] = []
        try:
            # make and remember in one C call: a signal handler may raise between any two
            options_of_port = {key: options[key] for key in options if key not in mine}
            ports.extend(map(call, (partial(Port, path, **options_of_port),)))
            options_of_mine = {key: options[key] for key in options if key in mine}
            drivers.extend(map(call, (partial(cls, ports[0], **options_of_mine),)))
            return drivers[0]
        except BaseException:
            for driver in drivers:
                driver.close()
            for port in ports:
                port.close()
            raise

    def _probe(self, recipe: Recipe | None) -> None:
        """Undone as a whole if anything raises: a line that stays would read from the next file's fd."""
        self.irq = self.chip.attach(self.port.fd, self.port.name)
        self._attached = True
        taken: list[Realtime] = []
        try:
            if self.line_errors is not None:
                self.line_errors.mark()
            request_irq(self.irq, self.isr, 0, self.port.name, self)
            try:
                _open_drivers.add(self)
                _refuse_in_children()
                if recipe is not None:
                    # as in open()
                    taken.extend(map(Realtime, (recipe,), (self.chip.thread(),)))
                    self.realtime = taken[0]
            except BaseException:
                for each in taken:
                    each.stop()
                free_irq(self.irq, self)
                raise
        except BaseException:
            self._detach()
            if self.line_errors is not None:
                self.line_errors.unmark()
            raise

    def _detach(self) -> None:
        self._final_irq = irq_stat(self.irq)
        self._attached = False
        self.chip.detach(self.irq)
        _open_drivers.discard(self)

    def close(self) -> None:
        """Remove the driver: wake everybody with DeviceGone, end the line, restore the port.

        May be repeated. On the main thread Ctrl-C is held until it is done: half a close would
        leave a thread, a handler or a locked port behind. Called by a signal handler on top of a
        modem line's request, wait or end, it ends with that, and returns before.
        """
        if self._closed:
            return
        self._end(DeviceGone(f"{self.port.path} was closed"))
        if threading.current_thread() is not threading.main_thread():
            self._remove(threading.get_ident())
            return
        # no signal handler runs on another thread, and this wait is one that none of them ends
        if self._remover is None:
            self._remover = threading.Thread(
                target=self._remove, args=(threading.get_ident(),), name="remove", daemon=True
            )
        if self._remover.ident is None:
            try:
                self._remover.start()
            except RuntimeError:
                pass  # it was started, and Ctrl-C came before it ran
        if self.chip.is_mine() or self._modem.is_mine():
            return  # a handler's, on top of who has what the removal needs: it is done when that is
        wait_for_completion(self._removed)
        self._remover.join()

    def _remove(self, closer: int) -> None:
        with ExitStack() as steps:  # from the last to the first, each whatever becomes of another
            steps.callback(complete_all, self._removed)
            steps.callback(setattr, self, "_closed", True)
            steps.callback(self.port.close)
            steps.callback(self._detach)
            if self.realtime is not None:
                steps.callback(self.realtime.stop)  # while the chip still has its thread
            if self._transmitter is not None:
                steps.callback(self._transmitter.stop)
            steps.callback(free_irq, self.irq, self)
            steps.callback(self._modem.close)
            # nobody may still use the fd: its number will soon be another file's
            while any(ident != closer for ident in tuple(self.inside.values())):
                self.quiet.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<UsbSerial {self.port.path} irq={self.irq} {self.chip.name}>"

    # hardirq

    def isr(self, irq: int, dev_id: object) -> IrqReturn:
        """Drain the tty into the kfifo, say so; say when there is room to write.

        Context: Hardirq context.
        """
        try:
            status = self.chip.status(irq)
            got = bool(self._got)
            if status & OUT and self._tx_on:
                self._tx_on = False
                self._set_interest()
                complete(self.tx_room)
            if status & RX or got:
                self._drain(bool(status & GONE))
            # whatever the status is: the run before may have been cut short behind its drain
            if self.fifo.in_ != self.fifo.out and not completion_done(self.rx_ready):
                complete(self.rx_ready)
        except BaseException:
            self._cut_short()
            raise
        return IRQ_HANDLED if status or got else IRQ_NONE

    def _cut_short(self) -> None:
        """A signal handler raised on top of the ISR: who would have been woken is, and looks again.

        Of an Exception the core cannot tell that it is not the ISR's own, and does not run it again.
        """
        if self._got:
            self._account()
        if self.fifo.in_ != self.fifo.out:
            complete(self.rx_ready)
        complete(self.tx_room)
        if self.line_errors is not None:
            complete(self.line_errors.happened)
        if self._gone is not None:
            self._hangup("hung up")
        else:
            self._set_interest()  # the signal chip's edge is spent: this has it look at the level

    def _drain(self, hung_up: bool) -> None:
        reads = 0
        if self._got:
            self._account()  # a signal handler raised behind the read
        while self._gone is None:
            room = self.fifo.dma_in_prepare()
            if not room and not self._drop:
                if hung_up:
                    self._hangup("hung up")
                elif self._throttle():
                    return
                continue
            segments = room or [self._scratch]
            self._before = self._drains, self._dropped, self._filled(), bool(room)
            got = 0
            try:
                # read and remember in one C call: a signal handler may raise between any two
                self._got.extend(map(os.readv, (self.port.fd,), (segments,)))
            except BlockingIOError:
                return
            except OSError as exc:  # EIO: hung up
                self._hangup(os.strerror(exc.errno or errno.EIO))
                return
            finally:
                if self._got:
                    got = self._account()
            if not got:  # VMIN is 1, so nothing to read would be EAGAIN
                self._hangup("hung up")
            reads += 1
            # drained: what comes now raises the line again. Not looked for after a small read: EAGAIN
            # costs more than the read itself. After a big one the tty, which holds 4095 bytes, is full
            # again by then if a stream is ahead of us.
            if (
                not hung_up
                and (got < MORE or reads >= MOST_READS)
                and got < sum(map(len, segments))
            ):
                return
        # told again: who found it first may have been cut short, and the line may still be on
        self._hangup("hung up")

    def _account(self) -> int:
        """Put away what was read; give how much. A signal handler may cut it short, and the next run
        then begins anew: so everything is set to what it will be, and nothing added to.
        """
        count = self._got[0]
        drains, dropped, filled, has_room = self._before
        self._drains = drains + 1
        if has_room:
            self.fifo.dma_in_finish(filled + count - self._filled())
            if tracepoint.ring is not None:
                tracepoint.ring("kfifo_in", self.port.name, count, len(self.fifo))
        else:
            self._dropped = dropped + count
        self._got.clear()
        return count

    def _filled(self) -> int:
        return self.fifo.in_ if self._marked is None else self._marked.raw

    def _throttle(self) -> bool:
        """Leave the rest in the tty. False if a reader made room meanwhile."""
        self._throttles += 1
        self._rx_on = False
        # room is looked at after the flag, so that either we see it or the reader sees the flag
        if self.fifo.avail:
            self._rx_on = True
        self._set_interest()
        return not self._rx_on

    def _set_interest(self) -> None:
        """Tell the chip what the two flags say; ISR and process context may do so at once."""
        told = None
        while told != (told := self._interest()):
            # again if a flag changed meanwhile: else whoever wrote last may have written the old
            self.chip.set_interest(self.irq, told)

    def _interest(self) -> int:
        return (IN if self._rx_on else 0) | (OUT if self._tx_on else 0)

    def _hangup(self, cause: str) -> None:
        news = self._gone is None
        self._end(DeviceGone(f"{self.port.path} is gone ({cause}); plug it in and open it again"))
        self.chip.irq_mask(self.irq)
        if news and tracepoint.ring is not None:
            tracepoint.ring("hangup", self.port.name)

    def _loss(self) -> Exception:
        """What to raise now that the device is gone; a new one each time, for it takes notes."""
        kind = DeviceGone if isinstance(self._gone, DeviceGone) else UDriverError
        return kind(str(self._gone))

    def _end(self, gone: Exception) -> None:
        if self._gone is None:
            self._gone = gone
        events = (self.unplugged, self.rx_ready, self.tx_room, self.tx_empty)
        for completion in (*events, self._read_turn, self._write_turn):
            complete_all(completion)
        if self.line_errors is not None:
            complete_all(self.line_errors.happened)
        self._modem.wake()

    # process context

    def read(self, size: int = 65536, timeout: float | None = None) -> bytes:
        """At least one byte and at most ``size``, as soon as there are any; size 0 gives b""."""
        _checked(size)
        deadline = _deadline(timeout)
        return self._reading(deadline, self._read_some, min(1, size), size, deadline, timeout)

    def _reading(
        self, deadline: float | None, body: Callable[[list[bytes], *Ts], bytes], *args: *Ts
    ) -> bytes:
        """Call ``body`` in turn, with a list for what it takes out of the kfifo.

        That leaves with the exception, if one ends it: no other read would find it.
        """
        kept: list[bytes] = []
        try:
            return in_turn(self, self._read_turn, deadline, "read", body, kept, *args)
        except BaseException as exc:
            if kept:
                exc.partial = b"".join(kept)  # type: ignore[attr-defined]
            raise

    def _read_some(
        self,
        kept: list[bytes],
        least: int,
        most: int,
        deadline: float | None,
        timeout: float | None,
    ) -> bytes:
        self._wait_for_bytes(least, deadline, timeout)
        return self._take(kept, most)

    def readexactly(self, size: int, timeout: float | None = None) -> bytes:
        """Exactly ``size`` bytes; when they do not come, nothing that did is lost.

        Up to the kfifo's size they stay there for the next read. Of a longer read the exception
        has in ``partial`` what was taken out meanwhile.
        """
        _checked(size)
        deadline = _deadline(timeout)
        if size <= self.fifo.size:
            return self._reading(deadline, self._read_some, size, size, deadline, timeout)
        return self._reading(deadline, self._read_long, size, deadline, timeout)

    def _read_long(
        self, kept: list[bytes], size: int, deadline: float | None, timeout: float | None
    ) -> bytes:
        while size:
            self._wait_for_bytes(1, deadline, timeout)
            size -= len(self._take(kept, size))
        return b"".join(kept)

    def readline(self, timeout: float | None = None, limit: int | None = None) -> bytes:
        r"""Bytes up to and with the first ``\n``; or ``limit`` bytes, the kfifo's size by default."""
        most = min(_checked(limit or self.fifo.size), self.fifo.size)
        deadline = _deadline(timeout)

        def body(kept: list[bytes]) -> bytes:
            known = 0
            while True:
                self._wait_for_bytes(known + 1, deadline, timeout)
                known = min(len(self.fifo), most)  # first: more may come while we look
                length = self.fifo.find(0x0A, known)
                if length or known == most:
                    return self._take(kept, length or most)

        return self._reading(deadline, body)

    def write(self, data: bytes | bytearray | memoryview, timeout: float | None = None) -> int:
        """Hand all of ``data`` to the tty; give its bytes. Timeout.transferred: how many had left.

        Raises BufferError if ``data`` does not lie in one piece.
        """
        deadline = _deadline(timeout)
        view = memoryview(data)
        return in_turn(
            self, self._write_turn, deadline, "write", self._write_all, view, deadline, timeout
        )

    def _write_all(self, view: memoryview, deadline: float | None, timeout: float | None) -> int:
        size = view.nbytes
        sent = 0
        while sent < size:
            # cast late: nearly always all of it goes at once, whatever its items are
            count = self._write_some(view.cast("B")[sent:] if sent else view)
            sent += count
            self._written += count
            if sent < size:
                self._wait_for_room(deadline, timeout, sent)
        if tracepoint.ring is not None:
            tracepoint.ring("tty_write", self.port.name, sent)
        return sent

    def transact(self, data: bytes, size: int, timeout: float | None = None) -> bytes:
        """Write ``data``, then read exactly ``size`` bytes of answer, both within ``timeout``."""
        _checked(size)
        deadline = _deadline(timeout)
        view = memoryview(data)
        in_turn(self, self._write_turn, deadline, "write", self._write_all, view, deadline, timeout)
        body = self._answer if size <= self.fifo.size else self._read_long
        return self._reading(deadline, body, size, deadline, timeout)

    def _answer(
        self, kept: list[bytes], size: int, deadline: float | None, timeout: float | None
    ) -> bytes:
        if self._unlooked:
            self._unlooked -= 1
        elif self.chip.looks:
            self._look(size, deadline)
        return self._read_some(kept, size, size, deadline, timeout)

    def _look(self, size: int, deadline: float | None) -> None:
        """Take interrupts until ``size`` bytes are there, without a sleep, for LOOK at most."""
        fifo = self.fifo
        self.chip.resample(self.irq)
        if fifo.in_ - fifo.out >= size:
            return  # it was there already, which says nothing of a longer look
        if not self._rx_on:
            self._unthrottle()  # as in _wait_for_bytes()
        until = _now() + LOOK
        if deadline is not None and deadline < until:
            until = deadline
        while self._gone is None and _now() < until:
            os.sched_yield()  # to a far end on this very CPU
            self.chip.resample(self.irq)
            if fifo.in_ - fifo.out >= size:
                self._next_unlooked = 2
                return
        self._unlooked = self._next_unlooked
        self._next_unlooked = min(2 * self._unlooked, MOST_UNLOOKED)

    def flush(self, timeout: float | None = None) -> None:
        """Sleep until the hardware FIFO has drained: the last bit written is on the wire.

        As far as the kernel knows: a pty has no transmitter and is always drained.
        """
        deadline = _deadline(timeout)

        def body() -> None:
            if self._gone is not None:
                raise self._loss()
            if self._transmitter is None:
                self._transmitter = Transmitter(self.port, self.tx_empty)
            ticket = self._transmitter.arm()
            while self._gone is None:
                self.tx_empty.reinit()
                if self._gone is not None:
                    break  # it went just before the reinit, which forgot that
                if self._transmitter.answered >= ticket:
                    return  # not an answer to an earlier flush, which had timed out
                self.sleep_on(self.tx_empty, deadline, "flush", timeout)
            raise self._loss()

        in_turn(self, self._write_turn, deadline, "flush", body)

    def reset_input_buffer(self) -> int:
        """Throw away what was received and not read; give how many bytes that was."""
        drop = partial(self._take, [], sys.maxsize)  # a MarkedKfifo may hold more than its size
        return len(in_turn(self, self._read_turn, None, "read", drop))

    @property
    def modem(self) -> ModemLines:
        """The modem lines: records of their edges, how they are learned of, how late they may be."""
        return self._modem

    def line_irq(self, line: str) -> int:
        """The irq number of "cts", "dsr", "dcd" or "ri", for request_irq(); see ModemLines.irq().

        Of its flags IRQF_TRIGGER_RISING and _FALLING say which edges. Raises Unsupported where the
        tty has no modem lines, and DeviceGone.
        """
        return self.modem.irq(line)

    def modem_lines(self) -> int:
        """CTS, DSR, RI, DCD, DTR, RTS as they are now, as TIOCM_* bits.

        Raises Unsupported, DeviceGone, and UDriverError if the transfer failed that asks the chip.
        """
        return inside(self, self._modem_lines)

    def _modem_lines(self) -> int:
        if self._gone is None:
            try:
                return self.port.modem_lines()
            except Unsupported:
                raise
            except OSError as exc:
                raise self._trouble(exc) from exc
        raise self._loss()

    def _trouble(self, exc: OSError) -> Exception:
        """What to raise for an ioctl that failed: the driver ends only if the tty has gone."""
        if self.port.is_gone(exc):
            self._hangup(str(exc.strerror))
            return self._loss()
        return UDriverError(
            f"{self.port.path} does not tell of its modem lines ({exc.strerror}); "
            "ask again, and plug it in again if that goes on"
        )

    def wait_modem_lines(self, lines: int, timeout: float | None = None) -> int:
        """Wait until one of ``lines`` (TIOCM_* bits of inputs) changes; give all lines then.

        A pulse that is over already is a change: the kernel counted it. Raises ValueError if
        ``lines`` has no input in it, Unsupported where the tty has no modem lines, or none of these,
        Timeout, DeviceGone, and UDriverError while the tty has not gone and yet does not tell.
        """
        return inside(self, self._modem.wait, lines, _deadline(timeout), timeout)

    def wait_line_errors(self, timeout: float | None = None) -> list[LineError]:
        """Wait for breaks and broken bytes; give those that nobody took yet, in order, at least one.

        Raises Unsupported if the driver was opened without ``line_errors``, Timeout and DeviceGone.
        """
        errors = self.line_errors
        if errors is None:
            raise Unsupported(
                f"{self.port.path}: line errors are marked with line_errors=True only"
            )
        return inside(self, self._wait_line_errors, errors, _deadline(timeout), timeout)

    def _wait_line_errors(
        self, errors: LineErrors, deadline: float | None, timeout: float | None
    ) -> list[LineError]:
        while not (taken := errors.take()):
            if self._gone is not None:
                raise self._loss()
            if not self._rx_on:
                self._unthrottle()
            self.chip.resample(self.irq)
            left = None if deadline is None else max(0.0, deadline - _now())
            try:
                errors.happened.wait(left)
            except TimeoutError:
                raise Timeout(f"{self.port.path}: no line error within {timeout} s") from None
        return taken

    @property
    def in_waiting(self) -> int:
        """Bytes that a read would find: in the kfifo and still in the tty."""
        return len(self.fifo) + (self.port.in_waiting() if self._gone is None else 0)

    @property
    def gone(self) -> bool:
        """Whether the device has gone, or the driver was closed."""
        return self._gone is not None

    def stats(self) -> Stats:
        """The counts, as of now."""
        received, dropped = self.fifo.in_ + self._dropped, self._dropped
        if self._marked is not None:
            received, dropped = self._marked.received, self._marked.dropped
        return Stats(
            received=received,
            read=self.fifo.out,  # a count of its own would miss what Ctrl-C comes right behind
            dropped=dropped,
            buffered=len(self.fifo),
            discarded=self.port.discarded,
            written=self._written,
            drains=self._drains,
            throttles=self._throttles,
            high_water=self.fifo.high_water,
            irq=irq_stat(self.irq) if self._attached else self._final_irq,
        )

    def sleep_on(
        self,
        event: Completion,
        deadline: float | None,
        what: str,
        timeout: float | None,
        taken: list[object] | None = None,
    ) -> None:
        """Sleep on one of the driver's completions until ``deadline``; Timeout names the port."""
        left = None if deadline is None else max(0.0, deadline - _now())
        try:
            event.wait_into([] if taken is None else taken, left)
        except TimeoutError:
            raise Timeout(
                f"{self.port.path}: {what} was not done within {timeout or 0:.4g} s; "
                "is the device answering, at this baud rate?"
            ) from None

    def _wait_for_bytes(self, count: int, deadline: float | None, timeout: float | None) -> None:
        fifo = self.fifo
        while fifo.in_ - fifo.out < count:
            if self._gone is not None:
                raise self._loss()
            if not self._rx_on:
                self._unthrottle()  # less than half is free, but this reader needs more to come
            self.chip.resample(self.irq)
            if fifo.in_ - fifo.out >= count:
                return
            self.sleep_on(self.rx_ready, deadline, "read", timeout)

    def _take(self, kept: list[bytes], size: int) -> bytes:
        data = self.fifo.out_bytes(size)
        kept.append(data)  # before any call into C is over, behind which a signal handler may raise
        if not self._rx_on and self.fifo.avail >= self.fifo.size // 2:
            self._unthrottle()
        if tracepoint.ring is not None:
            tracepoint.ring("kfifo_out", self.port.name, len(data))
        return data

    def _unthrottle(self) -> None:
        self._rx_on = True
        try:
            if self._gone is None:
                self._set_interest()
        except BaseException:
            try:
                if self._gone is None:
                    self._set_interest()  # perhaps the chip was not told
            except BaseException:  # noqa: BLE001 - the first is raised
                self._rx_on = False  # the next reader tells it
            raise

    def _write_some(self, view: memoryview) -> int:
        if self._gone is not None:
            raise self._loss()
        try:
            return os.write(self.port.fd, view)
        except BlockingIOError:
            return 0
        except OSError as exc:
            if exc.errno not in (errno.EIO, errno.ENODEV, errno.ENXIO):
                raise
            self._hangup(os.strerror(exc.errno))
            assert self._gone is not None
            raise self._loss() from None

    def _wait_for_room(self, deadline: float | None, timeout: float | None, sent: int) -> None:
        self._tx_on = True
        self._set_interest()
        try:
            self.sleep_on(self.tx_room, deadline, "write", timeout)
        except Timeout as exc:
            exc.transferred = sent
            raise


_now = time.monotonic


def _deadline(timeout: float | None) -> float | None:
    if timeout is None:
        return None
    if not timeout >= 0:
        raise ValueError(f"timeout is a number of seconds >= 0, not {timeout}")
    return _now() + timeout


def _checked(size: int) -> int:
    if size < 0:
        raise ValueError(f"{size} bytes cannot be read")
    return size


_open_drivers: weakref.WeakSet[UsbSerial] = weakref.WeakSet()
_refusing: list[bool] = []


def _refuse_in_children() -> None:
    """A child shares the tty and would steal the parent's bytes: its copy of a driver is gone."""
    if not _refusing:
        os.register_at_fork(after_in_child=_forked)  # twice, if Ctrl-C comes now, does no harm
        _refusing.append(True)


def _forked() -> None:
    for driver in tuple(_open_drivers):
        driver._gone = UDriverError(
            f"{driver.port.path} was opened before fork(); open it in the child to use it there"
        )
        driver._final_irq = irq_stat(driver.irq)
        driver._closed = True
        driver._attached = False
        driver._modem.abandon()
        driver.port.abandon()
    _open_drivers.clear()
