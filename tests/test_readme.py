# SPDX-License-Identifier: MIT
"""README.md is executed: each Python block runs, each `$` line runs and prints what is shown."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DOCUMENTS = ["README.md", "hw/README.md", "docs/speed.md"]


def blocks(kind: str) -> list[tuple[str, str]]:
    found = []
    for name in DOCUMENTS:
        path = ROOT / name
        for match in BLOCK.finditer(path.read_text()):
            if match[1] == kind:
                line = path.read_text()[: match.start()].count("\n") + 1
                found.append((f"{name}:{line}", match[2]))
    return found


def environment() -> dict[str, str]:
    """What a user with the package installed has, be this a bare checkout."""
    bin_dir = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PATH": os.pathsep.join([bin_dir, os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "hw")]),
        "COLUMNS": "200",
    }


def run(command: list[str], cwd: Path) -> str:
    result = subprocess.run(
        command, cwd=cwd, env=environment(), capture_output=True, text=True, check=False, timeout=60,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("code", [pytest.param(code, id=place) for place, code in blocks("python")])
def test_python_blocks(code: str, tmp_path: Path) -> None:
    if "def test_" in code:
        (tmp_path / "test_mine.py").write_text(code)
        assert " passed" in run([sys.executable, "-m", "pytest", "-q", "test_mine.py"], tmp_path)
    else:
        run([sys.executable, "-c", code], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "session", [pytest.param(text, id=place) for place, text in blocks("console")]
)
def test_console_blocks(session: str, tmp_path: Path) -> None:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    for part in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        command = command.replace("udriver ", f"{sys.executable} -m udriver ", 1)
        shown = run(["bash", "-c", command], tmp_path)
        assert doctest.OutputChecker().check_output(expected, shown, flags), shown
