# SPDX-License-Identifier: MIT
"""Two threads that learn of a port's modem edges: one waits in the kernel, one looks a second time.

TIOCMIWAIT compares with the counters as they are when it is entered, so an edge between our last look
and that moment wakes nobody. So when the waiting thread is inside (/proc tells), the other looks
at the counters once more; from there on every edge wakes. It also ends the wait: it sends the
signal again and again until the waiting thread is out, because one that arrives just before the
system call is lost. The waiting thread stays until then: a signal to one that has ended is an error.

Neither sleeps in a completion: with the inline irqchip it would take the driver's interrupts.
Where the tty driver has no TIOCMIWAIT the first thread looks at the levels every 5 ms: the counters of
such a driver stand still (cp210x: TIOCGICOUNT is there, and counts errors only). And cdc_acm wakes for the
beginning of a ring alone, so while somebody asks for RI the second thread looks every 5 ms.

A look that fails takes nothing: what it would have seen is seen by the next. So unless the tty has gone
it is done again until it succeeds, and if that takes long, those who wait are told.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from udriver.drivers.edges import LINES, Counts, LineEdges, Lines
from udriver.drivers.fds import close_once
from udriver.drivers.miwait import is_inside, kick_signal, longest_wake, miwait
from udriver.drivers.port import Port
from udriver.kernel.completion import Completion, complete_all, wait_for_completion

__all__ = ["Capture", "Found"]

WINDOW = 0.005  # seconds between two looks
SHORTEST_PAUSE = 0.001  # seconds before a second look at a counter and a level that do not agree
STILL_NS = 50_000_000  # a counter does not lag behind its line for so long
BLIND_WINDOW = 0.1  # seconds between two second looks where /proc does not say who is inside
KICK_WINDOW = 0.001
PATIENCE = 0.5  # seconds that looks may fail before it is told: an unplug is a hangup by then

UNCOUNTED = {"cdc_acm": ("ri",)}
"""Lines of which a tty driver's counter does not tell each edge. cdc_acm counts a ring with each message
that comes while it lasts, and not its end (acm_process_notification())."""

Found = list[tuple[LineEdges, int, int]]
"""Edges with their timestamp and its error, both ns."""


class Capture:
    """Calls ``report(found)`` for edges, ``failing(error)`` while looks keep failing, with None when
    they do no more, and ``ended(error)`` once if the tty goes, all on its own threads.

    ``method`` is "TIOCMIWAIT" or "polling", ``error_ns`` how late its timestamps are as far as
    measured; ``watched()`` the TIOCM_* bits that anybody asks for. Raises Unsupported where there are no
    modem lines, and OSError.
    """

    def __init__(
        self,
        port: Port,
        report: Callable[[Found], None],
        failing: Callable[[OSError | None], None],
        ended: Callable[[OSError], None],
        watched: Callable[[], int],
    ) -> None:
        self._port = port
        self._report = report
        self._failing = failing
        self._ended = ended
        self._watched = watched
        self._uncounted = UNCOUNTED.get(port.driver, ())
        self.method = "TIOCMIWAIT"
        self.error_ns = 0
        self._looking = threading.Lock()  # of the two threads
        self._takes = 0
        self._seen_ns = time.monotonic_ns()
        self.lines = Lines(port.modem_lines(), self._counts())
        self._kick = kick_signal()
        self._stopping = False
        self._out = True
        self._armed = Completion(f"modem lines of {port.name} armed")
        self._stopped = Completion(f"modem lines of {port.name} stopped")
        self._leave = threading.Event()
        # the only fd, and the last that may fail
        self._fds = [os.eventfd(0, os.EFD_CLOEXEC)]
        self._entered = self._fds[0]
        self._waiter = threading.Thread(target=self._wait, name="irq/modem", daemon=True)
        self._second = threading.Thread(target=self._assist, name="irq/modem-look", daemon=True)
        try:
            self._second.start()
            self._waiter.start()
            wait_for_completion(self._armed)
        except BaseException:  # no thread to be had, or Ctrl-C
            self.stop()
            raise

    def stop(self) -> None:
        """End both threads; returns when they have.

        May be repeated, and has to be when Ctrl-C cuts it short.
        """
        self._stopping = True
        if self._fds:
            os.eventfd_write(self._entered, 1)
            if self._second.ident is not None:
                wait_for_completion(self._stopped)
                self._second.join()
            close_once(self._fds)

    def watch(self) -> None:
        """What ``watched()`` gives has grown."""
        os.eventfd_write(self._entered, 1)

    def _counts(self) -> Counts:
        counts = self._port.icount() if self.method == "TIOCMIWAIT" else None
        if counts is None:
            return {}
        all_four = {"cts": counts.cts, "dsr": counts.dsr, "dcd": counts.dcd, "ri": counts.rng}
        return {line: count for line, count in all_four.items() if line not in self._uncounted}

    # the thread that waits

    def _wait(self) -> None:
        self._out = False  # here, and not where it is started: it may never come to be
        try:
            # none of the process's signals: each would end the wait for nothing
            signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals() - {self._kick})
            try:
                self.error_ns = longest_wake()
                self._try_to_look(None)
            finally:
                complete_all(self._armed)
            self._wait_for_edges()
        except OSError as exc:
            if not self._stopping:
                self._ended(exc)
        finally:
            self._out = True
            self._leave.wait()

    def _wait_for_edges(self) -> None:
        while not self._stopping:
            takes = self._takes
            os.eventfd_write(self._entered, 1)
            why = miwait(self._port.fd)
            woke = time.monotonic_ns()
            if why not in (0, errno.EINTR):  # gone, or there is none, or it does not wait
                error = OSError(why, os.strerror(why))
                if self._port.is_gone(error):
                    raise error
                self._poll()
            elif not self._stopping:
                self._look(woke, takes)

    def _poll(self) -> None:
        with self._looking:
            self.method = "polling"
            self.error_ns = int(WINDOW * 1e9)
            self.lines.counts = {}
        while not self._stopping:
            time.sleep(WINDOW)
            self._look(None)

    # the thread that looks a second time, and stops the first

    def _assist(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
        try:
            while not self._stopping:
                self._look_behind_and_report()
        finally:  # whatever it raised: stop() waits for what comes now
            self._stopping = True
            self._let_out()
            complete_all(self._stopped)

    def _look_behind_and_report(self) -> None:
        try:
            self._look_behind()
        except Exception as error:  # noqa: BLE001 - without this thread the line would be dead
            args = (type(error), error, error.__traceback__, threading.current_thread())
            threading.excepthook(threading.ExceptHookArgs(args))
            time.sleep(BLIND_WINDOW)
            self.watch()  # the look that it did not come to is still to be made

    def _look_behind(self) -> None:
        blind = False
        while not self._stopping:
            if self._entry(WINDOW if self._rings() else BLIND_WINDOW if blind else None):
                blind = not self._wait_until_inside()
            try:
                self._look(None)
            except OSError:
                blind = False  # gone: the waiting thread gets it, too

    def _let_out(self) -> None:
        while not self._out:
            assert self._waiter.ident is not None
            with suppress(OSError):
                kick_signal()  # the signal irqchip may have put the default back since
            signal.pthread_kill(self._waiter.ident, self._kick)
            time.sleep(KICK_WINDOW)
        self._leave.set()
        if self._waiter.ident is not None:
            self._waiter.join()

    def _rings(self) -> bool:
        """Whether somebody asks for a line that the waiting thread is not woken for."""
        bits = self._watched()
        return any(bits & LINES[line] for line in self._uncounted)

    def _entry(self, timeout: float | None) -> bool:
        """Sleep until the waiting thread says that it goes in."""
        poll = select.poll()
        poll.register(self._entered, select.POLLIN)
        ready = poll.poll(None if timeout is None else timeout * 1000)
        if ready:
            os.eventfd_read(self._entered)
        return bool(ready)

    def _wait_until_inside(self) -> bool:
        """False if that cannot be known."""
        tid = self._waiter.native_id
        while not (self._stopping or self._out or self.method == "polling" or tid is None):
            inside = is_inside(tid, self._port.fd)
            if inside is not False:
                return bool(inside)
            time.sleep(KICK_WINDOW)
        return True

    # both

    def _look(self, woke: int | None, takes: int = -1) -> None:
        """See which edges there were. ``woke`` is when the kernel woke us for one, at most
        ``error_ns`` late, unless another look has taken it since: ``takes`` are those before the wait.
        """
        patient_until = time.monotonic() + PATIENCE
        pause = SHORTEST_PAUSE
        while (error := self._try_to_look(woke, takes)) and not self._stopping:
            if time.monotonic() > patient_until:
                self._failing(error)
            time.sleep(pause)
            pause = min(2 * pause, BLIND_WINDOW)
        if time.monotonic() > patient_until:
            self._failing(None)

    def _try_to_look(self, woke: int | None, takes: int = -1) -> OSError | None:
        """Give the error, if it is one that may pass; raise it if the tty has gone."""
        try:
            self._look_once(woke, takes)
        except OSError as exc:
            if self._port.is_gone(exc):
                raise
            return exc
        return None

    def _look_once(self, woke: int | None, takes: int) -> None:
        with self._looking:
            since = self._seen_ns
            before, first, after = self._read()
            counts = first
            if counts and counts == self.lines.counts and not self._uncounted:
                self._seen_ns = before  # no edge until then; and no question to the chip
                return
            level = self._port.modem_lines()
            if self._uncounted or not counts:
                after = time.monotonic_ns()  # the level tells, and the chip took its time over it
            if not self.lines.agree(level, counts):
                before, counts, after, level = self._settle(counts)
            once = [line for line in LINES if self.lines.counted(line, first)]
            edges = self.lines.take(level, counts)
            self._seen_ns = before
            if not edges:
                return
            if woke is None or takes != self._takes:
                when = after, after - since
            elif len(edges) == 1 and edges[0].count == 1 and (not counts or once):
                when = woke, min(self.error_ns, woke - since)
            else:  # of several the last may have come while we looked
                when = after, after - woke + self.error_ns
            self._takes += 1
            self._report([(edge, *when) for edge in edges])

    def _settle(self, counts: Counts) -> tuple[int, Counts, int, int]:
        """Look until counters and levels agree: as a rule within a millisecond or two.

        Counters that stand still are wrong (an edge that is not counted), those that move are right.
        """
        began = moved = time.monotonic_ns()
        pause = SHORTEST_PAUSE
        while True:
            time.sleep(pause)
            pause = min(2 * pause, WINDOW)
            last = counts
            before, counts, after = self._read()
            level = self._port.modem_lines()
            if counts != last:
                moved = after
            if self.lines.agree(level, counts) or self._stopping or after - moved > STILL_NS:
                return before, counts, after, level
            if after - began > 2 * STILL_NS:
                return before, counts, after, self.lines.by_count(level, counts)

    def _read(self) -> tuple[int, Counts, int]:
        """The counters, and the moments around them: an edge that is not in them came after the first."""
        before = time.monotonic_ns()
        counts = self._counts()
        return before, counts, time.monotonic_ns()
