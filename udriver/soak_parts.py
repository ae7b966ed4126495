# SPDX-License-Identifier: MIT
"""Composition. What ``udriver soak`` sets against each other: tokens on one side, a device on the other.

A ledger has one cell for each actor, which only that actor writes, so that no count needs a lock.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from udriver.drivers.usbserial import UsbSerial
from udriver.errors import DeviceGone, Timeout
from udriver.kernel.completion import (
    Completion,
    complete,
    completion_done,
    try_wait_for_completion,
    wait_for_completion_killable_timeout,
    wait_for_completion_timeout,
)

__all__ = ["MOST_AHEAD", "Device", "Tokens", "Wire"]

HANDLER_BURST = 20
WAIT_JIFFIES = 20
MOST_AHEAD = 100_000  # tokens
FRAME_TIMEOUT = 60.0  # seconds; a frame takes a few milliseconds next to threads that never rest
UNPLUG_AFTER = (0.05, 0.3)  # seconds between two unplugs


class Device(Protocol):
    """What can be pulled: a udriver_hw Loopback."""

    path: str

    def unplug(self) -> None:
        """By surprise."""
        ...


class Count:
    """A number that signal handlers add to, each on top of the other: one call into C."""

    def __init__(self) -> None:
        self.numbers = itertools.count()
        self.add = self.numbers.__next__

    def end(self) -> int:
        """How often add() was called; once, when nobody calls it any more."""
        return self.add()


class Tokens:
    """One completion that everybody posts to and takes from.

    ``shares`` are how many each producer posts: handler, main thread, threads; fewer if ``stop``.
    ``ahead`` tokens are the most that a producer lets lie: with few, consumers sleep more.
    """

    def __init__(self, shares: list[float], seed: int, ahead: int = MOST_AHEAD) -> None:
        self.event = Completion("soak")
        self.stop = Completion("soak is to stop")
        self.over = Completion("soak is over")
        self.shares = shares
        self.seed = seed
        self.ahead = ahead
        self.handler_posts = Count()
        self.handler_takes = Count()
        self.posted = [0] * len(shares)
        self.waits: list[Counter[tuple[str, bool]]] = [Counter() for _ in shares[2:]]

    def handler(self, signum: int, frame: object) -> None:
        """A signal handler: hardirq context in all but name. Takes every fourth back, if it can."""
        for number in range(HANDLER_BURST):
            if completion_done(self.stop) or self.handler_posts.add() >= self.shares[0]:
                return
            complete(self.event)
            if number % 4 == 3 and try_wait_for_completion(self.event):
                self.handler_takes.add()

    def handler_is_done(self) -> bool:
        """Whether it posts no more. The number is looked at in its repr: next() would count."""
        asked = int(repr(self.handler_posts.numbers)[len("count(") : -1])
        return asked >= self.shares[0] or completion_done(self.stop)

    def post(self, slot: int) -> None:
        """A producer: as fast as it can, but no further ahead of the consumers than memory allows."""
        while self.posted[slot] < self.shares[slot] and not completion_done(self.stop):
            complete(self.event)
            self.posted[slot] += 1
            while self.event.done > self.ahead and not completion_done(self.stop):
                time.sleep(0)

    def consume(self, slot: int) -> None:
        """A consumer: tries, sleeps, or sleeps with a time that mostly runs out."""
        chance = random.Random(self.seed + slot).random
        ended = self.waits[slot]
        while not (completion_done(self.over) and not completion_done(self.event)):
            draw = chance()
            if draw < 0.9:
                how, took = "try", try_wait_for_completion(self.event)
            elif draw < 0.95:
                how, took = "wait", wait_for_completion_timeout(self.event, WAIT_JIFFIES) > 0
            else:
                how, took = "brief", wait_for_completion_killable_timeout(self.event, 0) > 0
            ended[how, took] += 1

    def balance(self) -> dict[str, int]:
        """What was posted and what became of it; when nobody posts or takes any more."""
        by_handler = min(self.handler_posts.end(), self.shares[0])
        taken = sum(count for ended in self.waits for (_, took), count in ended.items() if took)
        return {
            "posted": int(sum(self.posted) + by_handler),
            "posted_by_handler": int(by_handler),
            "consumed": taken + self.handler_takes.end(),
            "left": self.event.done,
            "waiters_left": len(self.event.wait_queue),
        }

    def histogram(self) -> dict[str, int]:
        """How the consumers' calls ended."""
        total: Counter[tuple[str, bool]] = sum(self.waits, Counter())
        return {
            f"{how}: {'token' if took else 'none'}": total[how, took] for how, took in sorted(total)
        }


class Wire:
    """Frames through a device that is pulled and plugged in again.

    Each byte that a driver has handed over is answered by one that was read, or was under way when the
    device went; what the driver received is what was read of it and what it still holds.
    """

    def __init__(self, plug: Callable[[], Device], chance: random.Random) -> None:
        self._plug = plug
        self._chance = chance
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []

    def run(self, stop: Completion) -> None:
        """Plug, send and unplug until ``stop``, with another irqchip each time."""
        for irq in itertools.cycle(("select", "inline", "signal")):
            if completion_done(stop):
                return
            device = self._plug()
            try:
                with UsbSerial.open(device.path, irqchip=irq) as driver:
                    puller = threading.Timer(self._chance.uniform(*UNPLUG_AFTER), device.unplug)
                    puller.start()
                    try:
                        self._send(driver, stop)
                    finally:
                        puller.cancel()
                        puller.join()
                    self._balance(driver)
            finally:
                device.unplug()

    def _send(self, driver: UsbSerial, stop: Completion) -> None:
        while not completion_done(stop):
            frame = self._chance.randbytes(self._chance.randrange(1, 512))
            try:
                answer = driver.transact(frame, len(frame), FRAME_TIMEOUT)
            except DeviceGone:
                self.counts["unplugs"] += 1
                return
            except Timeout:
                self.faults.append(f"{len(frame)} bytes did not come back")
                return
            self.counts["frames"] += 1
            if answer != frame:
                self.faults.append(f"{len(frame)} bytes came back as others")

    def _balance(self, driver: UsbSerial) -> None:
        stats = driver.stats()
        under_way = stats.written - stats.received
        self.counts["bytes written"] += stats.written
        self.counts["bytes received"] += stats.received
        self.counts["bytes read"] += stats.read
        self.counts["bytes left in the kfifo"] += stats.buffered
        self.counts["bytes lost with the device"] += under_way
        if stats.received != stats.read + stats.buffered or stats.dropped or under_way < 0:
            self.faults.append(f"the driver's counts do not add up: {stats}")
        if under_way and not driver.gone:
            self.faults.append(f"{under_way} bytes are missing, and the device is there")
