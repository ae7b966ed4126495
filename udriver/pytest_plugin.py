# SPDX-License-Identifier: MIT
"""Fixtures that need no hardware: a device, a driver on it, and a guard against leaks.

``udriver_device``  a device with TX wired to RX; ``.path`` is all a driver needs of it, and
                    ``.push(bytes)``, ``.unplug()`` are its hardware side.
``udriver_irq``     the irqchip under test; a test that asks for it runs once for each.
``udriver_driver``  a UsbSerial on ``udriver_device`` with ``udriver_irq``.

``--udriver-leaks`` fails a test that leaves an fd, a thread, a signal handler, a blocked signal
or a signal wakeup fd behind.

``--udriver-check`` runs each test under the completion checker and fails it with what that reports. A
test that breaks a rule on purpose says so with ``@pytest.mark.udriver_allow("M7")``; one that is about
the core's own bytecode runs without, with ``@pytest.mark.udriver_unchecked("reason")``.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

import pytest

if TYPE_CHECKING:
    from udriver import UsbSerial

IRQCHIPS = ("signal", "select", "inline")
SIGNALS = (
    signal.valid_signals()
)  # made anew by each call, which the leaks would ask for twice a test

K = TypeVar("K", bound=Hashable)


class Device(Protocol):
    """What a test may do to a device from its hardware side."""

    @property
    def path(self) -> str:
        """The tty that a driver opens."""
        ...

    def push(self, data: bytes) -> None:
        """Let the device send."""
        ...

    def unplug(self) -> None:
        """Take the device away, by surprise."""
        ...

    def close(self) -> None:
        """Give everything back."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc_info: object) -> None: ...


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options, all prefixed."""
    group = parser.getgroup("udriver", "udriver: drivers and devices without hardware")
    group.addoption(
        "--udriver-irq",
        choices=IRQCHIPS,
        action="append",
        help="run tests of udriver_irq on this irqchip only; may be repeated; default: all three",
    )
    group.addoption(
        "--udriver-port",
        metavar="PATH",
        help="run tests of udriver_device on this port, an adapter with TX wired to RX",
    )
    group.addoption(
        "--udriver-leaks",
        action="store_true",
        help="fail a test that leaks an fd, a thread, a signal handler or a signal mask",
    )
    group.addoption(
        "--udriver-check",
        action="store_true",
        help="run each test under the completion checker, and fail it with what that reports",
    )


def pytest_configure(config: pytest.Config) -> None:
    """The markers that --udriver-check looks at."""
    config.addinivalue_line(
        "markers", "udriver_allow(*rules): break these rules of the completion checker on purpose"
    )
    config.addinivalue_line(
        "markers", "udriver_unchecked(reason): run without the completion checker"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One run for each irqchip."""
    if "udriver_irq" in metafunc.fixturenames:
        chips = metafunc.config.getoption("--udriver-irq") or IRQCHIPS
        metafunc.parametrize("udriver_irq", chips, scope="function")


class Adapter:
    """A real port: it can be opened, and nothing else can be done to it from here."""

    def __init__(self, path: str) -> None:
        self.path = path

    def push(self, data: bytes) -> None:
        """Skip: nobody is at the far end but a wire."""
        pytest.skip(f"{self.path} is an adapter, and its far end a wire: it cannot speak first")

    def unplug(self) -> None:
        """Skip: it takes a hand."""
        pytest.skip(f"{self.path} is an adapter: it cannot be pulled from here")

    def close(self) -> None:
        """Nothing to give back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Nothing to give back."""


@pytest.fixture
def udriver_device(request: pytest.FixtureRequest) -> Iterator[Device]:
    """A loopback device on a pty, or the adapter that --udriver-port names."""
    port = request.config.getoption("--udriver-port")
    if port:
        yield Adapter(port)
        return
    from udriver_hw.loopback import Loopback

    with Loopback() as device:
        yield device


@pytest.fixture
def udriver_driver(udriver_device: Device, udriver_irq: str) -> Iterator[UsbSerial]:
    """The driver, up on ``udriver_device``."""
    from udriver import UsbSerial

    with UsbSerial.open(udriver_device.path, irqchip=udriver_irq) as driver:
        yield driver


class Resources:
    """What a test might leave behind, at one moment."""

    def __init__(self) -> None:
        targets = {fd: _target(fd) for fd in os.listdir("/proc/self/fd")}
        self.fds = {fd: target for fd, target in targets.items() if target is not None}
        self.threads = {thread: thread.name for thread in threading.enumerate()}
        self.handlers = {signum: signal.getsignal(signum) for signum in SIGNALS}
        self.mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self.wakeup_fd = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(self.wakeup_fd, warn_on_full_buffer=False)

    def leaked_since(self, before: Resources) -> list[str]:
        """What is here and was not there, a phrase each.

        One that took the place of another of its kind is no leak: a fixture of the session may
        plug its device in again.
        """
        fds = [f"fd {fd} ({target})" for fd, target in _more(self.fds, before.fds)]
        threads = [f"thread {name}" for _, name in _more(self.threads, before.threads)]
        handlers = [
            f"a handler of {signal.Signals(signum).name}: {handler!r}"
            for signum, handler in self.handlers.items()
            if handler != before.handlers[signum] and not _is_of_pytest(before.handlers[signum])
        ]
        mask = [f"blocked {signum!r}" for signum in self.mask ^ before.mask]
        wakeup = (
            [f"signal wakeup fd {self.wakeup_fd}"] if self.wakeup_fd != before.wakeup_fd else []
        )
        return fds + threads + handlers + mask + wakeup


def _more(now: dict[K, str], before: dict[K, str]) -> list[tuple[K, str]]:
    """What is new, less as many of its kind as went; the kind of socket:[7] is socket."""

    def kind(item: tuple[K, str]) -> str:
        return item[1].partition(":[")[0]

    gone = Counter(map(kind, before.items() - now.items()))
    new = []
    for item in sorted(now.items() - before.items(), key=kind):
        gone[kind(item)] -= 1
        if gone[kind(item)] < 0:
            new.append(item)
    return new


def _is_of_pytest(handler: object) -> bool:
    """pytest-timeout sets SIGALRM around a test and takes it back when the test fails."""
    return getattr(handler, "__module__", "") == "pytest_timeout"


def _target(fd: str) -> str | None:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return None  # the fd of the listing itself


@pytest.fixture(autouse=True)
def _udriver_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    if not request.config.getoption("--udriver-leaks"):
        yield
        return
    from udriver.kernel import sched

    sched.active().current()  # the main thread's place to sleep stays open, so open it now
    before = Resources()
    yield
    leaked = Resources().leaked_since(before)
    if leaked:
        pytest.fail(f"the test leaked {', '.join(leaked)}", pytrace=False)


class Checked:
    """One test under the completion checker, its fixtures included."""

    def __init__(self, item: pytest.Item) -> None:
        from udriver.checker import checking

        allowed = [rule for mark in item.iter_markers("udriver_allow") for rule in mark.args]
        self._block = checking(allow=allowed, stderr=False)
        self._reports = self._block.__enter__()
        self._told = 0

    def judge(self) -> None:
        """Fail with what was reported since the last look."""
        reports = list(self._reports)[self._told :]
        self._told += len(reports)
        if reports:
            pytest.fail("\n".join(map(str, reports)), pytrace=False)

    def end(self) -> None:
        """The last fixture is gone."""
        self._block.__exit__(None, None, None)
        self.judge()


_checked: pytest.StashKey[Checked] = pytest.StashKey()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Check from before the first fixture."""
    unchecked = item.get_closest_marker("udriver_unchecked")
    if item.config.getoption("--udriver-check") and unchecked is None:
        item.stash[_checked] = Checked(item)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """What the test itself did is its own failure."""
    result = yield
    if _checked in item.stash:
        item.stash[_checked].judge()
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """To after the last fixture."""
    try:
        return (yield)
    finally:
        if _checked in item.stash:
            item.stash[_checked].end()
            del item.stash[_checked]
