# SPDX-License-Identifier: MIT
"""TIOCMIWAIT: the one call that sleeps until a modem line changes, and the way out of it.

It has no timeout, poll() knows nothing of it, and closing the fd does not end it, because the call
itself holds the file. Only an edge, a hangup (EIO) and a signal that has a handler end it. So:

* Called through ctypes, which hands EINTR on; fcntl.ioctl() would begin again. The GIL is free meanwhile.
* The signal goes to the one thread that waits. Its handler is ``getpid``: a handler in C that does
  nothing, so no Python code runs for it, and neither the user's handlers nor the main thread see it.
  Not a handler by signal.signal(): that needs the main thread, and wakes it.
* SIGURG, which does nothing by default, as our handler does. It may have a handler already: the
  signal irqchip's is as good, and looks at its lines once for nothing. If it is somebody else's, a
  real-time signal that nobody uses is taken.
* The handler is never taken back. A signal on its way would then meet the default, and that of a
  real-time signal kills.
"""

from __future__ import annotations

import ctypes
import signal
import termios
import time
from ctypes import CDLL, c_int, c_long, c_ulong, c_void_p
from functools import cache

from udriver.kernel.threads import MainTask

__all__ = ["INPUTS", "is_inside", "kick_signal", "longest_wake", "miwait"]

TIOCMIWAIT = 0x545C  # asm-generic/ioctls.h
INPUTS = termios.TIOCM_CTS | termios.TIOCM_DSR | termios.TIOCM_CD | termios.TIOCM_RI

SIG_DFL, SIG_IGN = 0, 1
TIMER_ABSTIME = 1
WAKES = 16  # timed ones, to know how late a thread wakes
NAP_NS = 200_000


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", c_long), ("tv_nsec", c_long))


@cache
def _libc() -> CDLL:
    libc = CDLL(None, use_errno=True)
    libc.ioctl.argtypes = [c_int, c_ulong, c_ulong]
    libc.signal.argtypes = [c_int, c_void_p]
    libc.signal.restype = c_void_p
    libc.sigaction.argtypes = [c_int, c_void_p, c_void_p]
    return libc


def miwait(fd: int) -> int:
    """Sleep until one of the four lines changes: 0, or the errno. EINTR: kicked. EIO: hung up."""
    if _libc().ioctl(fd, TIOCMIWAIT, INPUTS) == 0:
        return 0
    return ctypes.get_errno()


def is_inside(tid: int, fd: int) -> bool | None:
    """Whether the thread with this kernel id sleeps in miwait(fd); None where /proc does not say."""
    try:
        with open(f"/proc/self/task/{tid}/syscall") as file:
            call = file.read().split()
    except OSError:
        return None
    return len(call) > 2 and (call[1], call[2]) == (hex(fd), hex(TIOCMIWAIT))


def kick_signal() -> int:
    """A signal that ends miwait() on the thread it is sent to, and does nothing else."""
    signum: int
    for signum in (int(signal.SIGURG), *range(signal.SIGRTMAX, signal.SIGRTMIN - 1, -1)):
        if signum in MainTask.irq_signals:
            return signum
        handler = _handler_of(signum)
        if handler in (SIG_DFL, SIG_IGN):
            was = _libc().signal(signum, _nothing()) or 0
            if was not in (SIG_DFL, SIG_IGN, _nothing()):  # the signal irqchip began meanwhile
                _libc().signal(signum, was)
        if handler in (SIG_DFL, SIG_IGN, _nothing()):
            _libc().siginterrupt(signum, 1)  # each time: Ctrl-C may have come between the two
            return signum
    raise OSError("every real-time signal has a handler; free one, or poll the lines")


def _nothing() -> int | None:
    return ctypes.cast(_libc().getpid, c_void_p).value  # signal-safe (POSIX), and has no effect


def _handler_of(signum: int) -> int:
    found = ctypes.create_string_buffer(256)  # struct sigaction; the handler is its first member
    _libc().sigaction(signum, None, found)
    return int(c_void_p.from_buffer(found).value or 0)


def longest_wake() -> int:
    """How late this thread woke, and got the GIL, at most: ns, the longest of 16 timed sleeps."""
    late = 0
    for _ in range(WAKES):
        at = time.monotonic_ns() + NAP_NS
        until = _Timespec(at // 1_000_000_000, at % 1_000_000_000)
        _libc().clock_nanosleep(time.CLOCK_MONOTONIC, TIMER_ABSTIME, ctypes.byref(until), None)
        late = max(late, time.monotonic_ns() - at)
    return late
