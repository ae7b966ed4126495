# SPDX-License-Identifier: MIT
"""Whether a process can ever go on: a deadlock is seen, not timed.

A process in which each thread sleeps in a system call without a time limit, and none of them has run
between two looks, stays as it is until somebody outside acts. Linux says so in
/proc/PID/task/TID/syscall. A timeout instead would take a second for each of the standard
library's hundreds of deadlocks, and would call a slow machine a deadlock.
"""

from __future__ import annotations

import os
import platform

__all__ = ["KNOWN_MACHINE", "Sleeps", "at_rest"]

FOREVER_MS = 10_000  # an epoll that sleeps longer is as good as untimed: a loop's idle tick
# system call number: which argument limits its sleep, and whether that is a number of ms or a pointer
_LIMITS: dict[str, dict[int, tuple[int, bool] | None]] = {
    "x86_64": {
        0: None,  # read
        7: (2, True),  # poll
        202: (3, False),  # futex
        232: (3, True),  # epoll_wait
        271: (2, False),  # ppoll
        281: (3, True),  # epoll_pwait
    },
    "aarch64": {63: None, 73: (2, False), 98: (3, False), 22: (3, True)},
}
_LIMIT_OF = _LIMITS.get(platform.machine(), {})
_FUTEX = {"x86_64": 202, "aarch64": 98}.get(platform.machine())
# sem_wait and condition variables sleep in FUTEX_WAIT_BITSET; what sleeps in FUTEX_WAIT wants a C mutex,
# the GIL's for one, whose holder has it for nanoseconds of its own time and may be off the CPU
_FUTEX_WAIT = 0
KNOWN_MACHINE = bool(_LIMIT_OF)

Sleeps = dict[int, int]
"""For each thread how often it has gone to sleep; equal in two looks: nobody has run between."""


def at_rest(pid: int | str, besides: frozenset[int] = frozenset()) -> Sleeps | None:
    """The sleeps of all threads of ``pid`` but those ``besides``; None if one of them may go on."""
    sleeps = {}
    try:
        for name in os.listdir(f"/proc/{pid}/task"):
            if (tid := int(name)) not in besides:
                count = _asleep(f"/proc/{pid}/task/{name}")
                if count is None:
                    return None
                sleeps[tid] = count
    except (FileNotFoundError, ProcessLookupError):
        return None  # ended while we looked: so it went on
    return sleeps


def _asleep(task: str) -> int | None:
    """How often this thread has gone to sleep, if it sleeps without a limit now."""
    with open(f"{task}/status", "rb") as status:
        text = status.read()
    if b"\nState:\tS" not in text:
        return None  # a thread that was woken and has not run yet still shows its system call
    count = int(text.partition(b"\nvoluntary_ctxt_switches:")[2].partition(b"\n")[0])
    with open(f"{task}/syscall", "rb") as syscall:
        words = syscall.read().split()
    if len(words) < 8 or int(words[0]) not in _LIMIT_OF:
        return None
    if int(words[0]) == _FUTEX and int(words[2], 16) & 0x7F == _FUTEX_WAIT:
        return None
    where = _LIMIT_OF[int(words[0])]
    if where is None:
        return count
    limit = int(words[1 + where[0]], 16)
    if where[1]:
        limit &= 0xFFFFFFFF
        return count if limit >= FOREVER_MS else None
    return None if limit else count
