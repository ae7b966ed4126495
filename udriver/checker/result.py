# SPDX-License-Identifier: MIT
"""M6: results of waits that watch how they are tested.

Integers in every other respect. ``TimeLeft`` is of the timed waits (0 is a timeout, at least 1 is
not, and -512 is a signal where signals are allowed), ``Status`` of the others (0 is success).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple, Self

from udriver.checker import bytecode
from udriver.checker.place import Place, here
from udriver.checker.report import Reports
from udriver.kernel.sched import ERESTARTSYS

__all__ = ["Call", "Status", "TimeLeft"]


class Call(NamedTuple):
    """The wait whose result it is. ``failing`` is called when its caller fails for want of a token."""

    function: str
    place: Place
    reports: Reports
    failing: Callable[[], None]


class _Watched(int):
    _call: Call

    @classmethod
    def of(cls, value: int, call: Call) -> Self:
        """``value``, returned by ``call``."""
        watched = cls(value)
        watched._call = call
        return watched

    def _wrong(self, test: str) -> None:
        self._call.reports.add(
            "M6", f"{self._call.function}() {test}",
            ("the test", here()), ("the wait whose result it is", self._call.place),
        )  # fmt: skip

    def _tested(self, outcome: bool) -> bool:
        """Note whether a test that says ``outcome`` ends in an error."""
        if self._without_token() and bytecode.fails_when(sys._getframe(2), outcome):
            self._call.failing()
        return outcome

    def _without_token(self) -> bool:
        raise NotImplementedError


class TimeLeft(_Watched):
    """0, or at least 1; or -ERESTARTSYS, if ``signals``."""

    __hash__ = int.__hash__  # __eq__ below would take it away
    _signals = False
    _asked_for_zero: Place | None = None  # where, and it was not
    _asked_for_sign = False

    @classmethod
    def of(cls, value: int, call: Call) -> Self:
        """As in the base class."""
        watched = super().of(value, call)
        watched._signals = "interruptible" in call.function or "killable" in call.function
        return watched

    def _without_token(self) -> bool:
        return int.__le__(self, 0)

    def _fails_on_success(self, outcome: bool) -> None:
        if not self._signals and bytecode.fails_when(sys._getframe(2), outcome):
            self._wrong("takes what is not 0, success, for an error")

    def _ask_for_zero(self) -> None:
        if int.__ne__(self, 0):
            self._asked_for_zero = here()

    def __bool__(self) -> bool:
        self._fails_on_success(True)
        self._ask_for_zero()  # `not ret` is C's `!ret`: right, if < 0 is asked before it or after it
        return self._tested(int.__ne__(self, 0))

    def __eq__(self, other: object) -> bool:
        if other == 0:
            self._fails_on_success(False)
            self._ask_for_zero()
        elif other == -ERESTARTSYS:
            self._asked_for_sign = True
            if not self._signals:
                self._wrong("compared with -ERESTARTSYS, which it never returns")
        return self._tested(int.__eq__(self, other))

    def __ne__(self, other: object) -> bool:
        if other == 0:
            self._fails_on_success(True)
            self._ask_for_zero()
        return self._tested(int.__ne__(self, other))

    def __lt__(self, other: int) -> bool:
        self._asked_for_sign = True
        if other == 0 and not self._signals and self._asked_for_zero is None:
            self._wrong("tested for < 0, which it never is: a timeout is 0")
        return self._tested(int.__lt__(self, other))

    def __ge__(self, other: int) -> bool:
        self._asked_for_sign = True
        if other == 0 and self._asked_for_zero is None:
            self._wrong("tested for >= 0, which takes a timeout for success")
        return self._tested(int.__ge__(self, other))

    def __le__(self, other: int) -> bool:
        self._asked_for_sign = True
        return self._tested(int.__le__(self, other))

    def __gt__(self, other: int) -> bool:
        self._asked_for_sign = True
        if other == 0:
            self._fails_on_success(True)
        return self._tested(int.__gt__(self, other))

    def __and__(self, other: int) -> int:
        if self._signals and other >= 0:
            self._asked_for_sign = True
            self._wrong(f"cut with & {other:#x}, which makes -ERESTARTSYS a success")
        return int.__and__(self, other)

    __rand__ = __and__

    def __mod__(self, other: int) -> int:
        if self._signals and other >= 2**16:
            self._asked_for_sign = True
            self._wrong("made unsigned, which makes -ERESTARTSYS a success")
        return int.__mod__(self, other)

    def __abs__(self) -> int:
        if self._signals:
            self._asked_for_sign = True
            self._wrong("made unsigned, which makes -ERESTARTSYS a success")
        return int.__abs__(self)

    def __del__(self) -> None:
        if self._signals and self._asked_for_zero is not None and not self._asked_for_sign:
            self._call.reports.add(
                "M6", f"{self._call.function}() tested for 0 or for truth and never for < 0, which a signal gives",
                ("the test", self._asked_for_zero),
                ("the wait whose result it is", self._call.place),
            )  # fmt: skip


class Status(_Watched):
    """0 with a token, -ERESTARTSYS without."""

    __hash__ = int.__hash__

    def __bool__(self) -> bool:
        if bytecode.fails_when(sys._getframe(1), False):
            self._wrong("takes 0, success, for an error")
        return self._tested(int.__ne__(self, 0))

    def _without_token(self) -> bool:
        return int.__ne__(self, 0)

    def __eq__(self, other: object) -> bool:
        if other == 0 and bytecode.fails_when(sys._getframe(1), True):
            self._wrong("takes 0, success, for an error")
        elif isinstance(other, int) and other > 0:
            self._wrong(f"compared with {other}: success is 0")
        return self._tested(int.__eq__(self, other))

    def __ne__(self, other: object) -> bool:
        return self._tested(int.__ne__(self, other))

    def __gt__(self, other: int) -> bool:
        if other == 0:
            self._wrong("tested for > 0, which it never is: success is 0")
        return self._tested(int.__gt__(self, other))

    def __ge__(self, other: int) -> bool:
        if other == 1:
            self._wrong("tested for >= 1, which it never is: success is 0")
        return self._tested(int.__ge__(self, other))
