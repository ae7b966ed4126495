# SPDX-License-Identifier: MIT
"""Of ftdi_sio alone: the FT232R's latency timer. Runs in the guest; skipped elsewhere."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.usb.test_under_its_driver import chip, raw, read, state
from udriver_hw.spawned import SpawnedUsb

__all__ = ["chip"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.usefixtures("usb_server"),
]


@pytest.mark.parametrize("milliseconds", [16, 8, 2, 1])
def test_the_latency_timer_is_honoured(chip: SpawnedUsb, milliseconds: int) -> None:
    name = Path(chip.path).name
    with raw(chip.path) as fd:
        Path(f"/sys/class/tty/{name}/device/latency_timer").write_text(str(milliseconds))
        assert state(chip)["latency_timer"] == milliseconds
        began = time.monotonic_ns()
        for _ in range(50):
            os.write(fd, b"x")
            read(fd, 1)
        took = time.monotonic_ns() - began
    assert took > 49 * milliseconds * 1_000_000  # the first one meets the timer somewhere
