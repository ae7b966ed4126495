# SPDX-License-Identifier: MIT
"""Enters hardirq context. SIGURG interrupts the main thread: an interrupt on one CPU.

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
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import threading
from typing import Any

from udriver.drivers.epoll_thread import EpollThread
from udriver.drivers.fd_irqchip import IN, OUT, FdIrqChip, Source, epoll_set, poll_now
from udriver.errors import UDriverError
from udriver.kernel.irq import generic_handle_irq
from udriver.kernel.threads import MainTask, Ready

__all__ = ["SignalChip"]

F_SETSIG = 10  # asm-generic/fcntl.h, as the next two
F_SETOWN_EX = 15
F_OWNER_TID = 0


class SignalChip(FdIrqChip):
    """Interrupts land on top of the main thread, between two of its bytecodes."""

    name = "signal"
    signum = signal.SIGURG
    _wanted = False
    """Whether there are lines, or will be: _handler() may run between a start and its first line."""

    def _start(self) -> None:
        self._wanted = True  # first: see _handler()
        found = signal.getsignal(self.signum)
        if found == self._handler:
            found = self._found  # the last close was on another thread, and main has not run since
        elif threading.current_thread() is not threading.main_thread():
            self._wanted = False
            raise UDriverError(
                "the signal irqchip must get its first port on the main thread, where Python runs "
                "signal handlers; open it there, or use the select irqchip"
            )
        elif found not in (signal.SIG_DFL, signal.SIG_IGN):
            self._wanted = False
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
        self._wanted = False
        if threading.current_thread() is threading.main_thread():
            self._restore_handler()
        else:
            self._interrupt()  # only the main thread may set a handler: ours does it itself

    def _forked(self) -> None:
        self._wanted = False
        if self._started:
            self._restore_handler()
        super()._forked()

    def _restore_handler(self) -> None:
        # first: drops one on its way, which the default kills by
        signal.signal(self.signum, signal.SIG_IGN)
        signal.signal(self.signum, self._found)
        MainTask.irq_signals -= {self.signum}

    def _watch(self, source: Source) -> None:
        # one shot: the watcher need not take it out, and so never touches an fd that may be another
        epoll_set(self._watcher.epoll, source.fd, None if source.masked else select.EPOLLONESHOT)
        try:
            self._set_async(source)
        except OSError:
            pass  # ENOTTY: hung up, it sends no signal any more; what it has is looked at below
        if source.masked:
            return
        if poll_now(source):
            self._interrupt()  # its edge is past; a level would still be asserted

    def _set_async(self, source: Source) -> None:
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
        if source is not None and not source.masked and poll_now(source):
            self._interrupt()

    def _interrupt(self) -> None:
        main = threading.main_thread().ident
        if main is not None:
            signal.pthread_kill(main, self.signum)

    def _handler(self, signum: int, frame: object) -> None:
        """One bit for all lines: each finds out for itself, as on a shared line."""
        if not self._wanted:
            self._restore_handler()
            if self._wanted:  # begun meanwhile on another thread, which found the handler there
                MainTask.irq_signals |= {self.signum}
                signal.signal(self.signum, self._handler)
        try:
            for source in tuple(self._sources.values()):
                if not source.masked:
                    # a signal that says "room" is sent once, before poll() agrees: the writer retries
                    alone = len(self._sources) == 1
                    source.status |= source.events & (OUT | (IN if alone else 0))
                    status = source.status or poll_now(source)
                    if status:
                        source.status = status
                        generic_handle_irq(source.irq)
        except BaseException:
            self._interrupt()  # the edge is spent, and some lines may not have been looked at
            raise

    def _found_hangup(self, ready: Ready) -> None:
        self._interrupt()
