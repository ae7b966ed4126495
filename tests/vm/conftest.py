# SPDX-License-Identifier: MIT
"""One guest for all tests that only need one; a named skip where the rig is not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from vm.failure import Missing
from vm.machine import Machine
from vm.packages import cached_kernel, require_programs
from vm.uml_kernel import FETCH, RUN_PROGRAMS, cached_uml


def _skip_unless_asked_for(
    request: pytest.FixtureRequest, name: str, require: Callable[[], object]
) -> None:
    """Skip, naming the command that would bring the rung, unless it is asked for and can boot."""
    if request.config.getoption("--udriver-rung") not in (name, "all"):
        pytest.skip(f"rung {name}: not asked for; `pytest --udriver-rung all` boots a real kernel")
    if os.environ.get("UDRIVER_IN_VM"):
        pytest.skip(f"rung {name}: this is the guest already")
    if os.environ.get("UDRIVER_VM"):
        return  # asked for by name: what is missing is then a failure
    try:
        require()
    except Missing as missing:
        pytest.skip(f"rung {name}: {missing}")


def _require_qemu() -> None:
    require_programs()
    cached_kernel()


def _require_uml() -> None:
    require_programs(RUN_PROGRAMS, FETCH)
    cached_uml()


@pytest.fixture(scope="session")
def rung_qemu(request: pytest.FixtureRequest) -> None:
    """QEMU can boot, or the test is skipped."""
    _skip_unless_asked_for(request, "qemu", _require_qemu)


@pytest.fixture(scope="session")
def rung_uml(request: pytest.FixtureRequest) -> None:
    """User Mode Linux can boot, or the test is skipped."""
    _skip_unless_asked_for(request, "uml", _require_uml)


@pytest.fixture(scope="session")
def vm(rung_qemu: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A running guest with one adapter, shared by all tests of the session."""
    with Machine(results=tmp_path_factory.mktemp("results")) as machine:
        yield machine
