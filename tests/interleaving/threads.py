# SPDX-License-Identifier: MIT
"""Real threads at full speed on one completion, for an interpreter without the GIL. Stdlib only.

    PYTHONPATH=. python3.13t -X faulthandler -m tests.interleaving.threads --waits timed

It says whether each token was taken once and whether somebody sleeps beside a token. It proves nothing
when it finds nothing; where it crashes the interpreter, that is its result. Exit status: 0 or 1.
"""

from __future__ import annotations

import argparse
import platform
import sys
import threading
import time

from udriver.kernel.completion import Completion, complete, wait_for_completion_timeout

LONG = 60_000  # jiffies
SHORT = 1
SETTLE_S = 5.0


class Stress:
    """Threads that wait, and threads that complete as long as not too many tokens are left."""

    def __init__(self, waiters: int, completers: int, timed: bool) -> None:
        self.x = Completion("x")
        self.taken, self.posted = [0] * waiters, [0] * completers
        self.errors: list[BaseException] = []
        self._timeout = SHORT if timed else LONG
        self._over = self._closing = False
        self._threads = [
            *(threading.Thread(target=self._guarded, args=(self._wait, n), daemon=True)
              for n in range(waiters)),
            *(threading.Thread(target=self._guarded, args=(self._complete, n), daemon=True)
              for n in range(completers)),
        ]  # fmt: skip

    def run(self, seconds: float) -> list[str]:
        """What went wrong."""
        for thread in self._threads:
            thread.start()
        time.sleep(seconds)
        self._over = True
        for thread in self._threads[len(self.taken) :]:
            thread.join()
        wrong = [repr(error) for error in self.errors]
        if self._timeout == LONG and not self._settles():
            asleep = len(self.x.wait_queue)
            wrong.append(f"lost wake-up: {asleep} sleep, and done is {self.x.done}")
        self._closing = True
        extra = 0
        while any(thread.is_alive() for thread in self._threads) and extra < 100:
            complete(self.x)
            extra += 1
            time.sleep(0.01)
        balance = sum(self.posted) + extra - sum(self.taken) - self.x.done
        if balance:
            wrong.append(f"{balance} tokens were posted, and neither taken nor left")
        return wrong

    def _settles(self) -> bool:
        """Whether it comes to a rest at which nobody sleeps beside a token."""
        end = time.monotonic() + SETTLE_S
        while self.x.done and len(self.x.wait_queue):
            if time.monotonic() > end:
                return False
            time.sleep(0.01)
        return True

    def _guarded(self, work: object, number: int) -> None:
        try:
            work(number)  # type: ignore[operator]
        except BaseException as error:  # noqa: BLE001 - told at the end
            self.errors.append(error)

    def _wait(self, number: int) -> None:
        while not self._closing:
            self.taken[number] += wait_for_completion_timeout(self.x, self._timeout) > 0

    def _complete(self, number: int) -> None:
        while not self._over:
            if self.x.done < 50:
                self.posted[number] += 1
                complete(self.x)


def main() -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser("tests.interleaving.threads")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--waiters", type=int, default=2)
    parser.add_argument("--completers", type=int, default=2)
    parser.add_argument("--waits", choices=("untimed", "timed"), default="untimed")
    given = parser.parse_args()
    stress = Stress(given.waiters, given.completers, given.waits == "timed")
    wrong = stress.run(given.seconds)
    gil = getattr(sys, "_is_gil_enabled", bool)() or sys.version_info < (3, 13)
    print(
        f"CPython {platform.python_version()}, GIL {'on' if gil else 'off'}, {given.waits}:",
        f"{sum(stress.posted):,} posted, {sum(stress.taken):,} taken;",
        "; ".join(wrong) or "nothing wrong",
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
