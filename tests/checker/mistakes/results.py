# SPDX-License-Identifier: MIT
"""M6, M7, M18: the timeout that goes in and the result that comes out."""

from __future__ import annotations

from errno import ETIMEDOUT

import pytest

from tests.checker.mistakes.case import (
    LONG,
    TICK,
    Case,
    signalled,
)
from udriver.kernel.completion import (
    Completion,
    complete,
    wait_for_completion,
    wait_for_completion_interruptible,
    wait_for_completion_interruptible_timeout,
    wait_for_completion_killable,
    wait_for_completion_timeout,
)
from udriver.kernel.sched import ERESTARTSYS, HZ


class M6_below_zero(Case):
    def mistake(self) -> None:
        x = Completion("x")
        left = wait_for_completion_timeout(x, TICK)  # 2nd
        assert not left < 0  # 1st

    def mended(self) -> None:
        x = Completion("x")
        assert wait_for_completion_timeout(x, TICK) == 0


class M6_success_is_an_error(Case):
    def transfer(self, x: Completion) -> None:
        left = wait_for_completion_timeout(x, LONG)  # 2nd
        if left != 0:  # 1st
            raise OSError

    def right(self, x: Completion) -> None:
        left = wait_for_completion_timeout(x, LONG)
        if left == 0:
            raise OSError

    def mistake(self) -> None:
        x = Completion("x")
        complete(x)
        with pytest.raises(OSError):  # noqa: PT011
            self.transfer(x)

    def mended(self) -> None:
        x = Completion("x")
        complete(x)
        self.right(x)


class M6_truth_of_a_signal(Case):
    def mistake(self) -> None:
        x = Completion("x")
        signalled()
        left = wait_for_completion_interruptible_timeout(x, LONG)  # 2nd
        assert left  # 1st

    def mended(self) -> None:
        x = Completion("x")
        signalled()
        left = wait_for_completion_interruptible_timeout(x, LONG)
        assert left < 0


class M6_never_asked_for_a_signal(Case):
    def transfer(self, x: Completion) -> int:
        left = wait_for_completion_interruptible_timeout(x, LONG)  # 2nd
        if left == 0:  # 1st
            return -110
        return 0

    def right(self, x: Completion) -> int:
        left = wait_for_completion_interruptible_timeout(x, LONG)
        if left < 0:
            return left
        return 0 if left else -110

    def careful(self, x: Completion) -> int:
        left = wait_for_completion_interruptible_timeout(x, LONG)
        if left < 0:
            return left
        return -110 if left == 0 else 0

    def mistake(self) -> None:
        x = Completion("x")
        signalled()
        assert self.transfer(x) == 0

    def mended(self) -> None:
        x = Completion("x")
        signalled()
        assert self.careful(x) == -ERESTARTSYS


class M6_narrowed(Case):
    def mistake(self) -> None:
        x = Completion("x")
        signalled()
        left = wait_for_completion_interruptible_timeout(x, LONG)  # 2nd
        assert left & 0xFFFFFFFF  # 1st

    def mended(self) -> None:
        x = Completion("x")
        assert wait_for_completion_timeout(x, TICK) & 0xFFFFFFFF == 0


class M6_status(Case):
    def mistake(self) -> None:
        x = Completion("x")
        complete(x)
        status = wait_for_completion_killable(x)  # 2nd
        assert not status > 0  # 1st

    def mended(self) -> None:
        x = Completion("x")
        complete(x)
        status = wait_for_completion_killable(x)
        if status:
            raise InterruptedError


class M6_conditional_expression(Case):
    def transfer(self, x: Completion) -> int:
        return -ETIMEDOUT if wait_for_completion_timeout(x, LONG) else 0  # 1st, 2nd

    def right(self, x: Completion) -> int:
        return 0 if wait_for_completion_timeout(x, LONG) else -ETIMEDOUT

    def mistake(self) -> None:
        x = Completion("x")
        complete(x)
        assert self.transfer(x) == -ETIMEDOUT

    def mended(self) -> None:
        x = Completion("x")
        complete(x)
        assert self.right(x) == 0


class M7(Case):
    def mistake(self) -> None:
        x = Completion("x")  # 2nd
        wait_for_completion_timeout(x, TICK)  # 1st

    def mended(self) -> None:
        x = Completion("x")
        if not wait_for_completion_timeout(x, TICK):
            return


class M7_interruptible(Case):
    def mistake(self) -> None:
        x = Completion("x")  # 2nd
        complete(x)
        wait_for_completion_interruptible(x)  # 1st

    def mended(self) -> None:
        x = Completion("x")
        complete(x)
        wait_for_completion(x)  # gives nothing


class M7_never_read(Case):
    def transfer(self, x: Completion) -> int:
        left = wait_for_completion_timeout(x, TICK)  # 1st  # noqa: F841
        return 0

    def right(self, x: Completion) -> int:
        left = wait_for_completion_timeout(x, TICK)
        return 0 if left else -ETIMEDOUT

    def mistake(self) -> None:
        x = Completion("x")  # 2nd
        assert self.transfer(x) == 0

    def mended(self) -> None:
        assert self.right(Completion("x")) == -ETIMEDOUT


class M7_in_a_function_around_it(Case):
    def wait(self, x: Completion) -> int:
        return wait_for_completion_timeout(x, TICK)  # 1st

    def mistake(self) -> None:
        x = Completion("x")  # 2nd
        self.wait(x)

    def mended(self) -> None:
        assert self.wait(Completion("x")) == 0


class M18_zero(Case):
    def mistake(self) -> None:
        x = Completion("x")  # 2nd
        assert not wait_for_completion_timeout(x, 1 // 2 * HZ)  # 1st

    def mended(self) -> None:
        x = Completion("x")
        assert not wait_for_completion_timeout(x, max(1, HZ // 500))


class M18_bare(Case):
    def mistake(self) -> None:
        x = Completion("x")  # 2nd
        complete(x)
        assert wait_for_completion_timeout(x, 1000)  # 1st

    def mended(self) -> None:
        x = Completion("x")
        complete(x)
        assert wait_for_completion_timeout(x, HZ)


class M18_negative(Case):
    def mistake(self) -> None:
        x = Completion("x")  # 2nd
        complete(x)
        assert wait_for_completion_timeout(x, -TICK)  # 1st

    def mended(self) -> None:
        x = Completion("x")
        complete(x)
        assert wait_for_completion_timeout(x, TICK)
