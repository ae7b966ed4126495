# SPDX-License-Identifier: MIT
"""The tests of tests/vm/test_modem.py, on User Mode Linux in virtual time: each chip with each irqchip."""

from __future__ import annotations

from typing import Any

import pytest

from tests.rungs import CHIPS
from tests.vm.test_modem import (
    reported,
    test_an_unplug_ends_the_wait_and_wakes,
    test_both_edges_of_each_line_wake_a_waiter,
    test_each_error_is_counted_once_and_told_once_in_order,
    test_free_irq_ends_the_wait,
    test_of_a_hundred_edges_in_a_row_none_is_lost,
    test_they_land_where_the_irqchip_s_interrupts_land,
)
from udriver.drivers.irqchip import IRQCHIPS
from vm.uml import Uml

__all__ = [
    "test_an_unplug_ends_the_wait_and_wakes",
    "test_both_edges_of_each_line_wake_a_waiter",
    "test_each_error_is_counted_once_and_told_once_in_order",
    "test_free_irq_ends_the_wait",
    "test_of_a_hundred_edges_in_a_row_none_is_lost",
    "test_they_land_where_the_irqchip_s_interrupts_land",
]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture(params=[(chip, irq) for chip in CHIPS for irq in IRQCHIPS], ids="-".join)
def report(request: pytest.FixtureRequest, virtual: Uml) -> dict[str, Any]:
    """Of each chip with each irqchip."""
    return reported(virtual, "uml", *request.param)
