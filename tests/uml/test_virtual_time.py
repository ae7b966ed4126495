# SPDX-License-Identifier: MIT
"""In virtual time a latency timer, a baud rate and a timeout are exact, and a run is like the other."""

from __future__ import annotations

import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from vm.uml import Uml

PROGRAM = Path(__file__).with_name("timing.py")
RUNS = 10

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def log(virtual: Uml, seed: int) -> str:
    done = virtual.run([sys.executable, str(PROGRAM), str(seed)], timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def first(virtual: Uml) -> str:
    return log(virtual, 1)
