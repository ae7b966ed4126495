# SPDX-License-Identifier: MIT
"""The device side shares no code with a driver, and its chips know no clock and no thread."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import udriver_hw

FOLDER = Path(udriver_hw.__file__).parent
IMPURE = {"os", "time", "threading", "socket", "select", "signal", "subprocess", "asyncio"}
FOREIGN = {"udriver", "serial", "pyudev"}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, "absolute imports only"
            assert not node.level, "absolute imports only"
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("path", sorted(FOLDER.glob("chips/*.py")), ids=lambda path: path.stem)
def test_a_chip_is_pure(path: Path) -> None:
    assert not imports(path) & IMPURE


@pytest.mark.parametrize(
    "path", sorted(FOLDER.rglob("*.py")), ids=lambda path: str(path.relative_to(FOLDER))
)
def test_the_device_side_is_standard_library_only(path: Path) -> None:
    assert imports(path) <= sys.stdlib_module_names | {"udriver_hw"}


def test_at_run_time_neither_a_driver_nor_pyserial_is_loaded() -> None:
    code = (
        "import sys, udriver_hw.loopback, udriver_hw.spawned;"
        f"sys.exit(repr({FOREIGN!r} & set(sys.modules)) if {FOREIGN!r} & set(sys.modules) else 0)"
    )
    subprocess.run(
        [sys.executable, "-P", "-c", code], check=True, env={"PYTHONPATH": str(FOLDER.parent)}
    )


def test_a_chip_alone_loads_no_clock_and_no_thread() -> None:
    code = (
        "import sys; before = set(sys.modules);"
        "import udriver_hw.chips.uart, udriver_hw.chips.fifo8;"
        "new = {'threading', 'socket', 'select'} & (set(sys.modules) - before);"
        "sys.exit(repr(new) if new else 0)"
    )
    subprocess.run(
        [sys.executable, "-P", "-c", code], check=True, env={"PYTHONPATH": str(FOLDER.parent)}
    )
