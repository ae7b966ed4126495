# SPDX-License-Identifier: MIT
"""In the guest: pull the adapter while the driver does this or that, plug it in, go on; and again.

Usage: unplug_cycles.py IRQCHIP CYCLES. Prints a histogram of how long after the hangup the sleeper
was awake with ENODEV, and one JSON object. The far end echoes, so each generation is used before
it is pulled; the hangup is when a poll() of a second fd on the tty reports it.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import select
import sys
import termios
import threading
import time
from collections import Counter
from collections.abc import Callable

from hdrh.histogram import HdrHistogram

from udriver import DeviceGone, UsbSerial
from udriver.drivers import bus
from udriver.drivers.hotplug import Follower
from udriver.kernel import sched
from udriver.pytest_plugin import Resources
from vm.guest import Rig

ACTIVITIES: dict[str, Callable[[UsbSerial], object]] = {
    "read": lambda driver: driver.read(timeout=20),
    "readline": lambda driver: driver.readline(timeout=20),
    "write": lambda driver: [driver.write(b"w", timeout=20) for _ in itertools.count()],
    "flush": lambda driver: [driver.flush(timeout=20) for _ in itertools.count()],
    "modem lines": lambda driver: driver.wait_modem_lines(termios.TIOCM_RI, timeout=20),
}


class Hangup(threading.Thread):
    """Notes the instant at which the tty hangs up."""

    def __init__(self, path: str) -> None:
        super().__init__(name="hangup")
        self._fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        self.at_ns = 0
        self.start()

    def run(self) -> None:
        """Sleep on nothing but the hangup."""
        poll = select.poll()
        poll.register(self._fd, 0)
        poll.poll(30_000)
        self.at_ns = time.monotonic_ns()
        os.close(self._fd)


def pull(rig: Rig, driver: UsbSerial, activity: str) -> float:
    """Unplug in the middle of ``activity``; milliseconds from the hangup to DeviceGone."""
    hangup = Hangup(driver.port.device)
    ticket = rig.ask("unplug", after=0.1)
    try:
        ACTIVITIES[activity](driver)
    except DeviceGone as gone:
        awake_ns = time.monotonic_ns()
        if gone.errno != errno.ENODEV:
            raise
    ticket.moment()
    hangup.join()
    return (awake_ns - hangup.at_ns) / 1e6


def main(irq: str, cycles: int) -> int:
    """Run the cycles; 0 if all that was counted adds up."""
    wakes = HdrHistogram(1, 60_000_000, 3)  # us
    bound_ms, late, idle, astray = 100.0, 0, 0, 0
    states = itertools.cycle([*ACTIVITIES, "nothing"])
    with Rig() as rig:
        sched.active().current()  # the main thread's place to sleep stays open from its first use
        (tty,) = bus.usb_ttys()
        with Follower(tty, irqchip=irq) as follower:
            follower.driver().flush(timeout=10)  # opens what the first flush opens
            before = held()
            for number, activity in zip(range(cycles), states, strict=False):
                driver = follower.driver(timeout=30)
                token = b"<%d>" % number
                astray += driver.transact(token, len(token), timeout=10) != token
                if activity == "nothing":
                    idle += 1
                    rig.unplug()
                else:
                    ms = pull(rig, driver, activity)
                    late += ms > bound_ms
                    wakes.record_value(max(1, int(ms * 1000)))
                rig.plug()
                wait_for(lambda generation=number + 2: follower.generation >= generation)
                old = driver.rx_ready
                old.complete()  # a completion that comes late
                assert follower.driver(timeout=30).rx_ready is not old
                assert not follower.driver(timeout=30).rx_ready.done
                stats = driver.stats()
                astray += stats.received - stats.read - stats.dropped - stats.buffered
            wait_for(lambda: not follower.driver(timeout=30).gone)
            follower.driver().flush(timeout=10)
            leaked = [f"{kind}: {n:+}" for kind, n in (held() - before).items()]
            generations = follower.generation
    print_histogram(wakes)
    report = {
        "irq": irq, "cycles": cycles, "generations": generations, "idle": idle, "late": late,
        "bytes_astray": astray, "leaked": leaked,
        "wake_ms": {
            "count": wakes.get_total_count(),
            "p50": wakes.get_value_at_percentile(50) / 1000,
            "max": wakes.get_max_value() / 1000,
        },
    }  # fmt: skip
    print(json.dumps(report))
    return 0


def wait_for(condition: Callable[[], bool]) -> None:
    """Look until it is so; half a minute is for the slowest guest."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def held() -> Counter[str]:
    """How many fds of each kind, and threads, this process has."""
    found = Resources()
    kinds = (target.partition(":")[0] for target in found.fds.values())
    return Counter(kinds) + Counter(found.threads.values())


def print_histogram(wakes: HdrHistogram) -> None:
    """Awake after the hangup, in steps of a power of two."""
    for item in wakes.get_log_iterator(500, 2.0):
        count = item.count_added_in_this_iter_step
        if count:
            print(f"<= {item.value_iterated_to / 1000:7.1f} ms {'#' * count} {count}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
