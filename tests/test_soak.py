# SPDX-License-Identifier: MIT
"""``udriver soak``: all that was posted is consumed, all that was written is accounted for."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from udriver.cli import Status
from udriver.cli_soak import _report
from udriver.kernel.completion import Completion, complete, complete_all, try_wait_for_completion
from udriver.soak_parts import Tokens, Wire
from udriver_hw.loopback import Loopback

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'hw'}", "COLUMNS": "120"}


def soak(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return subprocess.run(
        [sys.executable, "-m", "udriver", "soak", *arguments],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip


def balanced(report: dict[str, Any]) -> bool:
    """Nothing is missing, nobody waits."""
    left = (report["left"], report["waiters_left"])
    return report["posted"] == report["consumed"] and left == (0, 0)


@pytest.mark.slow
def test_threads_signals_timeouts_and_unplugs_together() -> None:
    result = soak("--seconds", "1.5", "--seed", "7", "--json")
    report = json.loads(result.stdout)
    assert (result.returncode, result.stderr) == (0, "")
    assert balanced(report)
    assert report["posted_by_handler"] > 0
    assert report["seed"] == 7
    assert report["waits"]["wait: token"] > 0
    wire = report["wire"]
    assert wire["bytes written"] == wire["bytes received"] + wire["bytes lost with the device"]
    assert wire["bytes received"] == wire["bytes read"] + wire["bytes left in the kfifo"]


@pytest.mark.slow
def test_ctrl_c_ends_with_the_balance_of_what_was_done() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "udriver", "soak", "--posts", "1000000000", "--json"],
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        while b"SigCgt:\t" in (status := Path(f"/proc/{process.pid}/status").read_bytes()):
            caught = int(status.partition(b"SigCgt:\t")[2].split()[0], 16)
            if caught >> (signal.SIGALRM - 1) & 1:
                break  # the soak's handlers are there
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=50)
    assert (process.returncode, errors) == (Status.INTERRUPTED, "")
    assert balanced(json.loads(output))


def test_a_table_is_printed_and_a_number_of_posts_is_kept() -> None:
    result = soak("--posts", "20000", "--threads", "1")
    assert result.returncode == 0
    assert "20,000" in result.stdout
    assert "bytes written" not in result.stdout


@pytest.mark.udriver_allow("M18")
@pytest.mark.parametrize("fault", ["lost", "doubled"])
def test_what_does_not_balance_is_a_failure(fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    tokens = Tokens([0, 10, 0], seed=3)
    tokens.post(1)
    if fault == "lost":
        assert try_wait_for_completion(tokens.event)
    else:
        complete(tokens.event)
    complete_all(tokens.over)
    tokens.consume(0)
    assert _report(tokens, None, 1.0, 3, [], as_json=True) == Status.FAILED
    said = capsys.readouterr().err
    assert "of 10 tokens went astray" in said
    assert "--seed 3" in said


class Lossy:
    """A device that ends when its client has written something, so that nothing comes back."""

    def __init__(self) -> None:
        self._loopback = Loopback([])
        self.path = self._loopback.path

    def unplug(self) -> None:
        """As the loopback's."""
        self._loopback.unplug()


def test_bytes_that_went_with_the_device_are_counted() -> None:
    stop = Completion("stop")
    plugs: list[Lossy] = []

    def plug() -> Lossy:
        plugs.append(Lossy())
        if len(plugs) == 2:
            complete_all(stop)
        return plugs[-1]

    wire = Wire(plug, random.Random(1))
    wire.run(stop)
    assert wire.faults == []
    assert wire.counts["unplugs"] == 1
    assert wire.counts["bytes lost with the device"] == wire.counts["bytes written"] > 0


def test_an_answer_that_is_another_is_a_fault() -> None:
    stop = Completion("stop")

    class Wrong(Lossy):
        """Says something of its own first."""

        def __init__(self) -> None:
            self._loopback = Loopback("jumper")
            self.path = self._loopback.path

        def push(self) -> None:
            """Bytes that nobody sent."""
            self._loopback.push(b"\0" * 64)

    class Pushed(Wire):
        def _send(self, driver: Any, stop: Completion) -> None:
            device.push()
            while driver.in_waiting < 64:
                pass
            super()._send(driver, stop)

    device = Wrong()
    wire = Pushed(lambda: device, random.Random(1))
    wire.counts.clear()
    try:
        wire_once(wire, stop)
    finally:
        device.unplug()
    assert any("came back as others" in fault for fault in wire.faults)


def wire_once(wire: Wire, stop: Completion) -> None:
    """One device only: the second plug() would be of one that is gone."""
    plug = wire._plug

    def once() -> Any:
        complete_all(stop) if wire.counts["plugs"] else None
        wire.counts["plugs"] += 1
        return plug()

    wire._plug = once
    try:
        wire.run(stop)
    except OSError:
        pass  # the device is gone
