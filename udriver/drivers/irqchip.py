# SPDX-License-Identifier: MIT
"""Enters hardirq context. Three ways to turn readiness of an fd into an interrupt.

One contract (tests/drivers/test_irqchip.py runs the same tests on all three): a line is raised
while its fd has something of what its owner is interested in, or hung up; never while masked.
The handler runs to its end before the next one on that line; which thread it runs on is what
differs:

``signal``  O_ASYNC and F_SETSIG: SIGURG interrupts the main thread between two bytecodes, as an interrupt on
            one CPU. Its handler then runs under whatever the main thread was doing.
``select``  a thread sleeps in epoll: the interrupt lands on another CPU.
``inline``  whoever sleeps in a wait sleeps in epoll, takes the interrupt himself and goes on:
            an idle CPU. No thread switch, so the fastest. What is raised already a reader takes
            before it sleeps. While nobody waits, none is taken.

Decisions, with what was measured on 6.12 and 6.18:

* SIGURG, whose default action is to be ignored. SIGIO kills: one that is still on its way when the
  last line is ended, or in a forked child, would be the end of the process. Not a real-time signal:
  Python hands a handler no siginfo, so si_fd would be lost, and their queue, when it is full, falls
  back to SIGIO.
* F_SETOWN_EX to the main *thread*. With F_SETOWN any thread may get the signal, and a main
  thread that blocks outside our waits would not return from its system call.
* The kernel sends no signal at hangup, so a watcher thread sleeps in epoll on nothing but
  EPOLLHUP and hands it on. It costs no wake-up until then.
* Not signalfd: Python's own handlers would stop running. Not ``pthread_sigmask`` as a
  local_irq_disable(): the signal then goes to another thread and the Python handler still runs
  on the masked main thread.
* Level, not EPOLLET: a handler that was throttled, cut short or disabled finds its line raised
  again, with nothing to remember.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import threading
import weakref
from collections.abc import Container, Iterable
from typing import Any

from udriver.drivers.epoll_thread import EpollThread
from udriver.errors import UDriverError
from udriver.kernel import sched
from udriver.kernel.irq import generic_handle_irq, irq_alloc_desc, irq_free_desc
from udriver.kernel.threads import MainTask, Ready, ThreadScheduler, ThreadTask

__all__ = ["IN", "IRQCHIPS", "OUT", "FdIrqChip", "InlineChip", "SelectChip", "SignalChip"]

IN = select.EPOLLIN
OUT = select.EPOLLOUT
GONE = select.EPOLLHUP | select.EPOLLERR

AT_ONCE = 32  # lines that resample() raises; epoll makes room for so many events, 1023 by default

F_SETSIG = 10  # asm-generic/fcntl.h, as the next two
F_SETOWN_EX = 15
F_OWNER_TID = 0


class _Source:
    """One fd and its line."""

    __slots__ = ("events", "fd", "irq", "masked", "status")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.irq = -1
        self.events = IN
        self.masked = True
        self.status = 0


class FdIrqChip:
    """What the three share: the lines, their masks, their interest and status.

    Lines are made and ended in process context; masking, interest and status are for any.
    """

    name: str
    looks = False
    """Whether resample() takes what is raised itself, so that to call it again is a way to wait."""

    def __init__(self) -> None:
        self._sources: dict[int, _Source] = {}
        self._by_fd: dict[int, _Source] = {}
        self._setup = threading.RLock()
        self._holders: set[object] = set()
        self._at_fork = False
        self._started = False

    def hold(self, who: object) -> None:
        """Start, if need be, and stay so without any line: ``who`` expects a device back.

        On any exception, Ctrl-C included, it does not.
        """
        try:
            with self._setup:
                self._start_if_idle()
                self._holders.add(who)
        except BaseException:
            self.drop(who)
            raise

    def drop(self, who: object) -> None:
        """Undo hold(). May be repeated, and has to be when Ctrl-C cuts it short, as detach()."""
        with self._setup:
            self._holders.discard(who)
            self._stop_if_idle()

    def attach(self, fd: int, name: str) -> int:
        """Make a line for ``fd``, masked until somebody requests it; give its irq number.

        On any exception, Ctrl-C included, there is no line, and nothing of the chip's for it.
        """
        source = _Source(fd)
        try:
            with self._setup:
                self._start_if_idle()
                source.irq = irq_alloc_desc(name, self)
                self._sources[source.irq] = source
                self._by_fd[fd] = source
            return source.irq
        except BaseException:
            self.detach(source.irq)
            raise

    def _start_if_idle(self) -> None:
        if self._started:
            return
        if not self._at_fork:
            os.register_at_fork(after_in_child=self._forked)
            self._at_fork = True
        self._start()
        self._started = True

    def _stop_if_idle(self) -> None:
        if self._started and not self._sources and not self._holders:
            try:
                self._stop()
            except BaseException:
                self._stop()  # half stopped it would be dead to the next line
                raise
            finally:
                self._started = False

    def _forked(self) -> None:
        """In a child: its threads are gone and its fds are the parent's, so begin anew."""
        self.__init__()  # type: ignore[misc]
        self._at_fork = True

    def thread(self) -> threading.Thread | None:
        """Where interrupts land, if that is a thread of the chip's own."""
        return None

    def detach(self, irq: int) -> None:
        """End a line that free_irq() has emptied. The fd may be closed afterwards, not before."""
        with self._setup:
            source = self._sources.get(irq)
            if source is not None:
                self.irq_mask(irq)
                self._by_fd.pop(source.fd, None)
                irq_free_desc(irq)
                del self._sources[irq]  # at once: neither is there when this is repeated, or both
            self._stop_if_idle()

    def irq_mask(self, irq: int) -> None:
        """Raise the line no more, not even for a hangup. Any context."""
        source = self._sources[irq]
        if not source.masked:
            source.masked = True
            self._watch(source)

    def irq_unmask(self, irq: int) -> None:
        """Raise it again, at once if there is something already. Any context."""
        source = self._sources[irq]
        source.masked = False
        self._watch(source)

    def set_interest(self, irq: int, events: int) -> None:
        """Raise the line for IN, OUT, both or neither; a hangup raises it always. Any context."""
        source = self._sources[irq]
        source.events = events
        if not source.masked:
            self._watch(source)

    def interest(self, irq: int) -> int:
        """What set_interest() set last; IN at first. Any context."""
        return self._sources[irq].events

    def resample(self, irq: int) -> None:
        """Raise the line if its level is asserted and its edge got lost; before a sleep."""

    def status(self, irq: int) -> int:
        """The interrupt status register: EPOLL* bits why the line was raised. Reading clears it."""
        source = self._sources[irq]
        status, source.status = source.status, 0
        return status or _poll_now(source)

    def _raise(self, ready: Iterable[tuple[int, int]]) -> None:
        for fd, events in ready:
            source = self._by_fd.get(fd)
            if source is not None and not source.masked:
                source.status |= events
                generic_handle_irq(source.irq)

    def _start(self) -> None:
        """The first line is about to be made. On any exception nothing of this stays."""
        raise NotImplementedError

    def _stop(self) -> None:
        """The last line is gone: give back all threads, fds and handlers. May be repeated."""
        raise NotImplementedError

    def _watch(self, source: _Source) -> None:
        """Bring the hardware side in line with ``source.masked`` and ``source.events``."""
        raise NotImplementedError


def _poll_now(source: _Source) -> int:
    poll = select.poll()  # a new one each time: in use, it refuses a handler on top of us
    poll.register(source.fd, source.events)
    return sum(events for _, events in poll.poll(0))


def _epoll_set(epoll: select.epoll, fd: int, events: int | None) -> None:
    """Make ``fd`` wait for ``events``, be it in ``epoll`` already or not; None takes it out."""
    try:
        if events is None:
            epoll.unregister(fd)
        else:
            epoll.modify(fd, events)
    except FileNotFoundError:
        if events is not None:
            epoll.register(fd, events)


class _EpollChip(FdIrqChip):
    _epoll: select.epoll

    def _watch(self, source: _Source) -> None:
        # a masked line is taken out: with events 0 a hangup would still be reported, for ever
        _epoll_set(self._epoll, source.fd, None if source.masked else source.events)


class SelectChip(_EpollChip):
    """Interrupts land on a thread of their own, one for all lines of the chip."""

    name = "select"

    def _start(self) -> None:
        loop = EpollThread("irq/select", self._raise)
        loop.start()
        self._loop, self._epoll = loop, loop.epoll

    def _stop(self) -> None:
        self._loop.stop()

    def thread(self) -> threading.Thread | None:
        """The one of its own."""
        return self._loop.thread if self._started else None


class _Seat:
    """The leader's, from the first line's beginning to the last one's end."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        # of one item: setdefault() takes the seat and says whose it is
        self.leader: dict[int, ThreadTask] = {}
        self.followers: dict[ThreadTask, None] = {}
        self.over = False
        self._sitter: weakref.ref[ThreadTask] | None = None
        self._fds: tuple[int, ...] = ()

    def sit(self, task: ThreadTask, sources: Container[int]) -> None:
        """Let the task's own fds end the sleep, and those of the one before no more."""
        if self._sitter is not None and self._sitter() is task:
            return
        self._sitter = None  # first: a handler may raise, and then nobody's fds are known to be in
        for fd in self._fds:
            if fd not in sources:
                try:
                    _epoll_set(self.epoll, fd, None)
                except OSError:
                    pass  # closed with its thread, and so not in the epoll any more
        self._fds = task.fds
        for fd in task.fds:
            _epoll_set(self.epoll, fd, select.EPOLLIN)
        self._sitter = weakref.ref(task)

    def leave(self, task: ThreadTask, nested: bool) -> None:
        """``task`` goes: wake another to lead, if nobody does. May be repeated.

        A follower, too: it may have been woken to lead, and have its token since, and go for good.
        ``nested``: its wait was on top of one of its own that still leads.
        """
        self.followers.pop(task, None)
        if not nested and self.leader.get(0) is task:
            self.leader.pop(0, None)
        if self.leader:
            return
        if self.over:
            self.epoll.close()
        for follower in tuple(self.followers):
            follower.wake()
            return

    def end(self) -> None:
        """Nobody leads any more. The epoll is closed by the last who sleeps in it.

        Not waited for: that may be the wait below the very handler that closes the port.
        """
        self.over = True
        leader = self.leader.get(0)
        if leader is None:
            self.epoll.close()
        else:
            leader.wake()  # it looks at its completion once more, and then sleeps elsewhere


class InlineChip(_EpollChip):
    """Interrupts are taken by a task that sleeps in a wait: it leads, other sleepers follow.

    The leader sleeps in the chip's epoll together with its own fds; when it leaves, it wakes one
    follower to lead. Which task leads makes no difference to who is let through by a completion.
    """

    name = "inline"
    looks = True

    def __init__(self) -> None:
        super().__init__()
        self._seat: _Seat | None = None

    def _start(self) -> None:
        scheduler = sched.active()
        if not isinstance(scheduler, ThreadScheduler):
            raise UDriverError(
                f"inline interrupts are taken by sleeping threads, and {scheduler!r} has none; "
                "use the select irqchip"
            )
        self._seat = _Seat()
        self._epoll = self._seat.epoll
        self._scheduler = scheduler
        try:
            scheduler.set_idle(self)
        except BaseException:
            self._stop()
            raise

    def _stop(self) -> None:
        self._scheduler.idle = None
        if self._seat is not None:
            self._seat.end()
            self._seat = None

    def resample(self, irq: int) -> None:
        """Take what is raised already: a CPU that still runs takes an interrupt, idle or not.

        The device is often as fast as we are, and then nobody has to sleep at all.
        """
        self._raise(self._epoll.poll(0, AT_ONCE))

    def sleep(self, task: ThreadTask, timeout: float | None) -> Ready:
        """Sleep as the leader if there is none, else as a follower."""
        seat = self._seat
        if seat is None:
            return task.nap(timeout)
        nested = seat.leader.get(0) is task
        seat.followers[task] = None  # before the try, so that a leader that leaves sees us
        try:
            try:
                # a handler's wait, on top of the leader's, leads too: that one takes none meanwhile
                if seat.leader.setdefault(0, task) is task and not seat.over:
                    return self._lead(seat, task, timeout)
                return task.nap(timeout)
            finally:
                seat.leave(task, nested)
        except BaseException:
            seat.leave(task, nested)  # if a signal handler raised before it was done
            raise

    def _lead(self, seat: _Seat, task: ThreadTask, timeout: float | None) -> Ready:
        seat.followers.pop(task, None)
        seat.sit(task, self._by_fd)
        ready = task.block(seat.epoll, timeout)
        self._raise(ready)  # the task's own fds are no source's
        return ready


class SignalChip(FdIrqChip):
    """Interrupts land on top of the main thread, between two of its bytecodes."""

    name = "signal"
    signum = signal.SIGURG

    def _start(self) -> None:
        found = signal.getsignal(self.signum)
        if found == self._handler:
            found = self._found  # the last close was on another thread, and main has not run since
        elif threading.current_thread() is not threading.main_thread():
            raise UDriverError(
                "the signal irqchip must get its first port on the main thread, where Python runs "
                "signal handlers; open it there, or use the select irqchip"
            )
        elif found not in (signal.SIG_DFL, signal.SIG_IGN):
            raise UDriverError(
                f"SIGURG already has the handler {found!r}; remove it, or use the select irqchip"
            )
        self._found: Any = found
        watcher = EpollThread("irq/hangup", self._found_hangup)
        try:
            MainTask.irq_signals |= {self.signum}
            if signal.getsignal(self.signum) != self._handler:
                signal.signal(self.signum, self._handler)
            watcher.start()
            self._watcher = watcher
        except BaseException:
            self._end_handling()
            raise

    def _stop(self) -> None:
        self._watcher.stop()
        self._end_handling()

    def _end_handling(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._restore_handler()
        else:
            self._interrupt()  # only the main thread may set a handler: ours does it itself

    def _forked(self) -> None:
        if self._started:
            self._restore_handler()
        super()._forked()

    def _restore_handler(self) -> None:
        signal.signal(
            self.signum, signal.SIG_IGN
        )  # drops one on its way, which the default kills by
        signal.signal(self.signum, self._found)
        MainTask.irq_signals -= {self.signum}

    def _watch(self, source: _Source) -> None:
        # one shot: the watcher need not take it out, and so never touches an fd that may be another
        _epoll_set(self._watcher.epoll, source.fd, None if source.masked else select.EPOLLONESHOT)
        try:
            self._set_async(source)
        except OSError:
            pass  # ENOTTY: hung up, it sends no signal any more; what it has is looked at below
        if source.masked:
            return
        if _poll_now(source):
            self._interrupt()  # its edge is past; a level would still be asserted

    def _set_async(self, source: _Source) -> None:
        flags = fcntl.fcntl(source.fd, fcntl.F_GETFL)
        if source.masked:
            fcntl.fcntl(source.fd, fcntl.F_SETFL, flags & ~os.O_ASYNC)
        elif not flags & os.O_ASYNC:
            owner = struct.pack("ii", F_OWNER_TID, os.getpid())  # the main thread's tid
            fcntl.fcntl(source.fd, F_SETOWN_EX, owner)
            fcntl.fcntl(source.fd, F_SETSIG, self.signum)
            fcntl.fcntl(source.fd, fcntl.F_SETFL, flags | os.O_ASYNC)

    def resample(self, irq: int) -> None:
        """As said; Ctrl-C at the entry of our handler raises there before the handler has begun."""
        source = self._sources.get(irq)
        if source is not None and not source.masked and _poll_now(source):
            self._interrupt()

    def _interrupt(self) -> None:
        main = threading.main_thread().ident
        if main is not None:
            signal.pthread_kill(main, self.signum)

    def _handler(self, signum: int, frame: object) -> None:
        """One bit for all lines: each finds out for itself, as on a shared line."""
        if not self._sources and not self._holders:
            self._restore_handler()
        try:
            for source in tuple(self._sources.values()):
                if not source.masked:
                    # a signal that says "room" is sent once, before poll() agrees: the writer retries
                    alone = len(self._sources) == 1
                    source.status |= source.events & (OUT | (IN if alone else 0))
                    status = source.status or _poll_now(source)
                    if status:
                        source.status = status
                        generic_handle_irq(source.irq)
        except BaseException:
            self._interrupt()  # the edge is spent, and some lines may not have been looked at
            raise

    def _found_hangup(self, ready: Ready) -> None:
        self._interrupt()


IRQCHIPS: dict[str, FdIrqChip] = {
    chip.name: chip for chip in (SignalChip(), SelectChip(), InlineChip())
}
"""One of each kind for the process, by name; they hold nothing while they have no line."""
