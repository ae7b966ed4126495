# SPDX-License-Identifier: MIT
"""``udriver run --check``: silent on the driver, with status 1 and both places on a wrong one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WRONG = """
import sys
from udriver.cli import main
from udriver.drivers.usbserial import UsbSerial
from udriver.kernel.completion import Completion, wait_for_completion_timeout
from udriver.kernel.sched import HZ

def transact_carelessly(driver, data, size, timeout=None, transact=UsbSerial.transact):
    answer = transact(driver, data, size, timeout)
    wait_for_completion_timeout(sent_event, HZ // 1000)
    return answer

sent_event = Completion("sent")
UsbSerial.transact = transact_carelessly
main(["run", "--check", "--json", "--frames", "3"])
"""

pytestmark = pytest.mark.slow  # each starts an interpreter


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'hw'}", "COLUMNS": "120"}
    environment.pop("UDRIVER_PORT", None)
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("irq", ["signal", "select", "inline"])
def test_the_driver_breaks_no_rule(irq: str) -> None:
    result = python("-m", "udriver", "run", "--check", "--irq", irq, "--frames", "50", "--json")
    assert (result.returncode, "WARNING" in result.stderr) == (0, False), result.stderr
    report = json.loads(result.stdout)
    assert (report["frames"], report["errors"], report["check_reports"]) == (50, 0, 0)


def test_a_file_breaks_no_rule_either() -> None:
    result = python("-m", "udriver", "run", "--check", "--file", str(ROOT / "LICENSE"))
    assert (result.returncode, "WARNING" in result.stderr) == (0, False), result.stderr
    assert "reports of the completion checker" in result.stdout


def test_a_wrong_driver_ends_with_status_1_and_the_report() -> None:
    result = python("-c", WRONG)
    assert result.returncode == 1, result.stderr
    assert "WARNING: result of a wait not used [M7]" in result.stderr
    assert "<string>:10 transact_carelessly()" in result.stderr
    assert "udriver: the completion checker reported M7;" in result.stderr
    assert json.loads(result.stdout)["check_reports"] == 1


SCRIPT = """
import sys
from udriver.kernel.completion import complete, complete_all, Completion
x = Completion("x")
complete_all(x)
if "twice" in sys.argv:
    complete(x)
sys.exit(int(sys.argv[1]))
"""


@pytest.mark.parametrize(
    ("arguments", "status", "reported"),
    [("0", 0, False), ("0 twice", 1, True), ("3", 3, False), ("3 twice", 3, True)],
)
def test_a_script_of_ones_own(arguments: str, status: int, reported: bool, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    result = python("-m", "udriver.checker", str(script), *arguments.split())
    assert (result.returncode, "[M13]" in result.stderr) == (status, reported), result.stderr
    assert ("script.py:7 <module>()" in result.stderr) is reported
    allowed = python("-m", "udriver.checker", "--allow", "M13", str(script), *arguments.split())
    assert (allowed.returncode, allowed.stderr) == (int(arguments[0]), "")


def test_without_the_option_nothing_is_counted() -> None:
    result = python("-m", "udriver", "run", "--frames", "3", "--json")
    assert (result.returncode, "check_reports" in json.loads(result.stdout)) == (0, False)
