# SPDX-License-Identifier: MIT
"""A kernel as a process, for all tests of the rung: each command boots its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.vm.conftest import rung_uml
from vm.uml import Uml

__all__ = ["rung_uml"]


@pytest.fixture(scope="session")
def uml(rung_uml: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Uml]:
    """In real time."""
    with Uml(results=tmp_path_factory.mktemp("uml")) as machine:
        yield machine


@pytest.fixture(scope="session")
def virtual(rung_uml: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Uml]:
    """In virtual time."""
    with Uml(results=tmp_path_factory.mktemp("virtual"), virtual_time=True) as machine:
        yield machine
