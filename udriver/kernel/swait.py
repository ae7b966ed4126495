# SPDX-License-Identifier: MIT
"""The FIFO wait queue: who sleeps, in the order in which they are to be woken.

The kernel guards this list and ``done`` with one raw spinlock and switched-off interrupts.
Neither exists here: a lock deadlocks when a signal handler interrupts its holder on the same
thread. What cannot be interrupted is one call into C, under the GIL neither by a handler nor
by a thread, but for one place: the wake-up is a write(2), during which other threads run. So each
step below that must not be cut in two *is* one C call, with the wake-up at its end:

* ``swake_up_one()``: dequeue the head and wake it. A handler that raised between the two would
  leave a waiter that nobody knows, asleep.
* ``deque(islice(wakes, n), 0)``: the same for the first ``n``. Not "until it is empty": a waiter that
  comes back to the queue would be woken again, and again.
* a waiter is queued by ``setdefault`` (keeps its place when it is queued already) and leaves by
  ``pop``, which also says whether somebody has dequeued it meanwhile. Both are O(1).

An entry is the call that wakes its owner, bound to the scheduler it sleeps in.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from operator import call, itemgetter

from udriver.kernel.sched import Task

__all__ = ["Entry", "SwaitQueueHead"]

Entry = Callable[[], object]
_first = itemgetter(0)


class SwaitQueueHead:
    """``struct swait_queue_head``: a FIFO list of sleepers.

    ``task_list`` maps each entry to its task, head first. ``swake_up_one()`` raises KeyError on an
    empty queue. ``wakes`` is what it draws on: each ``next()`` dequeues the head and wakes it.

    Context: Any context.
    """

    __slots__ = ("swake_up_one", "task_list", "wakes")

    def __init__(self) -> None:
        self.task_list: OrderedDict[Entry, Task] = OrderedDict()
        # iter(f, sentinel) calls f for ever: no entry equals None, and a KeyError does not end it
        heads = iter(partial(self.task_list.popitem, False), None)
        self.wakes: Iterator[object] = map(call, map(_first, heads))
        self.swake_up_one: Entry = partial(next, self.wakes)

    def __len__(self) -> int:
        return len(self.task_list)

    def __iter__(self) -> Iterator[Task]:
        """The sleepers, head first; a snapshot.

        Context: Any context.
        """
        return iter(list(self.task_list.values()))
