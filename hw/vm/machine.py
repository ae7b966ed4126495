# SPDX-License-Identifier: MIT
"""A running guest: boots in `with`, runs commands, has adapters to pull; gone at the end.

    with Machine() as vm:
        done = vm.run(["python", "-c", "import serial, pyudev"])
        job = vm.start(["cat", "/dev/ttyUSB0"])
        vm.slots.unplug("adapter0")
        status = job.wait(timeout=10)

Every path of the host is there under its own name and writable; what is written is the guest's
alone, except in `results`. /dev, /proc, /sys and /run are the guest's own.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from vm.adapters import Adapter, AdapterSlots
from vm.bridge import Bridge
from vm.cache import scratch
from vm.failure import RigError
from vm.initrd import Boot, bootable
from vm.job import CHECKOUT, Agent, Commands, Job, environment
from vm.packages import cached_kernel, require_programs
from vm.qemu import Qemu, Shape, Shares
from vm.qmp import Qmp

__all__ = ["CHECKOUT", "Machine"]


class Machine(Commands):
    """One guest. Nothing is started before `with`; Missing if a prerequisite is not there."""

    def __init__(
        self,
        *,
        adapters: Iterable[Adapter] = (Adapter(),),
        results: Path | None = None,
        kernel: str | None = None,
        extra_modules: Iterable[str] = (),
        shape: Shape | None = None,
        boot_timeout: float = 120.0,
    ) -> None:
        self._adapters = tuple(adapters)
        self._results = results
        self._kernel = kernel
        self._extra_modules = tuple(extra_modules)
        self._shape = shape or Shape()
        self._boot_timeout = boot_timeout
        self._stack = ExitStack()
        self.boot_seconds = 0.0  # QEMU's start to "ready": udev settled, adapters bound

    def __enter__(self) -> Self:
        require_programs()
        boot = bootable(cached_kernel(self._kernel), self._extra_modules)
        self.kernel_release = boot.release
        self._boot(boot)
        return self

    def _boot(self, boot: Boot) -> None:
        with ExitStack() as stack:
            folder = stack.enter_context(scratch())
            shares = self._shares(folder)
            self._console = folder / "console"
            began = time.monotonic()
            self._qemu = Qemu(boot, shares, self._console, self._shape)
            stack.callback(self._qemu.stop)
            self._connect(shares, stack)
            if not self._agent.wait_ready(self._boot_timeout):
                waited = time.monotonic() - began
                raise self.death(f"the guest was not ready in {waited:.1f} s")
            self.boot_seconds = time.monotonic() - began
            self._stack = stack.pop_all()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        return self._qemu.pid

    def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Job:
        """Start a command; `env` is added to the guest's, standard input is /dev/null."""
        variables = {**environment(self.results, "qemu"), **(env or {})}
        return self._agent.start(argv, env=variables, cwd=str(cwd or Path.cwd()))

    def console(self) -> str:
        """What the guest's kernel and first process said."""
        return self._console.read_text(errors="replace").replace("\r", "")

    def _connect(self, shares: Shares, stack: ExitStack) -> None:
        """Plug the adapters while the processor is still stopped, then let it go."""
        channel = self._qemu.channel
        self._agent = Agent(channel["agent"], shares.jobs)
        self._qmp = Qmp(channel["qmp"])
        try:
            self._qmp.execute("qmp_capabilities")
            self.slots = AdapterSlots(self._qmp, self._adapters)
            stack.callback(self.slots.close)
            for adapter in self._adapters:
                self.slots.plug(adapter.name)
            Bridge(channel["control"], self.slots)
            self._qmp.execute("cont")
        except RigError as error:
            complaints = self._qemu.complaints()
            raise RigError(f"QEMU did not start: {complaints or error}") from error

    def _shares(self, folder: Path) -> Shares:
        results = (self._results or folder / "results").absolute()
        results.mkdir(parents=True, exist_ok=True)
        jobs = folder / "jobs"
        jobs.mkdir()
        self.results = results
        settings = {"RESULTS": str(results), "ADAPTERS": str(len(self._adapters))}
        lines = [f"{name}={shlex.quote(value)}\n" for name, value in settings.items()]
        (jobs / "settings").write_text("".join(lines))
        return Shares(jobs, results)

    def _autopsy(self, sentence: str) -> str:
        return self._qemu.autopsy(sentence, self.console())
