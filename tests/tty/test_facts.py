# SPDX-License-Identifier: MIT
"""What the driver relies on: the same program on a pty and on the real ftdi_sio, and hw/README's table."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.vm.conftest import rung_qemu
from vm.machine import Machine

__all__ = ["rung_qemu"]

PROGRAM = Path(__file__).with_name("facts.py")
README = Path(__file__).parents[2] / "hw" / "README.md"

# fact: on a pty, on ttyUSB0 of the rig (QEMU's FT232)
DIFFERENT: dict[str, tuple[Any, Any]] = {
    "modem_lines": ("ENOTTY", 0x160),  # CTS, DSR, DCD always; RI never: QEMU's usb-serial
    "tiocmiwait": ("ENOTTY", "there"),
    "tiocgicount": ("ENOTTY", "counts"),
    "line_status": ("ENOTTY", True),
    "dtr_rts_after_open": ("ENOTTY", True),
    "parity_7e1": (False, True),
    "speed_9000000": (9_000_000, 9600),
    "fresh_flags": ([], ["CLOCAL", "HUPCL"]),
    "fresh_speed": (38400, 9600),
    "low_latency": ("ENOTTY", True),
    "latency_timer": ("ENOENT", 16),
    "latency_timer_then": ("ENOENT", 1),
    "tcooff": ("EAGAIN", 1),
    "far_end_that_reads_not": ("EAGAIN", "all taken"),
    "stale_after_open": (5, 0),
    "blocked_read_at_unplug": ("EIO", 0),
    "node_while_held": ([], ["ttyUSB1"]),
    "node_after_close": ([], ["ttyUSB0"]),
}
ALIKE: dict[str, Any] = {
    "byte": "x",
    "epoll": 1,  # EPOLLIN
    "signal_code_band": [1, 0x41],  # POLL_IN, POLLIN | POLLRDNORM
    "vmin_0_vtime_0": "",
    "vmin_0_vtime_1": "",
    "vmin_1_vtime_0": "ab",
    "vmin_3_vtime_1": "ab",
    "speed_12345": 12345,
    "speed_115200": 115200,
    "break": None,  # accepted
    "outq_idle": 0,
    "exclusive_root": "opens",  # CAP_SYS_ADMIN passes TIOCEXCL
    "exclusive_nobody": "EBUSY",
    "exclusive_told": True,
    "flock": "EAGAIN",
    "epoll_hangup": 0x19,  # EPOLLIN | EPOLLERR | EPOLLHUP, though only EPOLLIN was asked
    "signals_at_hangup": 0,  # a reader by signal alone never learns of an unplug
    "read_after_hangup": [0, 0],
    "write_after_hangup": "EIO",
    "tcdrain_after_hangup": "EIO",
    "tcgetattr_after_hangup": "EIO",
}
FACTS = [*DIFFERENT, *ALIKE]
NEEDS_ROOT = {"exclusive_root", "exclusive_nobody"}


@pytest.fixture(scope="module")
def on_a_pty() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(PROGRAM)], capture_output=True, text=True, check=True, timeout=60
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def on_ftdi_sio(rung_qemu: None) -> dict[str, Any]:
    """In a guest of its own: the first to open the port, which is what some of it is about."""
    with Machine() as vm:
        done = vm.run([sys.executable, str(PROGRAM), "/dev/ttyUSB0"], timeout=90)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("fact", FACTS)
def test_on_a_pty(on_a_pty: dict[str, Any], fact: str) -> None:
    if fact in NEEDS_ROOT and fact not in on_a_pty:
        pytest.skip("only root can become nobody and look")
    assert on_a_pty[fact] == (DIFFERENT[fact][0] if fact in DIFFERENT else ALIKE[fact])


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("fact", FACTS)
def test_on_the_real_ftdi_sio(on_ftdi_sio: dict[str, Any], fact: str) -> None:
    assert on_ftdi_sio[fact] == (DIFFERENT[fact][1] if fact in DIFFERENT else ALIKE[fact])


def test_no_fact_goes_unasserted(on_a_pty: dict[str, Any]) -> None:
    assert set(on_a_pty) | NEEDS_ROOT == set(FACTS)
    assert all(pty != usb for pty, usb in DIFFERENT.values())


def test_each_row_of_the_readme_is_a_fact_and_each_fact_a_row() -> None:
    _, _, section = README.read_text().partition("## What a pty cannot do")
    table, _, alike = section.partition("Alike on both")
    rows = re.findall(r"^\|.*\|([^|]*)\|$", table, re.MULTILINE)[2:]  # below the heading
    named = [re.findall(r"`(\w+)`", cell) for cell in rows]
    assert all(named), "a row without a fact"
    assert {fact for cell in named for fact in cell} == set(DIFFERENT)
    assert set(re.findall(r"`([a-z]\w+)`", alike.partition("\n\n")[2].partition("\n\n")[0])) == set(
        ALIKE
    )
