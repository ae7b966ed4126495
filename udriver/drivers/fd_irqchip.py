# SPDX-License-Identifier: MIT
"""What the irqchips share: a line for an fd, its mask, its interest, its status.

Level, not EPOLLET: a handler that was throttled, cut short or disabled finds its line raised
again, with nothing to remember.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterable

from udriver.kernel.irq import generic_handle_irq, irq_alloc_desc, irq_free_desc

__all__ = ["IN", "OUT", "EpollChip", "FdIrqChip", "Source", "epoll_set", "poll_now"]

IN = select.EPOLLIN
OUT = select.EPOLLOUT


class Source:
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
        self._sources: dict[int, Source] = {}
        self._by_fd: dict[int, Source] = {}
        self._setup = threading.RLock()
        self._holders: set[object] = set()
        self._at_fork = False
        self._started = False

    def is_mine(self) -> bool:
        """Whether this very thread makes or ends a line, below the handler that asks."""
        return self._setup._is_owned()  # type: ignore[attr-defined, no-any-return]

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
        source = Source(fd)
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
        return status or poll_now(source)

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

    def _watch(self, source: Source) -> None:
        """Bring the hardware side in line with ``source.masked`` and ``source.events``."""
        raise NotImplementedError


def poll_now(source: Source) -> int:
    """The EPOLL* bits that the fd has now, of those the source is interested in."""
    poll = select.poll()  # a new one each time: in use, it refuses a handler on top of us
    poll.register(source.fd, source.events)
    return sum(events for _, events in poll.poll(0))


def epoll_set(epoll: select.epoll, fd: int, events: int | None) -> None:
    """Make ``fd`` wait for ``events``, be it in ``epoll`` already or not; None takes it out."""
    try:
        if events is None:
            epoll.unregister(fd)
        else:
            epoll.modify(fd, events)
    except FileNotFoundError:
        if events is not None:
            epoll.register(fd, events)


class EpollChip(FdIrqChip):
    """One whose lines are in an epoll that somebody sleeps in."""

    _epoll: select.epoll

    def _watch(self, source: Source) -> None:
        # a masked line is taken out: with events 0 a hangup would still be reported, for ever
        epoll_set(self._epoll, source.fd, None if source.masked else source.events)
