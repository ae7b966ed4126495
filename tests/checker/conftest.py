# SPDX-License-Identifier: MIT
"""A block around a test that is to be silent."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from udriver.checker import checking


@pytest.fixture
def silent() -> Iterator[None]:
    """The test runs under the checker, which finds nothing."""
    with checking(stderr=False) as reports:
        yield
        gc.collect()
    assert not reports, str(reports)
