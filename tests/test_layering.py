# SPDX-License-Identifier: MIT
"""Which module may import which; the two dicts below *are* the rule."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TREES = {"udriver": ROOT / "udriver", "udriver_hw": ROOT / "hw" / "udriver_hw"}

KERNEL = "udriver.kernel"
OURS: dict[str, set[str]] = {
    "udriver.errors": set(),
    "udriver.kernel.context": {"udriver.errors"},
    "udriver.kernel.tracepoint": {KERNEL + ".context"},
    "udriver.kernel.sched": {KERNEL + ".threads"},  # inside a function: the default scheduler
    "udriver.kernel.threads": {KERNEL + ".sched", KERNEL + ".tracepoint"},
    "udriver.kernel.swait": {KERNEL + ".sched"},
    "udriver.kernel.kfifo": set(),
    "udriver.kernel.completion": {
        "udriver.errors", KERNEL + ".context", KERNEL + ".sched", KERNEL + ".swait",
        KERNEL + ".tracepoint",
    },
    "udriver.kernel.irqdesc": {
        KERNEL + ".completion", KERNEL + ".context", KERNEL + ".tracepoint",
    },
    "udriver.kernel.irq": {
        "udriver.errors", KERNEL + ".completion", KERNEL + ".context", KERNEL + ".irqdesc",
        KERNEL + ".tracepoint",
    },
    "udriver.kernel.annotation": {KERNEL + ".completion"},
    "udriver.kernel": set(),
    "udriver.checker": {"udriver.errors", "udriver.kernel", "udriver.checker"},
    "udriver.drivers": {"udriver.errors", "udriver.kernel", "udriver.drivers"},
    "udriver_hw.chips": {"udriver_hw.chips"},
    "udriver_hw": {"udriver_hw"},
    "udriver": {"udriver", "udriver_hw"},
}  # fmt: skip

PURE = {"os", "time", "threading", "socket", "select", "signal", "subprocess", "termios"}
FOREIGN: dict[str, set[str]] = {
    "udriver.kernel": set(),
    "udriver.errors": set(),
    "udriver.drivers.port": {"serial"},
    "udriver.drivers.bus": {"pyudev"},
    "udriver.drivers.hotplug": {"pyudev"},
    "udriver.drivers": set(),
    "udriver.checker": set(),
    "udriver_hw": set(),
    "udriver.bench.peers": {"serial", "serialx", "serial_asyncio_fast"},  # they are the peers
    "udriver.bench.plot": {"matplotlib"},
    "udriver": {"click", "rich", "hdrh", "pytest"},
}
COMPOSITION_INSIDE_FUNCTIONS = {"udriver_hw"}


@functools.cache
def modules() -> dict[str, Path]:
    found = {}
    for package, tree in TREES.items():
        for path in tree.rglob("*.py"):
            parts = [package, *path.relative_to(tree).with_suffix("").parts]
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imports(path: Path) -> list[tuple[str, bool]]:
    """(module, whether the import is at the top) of every import in the file."""
    tree = ast.parse(path.read_text())
    top = set(map(id, tree.body))
    found: list[tuple[str, bool]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None
            assert not node.level, f"{path}: absolute imports only"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.append((name if name in modules() else node.module, id(node) in top))
    return found


def rule(table: dict[str, set[str]], module: str) -> set[str]:
    while module not in table:
        module = module.rpartition(".")[0]
    return table[module]


def allowed(name: str, prefixes: set[str]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_only_what_its_room_may(module: str) -> None:
    for name, at_top in imports(modules()[module]):
        root = name.partition(".")[0]
        if root in TREES:
            assert allowed(name, rule(OURS, module)), f"{module} may not import {name}"
            crosses = root != module.partition(".")[0]
            assert not (crosses and at_top), f"{module} imports {name} outside a function"
        elif root not in sys.stdlib_module_names:
            assert root in rule(FOREIGN, module), f"{module} may not import {name}"
        elif module.startswith("udriver_hw.chips"):
            assert root not in PURE, f"{module} is pure, and {name} is not"


@pytest.mark.parametrize("package", ["udriver_hw.loopback", "udriver_hw.spawned"])
def test_the_device_side_never_loads_the_driver(package: str) -> None:
    code = f"import sys, {package}; print(sorted({{'udriver', 'serial', 'pyudev'}} & set(sys.modules)))"
    assert child(code) == "[]"


def test_importing_has_no_effect() -> None:
    code = (
        "import os, signal, threading;"
        "state = lambda: (sorted(os.listdir('/proc/self/fd')), threading.active_count(),"
        " [signal.getsignal(s) for s in signal.valid_signals()]);"
        "before = state();"
        "import udriver, udriver.kernel.irq, udriver.drivers.bus, udriver_hw.loopback;"
        "print(before == state())"
    )
    assert child(code) == "True"


def child(code: str) -> str:
    path = f"{ROOT}:{ROOT / 'hw'}"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not result.returncode, result.stderr
    return result.stdout.strip()
