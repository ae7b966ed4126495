# SPDX-License-Identifier: MIT
"""The table says true things: of its own shape always, of Linux where a kernel image is there."""

from __future__ import annotations

import lzma
import re

import pytest

from udriver.drivers.id_table import ID_TABLE, lookup
from vm.failure import Missing
from vm.packages import cached_kernel


def test_ids_are_four_lower_case_digits_and_unique() -> None:
    ids = [(row.vid, row.pid) for row in ID_TABLE]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch("[0-9a-f]{4}:[0-9a-f]{4}", ":".join(pair)) for pair in ids)


def test_only_ftdi_sio_has_a_latency_timer() -> None:
    assert {row.driver for row in ID_TABLE if row.has_latency_timer} == {"ftdi_sio"}
    assert all(row.has_latency_timer for row in ID_TABLE if row.driver == "ftdi_sio")


def test_lookup_takes_either_case() -> None:
    row = lookup("10C4", "EA60")
    assert row is not None
    assert row.driver == "cp210x"
    assert lookup("ffff", "ffff") is None


@pytest.mark.parametrize("driver", sorted({row.driver for row in ID_TABLE} - {"cdc_acm"}))
def test_the_kernels_own_driver_claims_each_row(driver: str) -> None:
    try:
        kernel = cached_kernel()
    except Missing as missing:
        pytest.skip(f"no kernel image to ask: {missing}")
    module = next(kernel.rglob(f"{driver}.ko*"))
    data = module.read_bytes()
    data = lzma.decompress(data) if module.suffix == ".xz" else data
    claimed = set(re.findall(rb"alias=usb:v([0-9A-F]{4})p([0-9A-F]{4})d", data))
    for row in ID_TABLE:
        if row.driver == driver:
            assert (row.vid.upper().encode(), row.pid.upper().encode()) in claimed, row
