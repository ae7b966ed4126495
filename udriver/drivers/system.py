# SPDX-License-Identifier: MIT
"""Process context. Where to read the system from, who runs on it, and what its kernel can load.

Everything here reads files below a Root and changes none, so a test hands in a folder. Sources:
proc(5); kmod's modules.dep(5); systemd's CONTAINER_INTERFACE (/run/systemd/container).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from udriver.drivers.holders import Holder

__all__ = ["Modules", "Process", "Root", "container", "holding", "processes", "read"]

_CGROUPS = re.compile(r"docker|libpod|kubepods|containerd|/lxc")
_MARKS = ((".dockerenv", "docker"), ("run/.containerenv", "podman"))


@dataclass(frozen=True, slots=True)
class Root:
    """The folders a system is read from."""

    sys: Path = Path("/sys")
    proc: Path = Path("/proc")
    dev: Path = Path("/dev")
    run: Path = Path("/run")
    etc: Path = Path("/etc")
    lib: Path = Path("/usr/lib")

    @classmethod
    def under(cls, top: Path) -> Root:
        """The same folders of the system whose ``/`` is ``top``."""
        return cls(*(top / name for name in ("sys", "proc", "dev", "run", "etc", "usr/lib")))

    def real(self, path: str) -> Path:
        """Where a path below /dev is to be read."""
        return self.dev / path.removeprefix("/dev/") if path.startswith("/dev/") else Path(path)

    def shown(self, path: Path) -> str:
        """The path as the system's user writes it."""
        return "/" + os.path.relpath(path, self.dev.parent)


@dataclass(frozen=True, slots=True)
class Process:
    """A process: its name, its command line, and what below /dev it has open.

    ``opened`` holds paths and "major:minor"; None if it belongs to another user and we may not look.
    """

    pid: int
    name: str
    command: str
    opened: frozenset[str] | None

    def __str__(self) -> str:
        return f"pid {self.pid} ({self.name})"


def read(path: Path) -> str:
    """The text of a file of the kernel's, without the end of line; "" if there is none for us."""
    try:
        return path.read_text(errors="replace").strip("\n")
    except OSError:
        return ""


def processes(root: Root) -> list[Process]:
    """Every process but this one."""
    try:
        names = os.listdir(root.proc)
    except OSError:
        return []
    pids = sorted(int(name) for name in names if name.isdigit() and int(name) != os.getpid())
    found = (_process(root.proc / str(pid), pid) for pid in pids)
    return [process for process in found if process is not None]


def _process(folder: Path, pid: int) -> Process | None:
    name = read(folder / "comm")
    if not name:
        return None  # ended meanwhile
    command = read(folder / "cmdline").replace("\0", " ").strip()
    return Process(pid, name, command or name, _opened(folder / "fd"))


def _opened(folder: Path) -> frozenset[str] | None:
    found = set()
    try:
        for fd in os.listdir(folder):
            target = os.readlink(folder / fd)
            if target.startswith("/dev/") and target != "/dev/null":
                found |= {target, _number(folder / fd)}
    except PermissionError:
        return None
    except OSError:
        pass  # it ended meanwhile, or closed this one
    return frozenset(found - {""})


def _number(fd: Path) -> str:
    """Of the device itself, which a container may have under another name."""
    try:
        rdev = os.stat(fd).st_rdev
    except OSError:
        return ""
    return f"{os.major(rdev)}:{os.minor(rdev)}" if rdev else ""


def holding(running: list[Process], device: str, number: str) -> list[Holder]:
    """Who has the device open, as far as we may look."""
    wanted = {device, number} - {""}
    return [
        Holder(process.pid, process.command[:80])
        for process in running
        if process.opened and process.opened & wanted
    ]


def container(root: Root) -> str:
    """The kind of container this runs in; "" on a whole system."""
    if kind := read(root.run / "systemd/container"):
        return kind
    for mark, kind in _MARKS:
        if (root.dev.parent / mark).exists():
            return kind
    inherited = re.search(r"(?:^|\0)container=([^\0]+)", read(root.proc / "1/environ"))
    if inherited:
        return inherited[1]
    known = _CGROUPS.search(read(root.proc / "1/cgroup"))
    return known[0].strip("/") if known else ""


class Modules:
    """What the running kernel can load, from /usr/lib/modules; files are read when asked for."""

    def __init__(self, root: Root) -> None:
        self.release = read(root.proc / "sys/kernel/osrelease")
        self._folder = root.lib / "modules" / (self.release or "unknown")
        self._sys = root.sys

    @property
    def listed(self) -> bool:
        """Whether the running kernel's modules are on disk here."""
        return (self._folder / "modules.dep").exists()

    def has(self, module: str) -> bool:
        """Whether the module is loaded, built in, or on disk."""
        if self.loaded(module):
            return True
        known = read(self._folder / "modules.dep") + "\n" + read(self._folder / "modules.builtin")
        name = re.escape(module).replace("_", "[-_]")
        return bool(re.search(rf"(?:^|/){name}\.ko[.\w]*(?::|$)", known, re.MULTILINE))

    def loaded(self, module: str) -> bool:
        """Whether its driver is registered with the USB bus, or the module is in memory."""
        places = (self._sys / "bus/usb/drivers" / module, self._sys / "module" / module)
        return any(place.exists() for place in places)

    def of(self, modalias: str) -> list[str]:
        """The modules that say they drive this device."""
        vendor = modalias[:10].lower()  # usb:v0403; the kernel writes the ids in upper case
        found = []
        for line in read(self._folder / "modules.alias").splitlines():
            pattern, _, module = line.removeprefix("alias ").rpartition(" ")
            likely = pattern[:10].lower() == vendor or pattern.startswith("usb:v*")
            if likely and fnmatchcase(modalias, pattern):
                found.append(module)
        return found
