# SPDX-License-Identifier: MIT
"""The same tests on every rung: what a device is here, and which tests are about a device."""

from __future__ import annotations

import ast
import fcntl
import gc
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest

from tests.rungs import CHIPS, counted, rung, skip_for_quirk
from udriver_hw.spawned import SpawnedUsb, spawn_usb

TIOCGSERIAL, TIOCSSERIAL = 0x541E, 0x541F  # asm-generic/ioctls.h
_told = pytest.StashKey[list[str]]()
_server = pytest.StashKey[SpawnedUsb]()
_log: list[str] = []  # when each part of each test was over, and how; written at the end
REPLUG_TIMEOUT = 30.0  # seconds; udev takes half of one


class RigDevice:
    """QEMU's FT232 under the real ftdi_sio, as the guest sees it; its far end is a wire, or open."""

    def __init__(self, path: str, *, jumper: bool = True) -> None:
        from vm.guest import Rig

        self.path = path
        self._rig = Rig()
        self._plugged = True
        self._jumper = jumper
        self._heard = b""
        if not jumper:
            self._rig.jumper(on=False)

    def push(self, data: bytes) -> None:
        """Let the far end send."""
        self._rig.say(data)

    def heard(self, count: int) -> bytes:
        """All that came since the last time, once ``count`` bytes have."""
        end = time.monotonic() + REPLUG_TIMEOUT
        while len(self._heard) < count:
            assert time.monotonic() < end, f"only {len(self._heard)} of {count} bytes came"
            self._heard += self._rig.heard()
        taken, self._heard = self._heard, b""
        return taken

    def unplug(self) -> None:
        """QMP device_del."""
        self._rig.unplug()
        self._plugged = False

    def close(self) -> None:
        """Plug it in again, for the next test, and wait until udev is done with it."""
        if not self._plugged:
            self._rig.plug()  # with the jumper on
            self._plugged = True
        elif not self._jumper:
            self._rig.jumper(on=True)
        end = time.monotonic() + REPLUG_TIMEOUT
        while not (os.path.exists(self.path) and os.path.exists("/dev/serial/by-id")):
            assert time.monotonic() < end, f"{self.path} did not come back"
            time.sleep(0.02)
        self._rig.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class UsbDevice:
    """A chip of our own under its real driver; its far end is a wire, or open."""

    def __init__(self, server: SpawnedUsb, *, jumper: bool = True) -> None:
        self.path = server.path
        self._server = server
        self._plugged = True
        self._heard = b""
        self._jumper = jumper
        if not jumper:
            server.tell("wire off")
            server.tell("hold on")
            server.tell("heard")  # the last words of the test before

    def push(self, data: bytes) -> None:
        """Let the far end send."""
        self._server.tell(f"send {data!r}")

    def heard(self, count: int) -> bytes:
        """All that came since the last time, once ``count`` bytes have."""
        self._server.tell("hold off")
        end = time.monotonic() + REPLUG_TIMEOUT
        while len(self._heard) < count:
            assert time.monotonic() < end, f"only {len(self._heard)} of {count} bytes came"
            literal, _, _at = self._server.tell("heard").rpartition(" ")
            self._heard += ast.literal_eval(literal)
        self._server.tell("hold on")
        taken, self._heard = self._heard, b""
        return taken

    def unplug(self) -> None:
        """By surprise: the wire's socket is shut."""
        self._server.tell("unplug")
        self._plugged = False

    def close(self) -> None:
        """Plug it in again, for the next test; the answer comes when udev is done with it."""
        if self._plugged and self._jumper:
            return
        if self._plugged:
            self._server.tell("hold off")
            self._server.tell("wire on")
            return
        path, _, _at = self._server.tell("plug").rpartition(" ")
        assert path == self.path
        close_at_once(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


@pytest.fixture(scope="session")
def usb_server(request: pytest.FixtureRequest) -> SpawnedUsb:
    """The process that serves the chip, for the whole run: its start takes seconds in a guest."""
    if _server not in request.config.stash:
        pytest.skip("rung usbip: runs in the guest that tests/usb/test_rung_usbip.py boots")
    return request.config.stash[_server]


def pytest_sessionstart(session: pytest.Session) -> None:
    """The chip, if one is asked for; from here, so that no test is blamed for its process."""
    if chip := os.environ.get("UDRIVER_USB"):
        server = spawn_usb(chip)
        close_at_once(server.path)
        session.config.stash[_server] = server


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """In virtual time two runs have the same log, to the nanosecond."""
    _log.append(f"{time.monotonic_ns()} {report.nodeid} {report.when} {report.outcome}\n")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Unplug it."""
    if log := os.environ.get("UDRIVER_LOG"):
        Path(log).write_text("".join(_log))
    if _server in session.config.stash:
        session.config.stash[_server].close()


def close_at_once(path: str) -> None:
    """Let a close drop what the chip has not taken; else it waits closing_wait, which is 30 s.

    So does a close on a desk whose far end holds it back; a test that does it has not the time.
    """
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    settings = bytearray(fcntl.ioctl(fd, TIOCGSERIAL, bytes(72)))
    settings[40:42] = b"\xff\xff"  # struct serial_struct: closing_wait, ASYNC_CLOSING_WAIT_NONE
    fcntl.ioctl(fd, TIOCSSERIAL, bytes(settings))
    os.close(fd)


if os.environ.get("UDRIVER_IN_VM"):

    @pytest.fixture
    def udriver_device(request: pytest.FixtureRequest) -> Iterator[RigDevice | UsbDevice]:
        """Instead of the plugin's: a device that can be pulled and can speak first."""
        with guest_device(request) as device:
            yield device


def guest_device(request: pytest.FixtureRequest, *, jumper: bool = True) -> RigDevice | UsbDevice:
    """The device of this rung, in a guest."""
    if rung(request.config) in CHIPS:
        return UsbDevice(request.getfixturevalue("usb_server"), jumper=jumper)
    return RigDevice(request.config.getoption("--udriver-port"), jumper=jumper)


ABOUT_A_DEVICE = {"udriver_device", "bare"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which rung; on a port of one's own it is the plugin's --udriver-port."""
    parser.addoption(
        "--udriver-rung",
        choices=("pty", "qemu", "uml", "all"),
        default="pty",
        help="where the tests run: on ptys, on a real kernel in QEMU or as a process, or on all",
    )


def pytest_configure(config: pytest.Config) -> None:
    """The marker behind rungs.without()."""
    config.addinivalue_line(
        "markers", "udriver_without(quirk, ...): skip where the rung has one of them"
    )
    config.stash[_told] = []
    keep_bytecode(config)


def keep_bytecode(config: pytest.Config) -> None:
    """In pytest's cache, where the environment forbids it beside the source, as many a container's does.

    Else each of the hundreds of interpreters that are started here compiles all of udriver anew.
    """
    if os.environ.get("PYTHONDONTWRITEBYTECODE") and hasattr(config, "cache"):
        try:
            folder = str(config.cache.mkdir("bytecode"))
        except OSError:
            return  # a checkout that cannot be written; pytest itself goes on without, too
        del os.environ["PYTHONDONTWRITEBYTECODE"]
        os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix = folder
        sys.dont_write_bytecode = False


@pytest.fixture(scope="session")
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Say a line at the end of the run, where what a passed test prints does not come."""
    return request.config.stash[_told].append


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On one rung only the tests that are about it; the others learn nothing there."""
    if config.getoption("--udriver-port"):
        wanted = ABOUT_A_DEVICE
    elif (chosen := config.getoption("--udriver-rung")) in ("qemu", "uml"):
        wanted = {f"rung_{chosen}"}
    else:
        return
    kept = [item for item in items if wanted & set(getattr(item, "fixturenames", ()))]
    dropped = [item for item in items if item not in kept]
    config.hook.pytest_deselected(items=dropped)
    items[:] = kept


def pytest_collection_finish(session: pytest.Session) -> None:
    """What was collected stays: a test that collects garbage looks at its own, and is 0.1 s faster."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """What a rung cannot do is skipped by name."""
    skip_for_quirk(item)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """What was measured, and how many tests each quirk of the rung cost."""
    for line in config.stash[_told]:
        terminalreporter.write_line(line)
    said = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", ())]
    for name, count in sorted(counted(said).items()):
        terminalreporter.write_line(f"rung {rung(config)}: {count} skipped for {name}")
