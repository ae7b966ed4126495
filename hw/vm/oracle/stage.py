# SPDX-License-Identifier: MIT
"""One guest with the module loaded: scripts in, logs out, as many at once as you like."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from vm.failure import RigError
from vm.initrd import bootable
from vm.machine import Machine
from vm.oracle.build import built
from vm.packages import cached_kernel, require_programs

# The kernel's time jumps ahead while scripts run; its watchdogs would take that for a stall.
SETTINGS = {
    "/sys/module/rcupdate/parameters/rcu_cpu_stall_suppress": "1",
    "/sys/module/workqueue/parameters/watchdog_thresh": "0",
    "/proc/sys/kernel/hung_task_timeout_secs": "0",
    "/proc/sys/kernel/watchdog": "0",
    "/proc/sys/kernel/sched_rt_runtime_us": "-1",
}
_LENGTH = struct.Struct("<I")
OURS = 1 << 12 | 1 << 13  # Documentation/admin-guide/tainted-kernels.rst: out of tree, unsigned
DISTURBED = "disturbed\n"


class Stage:
    """In a ``with`` block: boots, loads the module; Missing if something is not there."""

    def __init__(self, kernel: str | None = None, results: Path | None = None) -> None:
        require_programs()
        self.release = bootable(cached_kernel(kernel)).release
        self._built = built(self.release)
        self._machine = Machine(adapters=(), kernel=kernel, results=results)
        self._batch = 0

    def __enter__(self) -> Self:
        self._machine.__enter__()
        try:
            self._prepare()
        except BaseException:
            self._machine.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._machine.__exit__(kind, error, trace)

    @property
    def boot_seconds(self) -> float:
        """QEMU's start to a guest that takes commands."""
        return self._machine.boot_seconds

    def play(self, scripts: Sequence[bytes], timeout: float = 600) -> list[str]:
        """The kernel's log of each script, given as its encoded operations (oracle_abi.h)."""
        self._batch += 1
        folder = self._machine.results
        source, logs = (folder / f"{name}.{self._batch}" for name in ("scripts", "logs"))
        source.write_bytes(b"".join(_LENGTH.pack(len(script)) + script for script in scripts))
        done = self._machine.run([str(self._built.player), str(source), str(logs)], timeout=timeout)
        if done.returncode:
            raise RigError(f"the player gave up: {done.stderr}\n{self._console_end()}")
        found = _records(logs.read_bytes())
        if len(found) != len(scripts):
            raise RigError(f"{len(scripts)} scripts gave {len(found)} logs.")
        source.unlink()
        logs.unlink()
        return found

    def complaint(self) -> str:
        """How the guest's kernel is tainted by more than a module of ours, or the empty string."""
        done = self._machine.run(["cat", "/proc/sys/kernel/tainted"], timeout=60, check=True)
        taints = int(done.stdout) & ~OURS
        return f"/proc/sys/kernel/tainted is {taints}\n{self._console_end()}" if taints else ""

    def _prepare(self) -> None:
        busybox = shutil.which("busybox")
        lines = [f"[ ! -e {path} ] || echo {value} > {path}" for path, value in SETTINGS.items()]
        lines.append(f"exec {busybox} insmod {self._built.module}")
        self._machine.run(["sh", "-c", "\n".join(lines)], timeout=60, check=True)

    def _console_end(self) -> str:
        return "\n".join(self._machine.console().splitlines()[-15:])


def _records(data: bytes) -> list[str]:
    found, offset = [], 0
    while offset < len(data):
        (length,) = _LENGTH.unpack_from(data, offset)
        offset += _LENGTH.size
        found.append(data[offset : offset + length].decode("ascii"))
        offset += length
    return found
