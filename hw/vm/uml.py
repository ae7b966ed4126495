# SPDX-License-Identifier: MIT
"""User Mode Linux: a Linux kernel that is a process of this machine, booted anew for each command.

    with Uml() as vm:
        done = vm.run(["python", "-c", "import serial, pyudev"])

It needs no root, and no emulation of a processor, so a boot is a fraction of a second. There is no
adapter: the guest plugs one of the chips of udriver_hw into its own vhci_hcd. With `Uml(virtual_time=True)` the
guest's clock moves only when it sleeps, and then at once (`time-travel=inf-cpu`): one program with one
input then does the same at the same nanosecond, every time, however busy the machine is. Its output
is then kept in the guest until its end.
Source: Documentation/virt/uml, arch/um/kernel/time.c.
"""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from vm.cache import scratch
from vm.failure import GuestDied, RigError
from vm.job import Commands, Job, Reports, environment, script
from vm.packages import require_programs
from vm.process import Kept
from vm.uml_kernel import FETCH, RUN_PROGRAMS, cached_uml

_INIT = Path(__file__).with_name("uml_init.sh")
_KILLED = 128 + 9
# A page fault costs 80 us here, so memory that was touched is kept: it halves what Python takes.
_KEEP_MEMORY = {
    "PYTHONMALLOC": "malloc",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TOP_PAD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
}
_ENDING_S = 5.0  # from the guest's last word to the end of its kernel


class Uml(Commands):
    """Boots a kernel for each command. Nothing is started before `with`; Missing without a kernel."""

    def __init__(
        self,
        *,
        results: Path | None = None,
        virtual_time: bool = False,
        memory: int = 256,
        append: str = "",
        boot_timeout: float = 60.0,
    ) -> None:
        self._results = results
        self._options = [f"mem={memory}M"]
        self._virtual = virtual_time
        self._variables = dict(_KEEP_MEMORY)
        if virtual_time:
            # An order that hangs on an address or a seed would be another one each time.
            self._options += ["time-travel=inf-cpu", "norandmaps"]
            self._variables["PYTHONHASHSEED"] = "0"
        self._append = append.split()
        self._boot_timeout = boot_timeout
        self._stack = ExitStack()
        self._boots: list[Boot] = []
        self.boot_seconds = 0.0  # of the last command, from exec to its start: udevd is up by then

    def __enter__(self) -> Self:
        require_programs(RUN_PROGRAMS, FETCH)
        self._kernel = cached_uml()
        self.kernel_release = self._kernel.release
        with ExitStack() as stack:
            self._folder = stack.enter_context(scratch())
            stack.callback(self._stop)
            self.results = (self._results or self._folder / "results").absolute()
            self.results.mkdir(parents=True, exist_ok=True)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Job:
        """Boot, and start a command there; returns once the guest is about to run it."""
        variables = {**environment(self.results, "uml"), **self._variables, **(env or {})}
        jobs = self._folder / f"boot{len(self._boots)}"
        folder = jobs / "1"
        folder.mkdir(parents=True)
        (folder / "script").write_text(script(argv, variables, str(cwd or Path.cwd())))
        settings = f"RESULTS={shlex.quote(str(self.results))}\nVIRTUAL={self._virtual:d}\n"
        (jobs / "settings").write_text(settings)
        began = time.monotonic()
        boot = Boot(self._kernel.linux, jobs, self._options, self._append)
        self._boots.append(boot)
        if not boot.wait_ready(self._boot_timeout):
            waited = time.monotonic() - began
            raise GuestDied(f"the guest was not ready in {waited:.1f} s.")
        self.boot_seconds = time.monotonic() - began
        return Job(boot, 1, folder, list(argv))

    def console(self) -> str:
        """What the kernel of the last command said."""
        return self._boots[-1].console() if self._boots else ""

    @property
    def pid(self) -> int:
        """The process id of the last command's kernel."""
        return self._boots[-1].process.pid

    def _autopsy(self, sentence: str) -> str:
        return self._boots[-1].process.autopsy(sentence, self.console())

    def _stop(self) -> None:
        for boot in self._boots:
            boot.stop()


class Boot(Reports):
    """One boot of the kernel, for the job `jobs`/1."""

    def __init__(
        self, linux: Path, jobs: Path, options: Sequence[str], append: Sequence[str]
    ) -> None:
        self._said = jobs / "console"
        ours, theirs = socket.socketpair()
        command = [
            *(str(linux), *options, f"uml_dir={jobs}/", "root=/dev/root", "rootfstype=hostfs"),
            *("rootflags=/", "ro", "quiet", "loglevel=1", "panic=-1", "random.trust_cpu=on"),
            *("con=null", "con0=null,fd:1", f"con1=null,fd:{theirs.fileno()}"),
            *(_quoted("JOBS", jobs), _quoted("B", _busybox()), f"init={_busybox()}"),
            *append,
            *("--", "sh", f'"{_INIT}"'),
        ]
        try:
            self.process = Kept(
                "the kernel",
                command,
                stderr=jobs / "complaints",
                stdout=self._said,
                pass_fds=[theirs.fileno()],
                env={"TMPDIR": _memory_folder(jobs), "HOME": str(jobs)},
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        super().__init__(ours)

    def console(self) -> str:
        """What the kernel and its first process said."""
        return self._said.read_text(errors="replace").replace("\r", "")

    def status(self, number: int, timeout: float | None) -> int | None:
        """The job's exit status; with it the guest has ended, and nothing of it is left."""
        status = super().status(number, timeout)
        if status is not None:
            self.stop()
        return status

    def kill(self, number: int) -> None:
        """The job is the guest, and the guest a process."""
        self.process.stop()
        with self._changed:
            self._status.setdefault(number, _KILLED)

    def stop(self) -> None:
        """End the kernel if it has not ended; harmless twice."""
        if self._status:  # it has said its last word, and is about to
            self.process.ending(_ENDING_S)
        self.process.stop()
        self.close()


def _quoted(name: str, path: Path) -> str:
    # The kernel's command line has quotes, and no way to write one inside them.
    if '"' in str(path):
        raise RigError(f'{path}: a path with a " cannot be told to the kernel.')
    return f'{name}="{path}"'


def _busybox() -> Path:
    found = shutil.which("busybox")
    assert found is not None, "require_programs() has looked"
    return Path(found)


def _memory_folder(fallback: Path) -> str:
    """Where the guest's memory is a file: in memory if one may execute there, as it must be."""
    shm = Path("/dev/shm")
    if shm.is_dir() and os.access(shm, os.W_OK) and not os.statvfs(shm).f_flag & os.ST_NOEXEC:
        return str(shm)
    return str(fallback)
