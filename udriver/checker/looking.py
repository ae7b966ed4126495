# SPDX-License-Identifier: MIT
"""Looks that do not sleep: try_wait_for_completion(), completion_done(), ``done``.

They are the second look that M17 asks for, and what M9 and M23 remember.
"""

from __future__ import annotations

import sys
from typing import Any

from udriver.checker.evidence import Evidence
from udriver.checker.lifetime import Lifetime
from udriver.checker.patch import Hook
from udriver.checker.place import here, in_core
from udriver.kernel import completion
from udriver.kernel.completion import Completion

__all__ = ["Looking"]


class Looking:
    """Hooks of whoever looks."""

    def __init__(self, evidence: Evidence, lifetime: Lifetime) -> None:
        self._evidence = evidence
        self._lifetime = lifetime

    def hooks(self) -> dict[Any, Hook]:
        """Function of the core: what is called instead."""
        done: Any = Completion.done
        return {
            completion.try_wait_for_completion: self.try_wait,
            Completion.try_wait_into: self.try_wait_into,
            completion.completion_done: self.completion_done,
            done.fget: self.read_done,
        }

    def try_wait(self, original: Hook, x: Completion) -> bool:
        """Takes a token or says that there is none; both are a second look (M17)."""
        if not self._lifetime.initialised(x, "try_wait_for_completion()"):
            return bool(original(x))
        record = self._evidence.of(x)
        found = bool(original(x))
        record.settle()
        if found and record.opened is None and record.posts:
            try:
                record.posts.popleft()
            except IndexError:
                pass
        if found:
            record.last = record.polled = None
        return found

    def try_wait_into(self, original: Hook, x: Completion, taken: list[object]) -> bool:
        """The same."""
        return self.try_wait(lambda x: original(x, taken), x)

    def completion_done(self, original: Hook, x: Completion) -> bool:
        """Remembered if it says yes, for what is made of that (M23)."""
        if not self._lifetime.initialised(x, "completion_done()"):
            return bool(original(x))
        record = self._evidence.of(x)
        done = bool(original(x))
        if not in_core(sys._getframe(2)):
            record.settle()
            if done:
                record.done_seen, record.polled = here(), None
        return done

    def read_done(self, original: Hook, x: Completion) -> int:
        """``x.done`` orders nothing: remembered if it is not 0, for a free that follows (M9)."""
        done = int(original(x))
        if done and not in_core(sys._getframe(2)):
            record = self._evidence.find(x)
            if record is not None:
                record.polled = here()
        return done
