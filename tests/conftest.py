# SPDX-License-Identifier: MIT
"""The same tests on every rung: what a device is here, and which tests are about a device."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Self

import pytest

REPLUG_TIMEOUT = 30.0  # seconds; udev takes half of one


class RigDevice:
    """QEMU's FT232 under the real ftdi_sio, as the guest sees it; its far end is a wire."""

    def __init__(self, path: str) -> None:
        from vm.guest import Rig

        self.path = path
        self._rig = Rig()
        self._plugged = True

    def push(self, data: bytes) -> None:
        """Let the far end send."""
        self._rig.say(data)

    def unplug(self) -> None:
        """QMP device_del."""
        self._rig.unplug()
        self._plugged = False

    def close(self) -> None:
        """Plug it in again, for the next test, and wait until udev is done with it."""
        if not self._plugged:
            self._rig.plug()
            self._plugged = True
        end = time.monotonic() + REPLUG_TIMEOUT
        while not (os.path.exists(self.path) and os.path.exists("/dev/serial/by-id")):
            assert time.monotonic() < end, f"{self.path} did not come back"
            time.sleep(0.02)
        self._rig.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


if os.environ.get("UDRIVER_IN_VM"):

    @pytest.fixture
    def udriver_device(request: pytest.FixtureRequest) -> Iterator[RigDevice]:
        """Instead of the plugin's: a device that can be pulled and can speak first."""
        with RigDevice(request.config.getoption("--udriver-port")) as device:
            yield device


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On a given port only the tests that are about a device; the others learn nothing there."""
    if not config.getoption("--udriver-port"):
        return
    kept = [item for item in items if "udriver_device" in getattr(item, "fixturenames", ())]
    dropped = [item for item in items if item not in kept]
    config.hook.pytest_deselected(items=dropped)
    items[:] = kept
