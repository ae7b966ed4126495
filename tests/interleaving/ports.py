# SPDX-License-Identifier: MIT
"""What the core is given in place of its shared state: objects that hold nothing.

Each operation on one of them asks (:class:`Asker`), and is given an answer. So the core can neither
learn nor change anything that another task sees without asking, and the places where it asks are all
the places where interleaving matters: the set of scheduling points is complete by construction.
What stays outside is private to a task; see PRIVATE in test_points.py.

Not in the seam's place: :class:`udriver.kernel.threads.ThreadScheduler` itself. Its wake-up is a
store or an eventfd, here a flag that stays up until a sleep takes it, and a sleep may end late for a timer.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from udriver.kernel import completion as kernel
from udriver.kernel import sched, swait
from udriver.kernel.sched import (
    MAX_SCHEDULE_TIMEOUT,
    TASK_INTERRUPTIBLE,
    TASK_KILLABLE,
    TASK_RUNNING,
    Task,
)

JIFFIES = 100  # a timed wait's timeout
LEFT = 50  # what is left of it when it did not run out
ENDED_BY_STATE = {
    TASK_INTERRUPTIBLE: (signal.SIGUSR1, signal.SIGKILL),
    TASK_KILLABLE: (signal.SIGKILL,),
}


class Ask(NamedTuple):
    """One operation on shared state; ``what`` is a key of machine.EFFECTS."""

    what: str
    arg: Any = None


Asker = Callable[[Ask], Any]


class _Bare:
    """Refuses each operation that is not spelt out: it would be a point that nobody sees."""

    def __init__(self, ask: Asker) -> None:
        self.ask = ask

    def __getattr__(self, name: str) -> Any:
        raise NotImplementedError(f"no point covers {type(self).__name__}.{name}")


class Tokens(_Bare):
    """The deque behind ``done``: the one that its task has loaded last."""

    latest: Callable[[], bool] = bool  # nobody has loaded it yet, nobody may use it

    def append(self, _token: None) -> None:
        self._ask(Ask("post"))

    def pop(self) -> None:
        if not self._ask(Ask("take")):
            raise IndexError

    def __bool__(self) -> bool:
        return self._ask(Ask("some"))  # type: ignore[no-any-return]

    def __len__(self) -> int:
        return self._ask(Ask("count"))  # type: ignore[no-any-return]

    def _ask(self, question: Ask) -> Any:
        if not self.latest():
            raise NotImplementedError("no point covers a deque that was loaded before another")
        return self.ask(question)


class Line(_Bare):
    """The OrderedDict of sleepers: ``task_list``."""

    def __bool__(self) -> bool:
        return self.ask(Ask("line?"))  # type: ignore[no-any-return]

    def __len__(self) -> int:
        return self.ask(Ask("line#"))  # type: ignore[no-any-return]

    def setdefault(self, _entry: object, _task: Task) -> None:
        self.ask(Ask("enqueue"))

    def pop(self, _entry: object, default: None) -> object:
        return True if self.ask(Ask("remove")) else default

    def popitem(self, last: bool) -> tuple[Callable[[], None], object]:
        assert not last, "no point covers the tail"
        if not (self.ask(Ask("head")) and self.ask(Ask("pop"))):
            raise KeyError("dictionary is empty")
        return self._wake, None

    def clear(self) -> None:
        self.ask(Ask("clear"))

    def _wake(self) -> None:
        self.ask(Ask("wake", None))


class X(kernel.Completion):
    """A completion whose ``_done`` is loaded and stored by asking; the queue is the real one."""

    __slots__ = ("ask", "loads")

    def __init__(self, ask: Asker) -> None:
        self.name = "x"
        self.ask = ask
        self.loads = 0
        with replaced(swait, "OrderedDict", partial(Line, ask)):
            self.wait_queue = swait.SwaitQueueHead()

    @property
    def _done(self) -> Any:
        if self.ask(Ask("ref")) == "open":
            return kernel._DONE_FOR_GOOD
        self.loads += 1
        done, loaded = kernel._Done(), self.loads
        done.some.latest = lambda: self.loads == loaded
        return done

    @_done.setter
    def _done(self, done: kernel._Done) -> None:
        if type(done) not in (kernel._Done, kernel._DoneForGood):
            raise NotImplementedError(f"no point covers {done!r}")
        self.ask(Ask("ref=", "open" if done is kernel._DONE_FOR_GOOD else "new"))


class Pending(_Bare):
    """``task.pending`` of the task ``whose``, as it was loaded."""

    def append(self, sig: int) -> None:
        self.ask(Ask("pend+", int(sig)))

    def __bool__(self) -> bool:
        return bool(self.ask(Ask("pend*")))

    def __len__(self) -> int:
        return len(self.ask(Ask("pend*")))

    def __iter__(self) -> Iterator[int]:
        return iter(self.ask(Ask("pend*")))

    def __getitem__(self, _all: slice) -> list[int]:
        return list(self)

    def __delitem__(self, first: slice) -> None:
        self.ask(Ask("pend-", first.stop))


class PortTask(Task):
    """A task: ``whose`` is None for the caller's own, else a number."""

    __slots__ = ("_state", "ask", "whose")

    def __init__(self, ask: Asker, whose: int | None = None) -> None:
        self.comm = "task"
        self.ask = ask
        self.whose = whose
        self._state = TASK_RUNNING
        self.syscall_depth = 0
        self.timer = None
        self.in_iowait = False
        self.nvcsw = 0
        self.leaves = None

    @property
    def pending(self) -> Any:
        self.ask(Ask("pend@", self.whose))
        return Pending(self.ask)

    @pending.setter
    def pending(self, sigs: list[int]) -> None:
        self.ask(Ask("pend=", tuple(sigs)))

    @property
    def state(self) -> int:
        return self._state  # read by its owner where it is RUNNING: no waker changes that

    @state.setter
    def state(self, state: int) -> None:
        self._state = state
        self.ask(Ask("state=", state == TASK_RUNNING))


class Seam:
    """The scheduler."""

    def __init__(self, ask: Asker) -> None:
        self.ask = ask
        self.me = PortTask(ask)

    def current(self) -> Task:
        return self.me

    signal_pending_state = staticmethod(sched.signal_pending_state)

    def schedule_timeout(self, timeout: int) -> int:
        timed = timeout != MAX_SCHEDULE_TIMEOUT
        ended_by = ENDED_BY_STATE.get(self.me.state, ())
        if self.ask(Ask("sleep", (timed, ended_by))) == "late":
            return 0
        return LEFT if timed else timeout

    def wake_up_process(self, task: Task) -> None:
        assert isinstance(task, PortTask)
        self.ask(Ask("wake", "me" if task is self.me else task.whose))


def substituted(ask: Asker) -> Any:
    """While it is entered, the core's deques of tokens ask."""

    def made(iterable: Any = (), maxlen: int | None = None) -> Any:
        return Tokens(ask) if maxlen == kernel.UINT_MAX else deque(iterable, maxlen)

    return replaced(kernel, "deque", made)


@contextmanager
def replaced(module: Any, name: str, what: object) -> Iterator[None]:
    """As mock.patch.object(), whose checks were a quarter of the time that the explorer takes."""
    before = getattr(module, name)
    setattr(module, name, what)
    try:
        yield
    finally:
        setattr(module, name, before)
