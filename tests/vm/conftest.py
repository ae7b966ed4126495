# SPDX-License-Identifier: MIT
"""One guest for all tests that only need one; a named skip where the rig is not."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from vm.failure import Missing
from vm.machine import Machine
from vm.packages import cached_kernel, require_programs


def _why_not() -> str:
    if os.environ.get("UDRIVER_IN_VM"):
        return "this is the guest already"
    if os.environ.get("UDRIVER_VM"):
        return ""  # asked for by name: what is missing is then a failure
    try:
        require_programs()
        cached_kernel()
    except Missing as missing:
        return str(missing)
    return ""


@pytest.fixture(scope="session")
def rung_qemu(request: pytest.FixtureRequest) -> None:
    """Skip, naming the command that would bring the rung, unless it is asked for and can boot."""
    if request.config.getoption("--udriver-rung") == "pty":
        pytest.skip("rung qemu: not asked for; `pytest --udriver-rung all` boots a real kernel")
    if why := _why_not():
        pytest.skip(f"rung qemu: {why}")


@pytest.fixture(scope="session")
def vm(rung_qemu: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A running guest with one adapter, shared by all tests of the session."""
    with Machine(results=tmp_path_factory.mktemp("results")) as machine:
        yield machine
