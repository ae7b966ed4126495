# SPDX-License-Identifier: MIT
"""The differential run: fresh scripts on the real kernel, in one boot, and on udriver."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator

import pytest

from tests.oracle import corpus, directed
from tests.oracle.differential import Kernel
from tests.oracle.script import TIMED, encoded, parsed
from tests.oracle.strategy import generated
from tests.oracle.wrong import WRONG, mistaken
from tests.vm.conftest import rung_qemu
from vm.failure import Missing
from vm.oracle.stage import Stage

__all__ = ["rung_qemu"]  # a fixture is found by its name in the module

FRESH = 2400  # one in eight is made twice
AT_LEAST = 2000

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def stage(rung_qemu: None) -> Iterator[Stage]:
    """A guest with the module; skipped, naming the command, without what builds it."""
    try:
        made = Stage()
    except Missing as missing:
        if os.environ.get("UDRIVER_VM"):
            raise
        pytest.skip(f"rung qemu: {missing}")
    with made as stage:
        yield stage
        assert stage.complaint() == ""


@pytest.fixture(scope="module")
def kernel(stage: Stage) -> Kernel:
    """Asks it, and remembers."""
    return Kernel(stage)


def test_fresh_scripts_end_as_on_the_kernel(kernel: Kernel, tell: Callable[[str], None]) -> None:
    seed = random.randrange(2**32)
    print(f"again: python -m tests.oracle --scripts {FRESH} --replay {seed}")
    report = kernel.compared(generated(FRESH, seed))
    assert len(report.entries) >= AT_LEAST
    assert report.disturbed <= FRESH // 100
    tell(
        f"rung qemu, oracle: {len(report.entries)} fresh scripts of seed {seed}, "
        f"{len(report.differences)} differences from the kernel's struct completion"
    )
    if report.differences:
        smallest = kernel.shrunk(FRESH, seed) or report.differences[0]
        pytest.fail(f"seed {seed}: {len(report.differences)} differ, the smallest:\n{smallest}")


def test_scripts_made_on_purpose_end_as_on_the_kernel(
    kernel: Kernel, tell: Callable[[str], None]
) -> None:
    report = kernel.compared(directed.scripts())
    tell(
        f"rung qemu, oracle: {len(report.entries)} scripts made on purpose, "
        f"{len(report.differences)} differences; how often each rule was met:"
    )
    for line in report.coverage.tables():
        tell(f"  {line}")
    assert not report.differences, str(report.differences[0])
    assert report.coverage.missing() == []


def test_the_frozen_logs_are_this_kernel_s(stage: Stage, kernel: Kernel) -> None:
    release, entries = corpus.read()
    sample = entries[::4]
    logs = kernel.logs([entry.script for entry in sample])
    changed = [
        difference for entry, log in zip(sample, logs, strict=True)
        if (difference := corpus.difference(entry.script, log, entry.log)) is not None
    ]  # fmt: skip
    assert not changed, f"frozen on {release}, now {stage.release}:\n{changed[0]}"


def test_a_script_gives_the_same_log_each_time(stage: Stage) -> None:
    scripts = [encoded(script) for script in generated(200, 1)]
    assert stage.play(scripts) == stage.play(scripts)


def test_a_difference_is_shrunk(kernel: Kernel) -> None:
    with mistaken(WRONG["time beats the token"]):
        smallest = kernel.shrunk(300, 1)
    assert smallest is not None
    print(smallest)
    # a timed wait, the token, and a tick unless the timeout is 0: nothing else is left
    needed = {op.what for step in smallest.script for op in step}
    assert needed & set(TIMED)
    assert needed & {"complete", "complete_all", "complete_on_current_cpu"}
    assert sum(len(step) for step in smallest.script) <= 3


def test_the_log_of_a_script_that_one_can_check_by_hand(kernel: Kernel) -> None:
    (log,) = kernel.logs(
        [parsed("a0: wait x; a1: killable x; usr1 a1 & complete x @hardirq; kill a1")]
    )
    assert log.splitlines() == [
        "*0 | | x0[0] y0[] z0[] x2 . . .",
        "*1 | | x0[01] y0[] z0[] x2 x102 . .",
        " x1[1]*0 | 0=0/1 | x0[1] y0[] z0[] . x102p . .",
        "*1 | 1=-512/1f | x0[] y0[] z0[] . .f . .",
    ]
