# SPDX-License-Identifier: MIT
"""Builds the User Mode Linux kernel once from Debian's source package, and keeps only the binary.

Debian's own `user-mode-linux` has no USB core. What is built is `uml.config`, on top of nothing;
the cache entry's name holds the package's version and a hash of that.
flex, bison and m4 are needed by the build alone and so not installed, only unpacked beside it.
Sources: Documentation/kbuild/kconfig.rst (KCONFIG_ALLCONFIG), kbuild.rst (KBUILD_BUILD_*).
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from vm.cache import cache_root, filled
from vm.failure import Missing, RigError
from vm.packages import candidate_version, install_programs, refresh_lists, say, unpack, version_key
from vm.process import Kept

# program -> package: what a guest needs of this machine, and what the build does beside that.
RUN_PROGRAMS = {"busybox": "busybox-static", "udevadm": "udev", "setpriv": "util-linux"}
BUILD_PROGRAMS = {"gcc": "gcc", "ld": "binutils", "make": "make", "xz": "xz-utils", "tar": "tar"}
LIBC_HEADER = Path("/usr/include/stdio.h")
BESIDE = ("flex", "bison", "m4")

SOURCE = "linux-source-6.12"
CONFIG = Path(__file__).with_name("uml.config")
# A quarter of the source tree: less to write than the whole, and all the build reads.
_TREES = [
    "arch/um",
    "arch/x86",
    "fs",
    "include",
    "init",
    "io_uring",
    "ipc",
    "kernel",
    "lib",
    "mm",
    "net",
    "scripts",
    "security",
]
_DRIVERS = ["base", "char", "gpio", "net/loopback.c", "pps", "tty", "usb"]
FETCH = "python hw/vm/rig.py fetch --machine uml"


@dataclass(frozen=True, slots=True)
class UmlKernel:
    """A built kernel: the program to run, and what `uname -r` says in it."""

    linux: Path
    release: str


def cached_uml() -> UmlKernel:
    """The newest kernel with today's configuration in the cache, or Missing."""
    built = [place for place in _root().glob(f"*_{_key()}") if place.is_dir()]
    if not built:
        raise Missing(f"no User Mode Linux in {cache_root()}: run `{FETCH}` first.")
    newest = max(built, key=lambda place: version_key(place.name))
    return UmlKernel(newest / "linux", (newest / "release").read_text().strip())


def fetch_uml(*, update: bool = False) -> UmlKernel:
    """The same, built if it is not in the cache; with `update` apt's version is what counts."""
    if not update:
        try:
            return cached_uml()
        except Missing:
            pass
    install_programs(BUILD_PROGRAMS | RUN_PROGRAMS)
    if not LIBC_HEADER.exists():
        install_programs({str(LIBC_HEADER): "libc6-dev"})
    refresh_lists()  # two seconds beside a minute or two, and stale ones name files that are gone
    version = candidate_version(SOURCE)
    filled(_root() / f"{version.replace(':', '%3a')}_{_key()}", _build)
    return cached_uml()


def _root() -> Path:
    return cache_root() / "uml"


def _key() -> str:
    """Of what the configuration says; its comments may change."""
    symbols = sorted(line for line in CONFIG.read_text().splitlines() if "CONFIG_" in line)
    return hashlib.sha256("\n".join(symbols).encode()).hexdigest()[:12]


def _build(draft: Path) -> None:
    """Fill the cache entry; of source, tools and objects nothing stays."""
    began = time.monotonic()
    work = draft / "work"
    source, objects, tools = (work / name for name in ("source", "objects", "tools"))
    for folder in (work, source, objects, tools):
        folder.mkdir()
    unpack(SOURCE, work)
    for package in BESIDE:
        unpack(package, tools)
    _extract(work, source)
    make = ["make", "-s", "-C", str(source), f"O={objects}", "ARCH=um"]
    environment = _environment(tools)
    jobs = len(os.sched_getaffinity(0))
    log = _root() / "build.log"
    log.unlink(missing_ok=True)
    _run([*make, f"KCONFIG_ALLCONFIG={CONFIG}", "allnoconfig"], environment, log)
    _check_config(objects / ".config")
    say(f"compiling it for user mode with {jobs} jobs")
    _run([*make, f"-j{jobs}", "linux"], environment, log)
    (objects / "linux").rename(draft / "linux")
    (objects / ".config").rename(draft / "config")
    (objects / "include/config/kernel.release").rename(draft / "release")
    shutil.rmtree(work)
    say(f"fetched and built in {time.monotonic() - began:.0f} s")


def _extract(work: Path, source: Path) -> None:
    (archive,) = work.glob("usr/src/linux-source-*.tar.xz")
    wanted = ["*/Kconfig*", "*/Makefile*", "*/Kbuild*"]
    wanted += [f"{SOURCE}/{tree}/*" for tree in _TREES]
    wanted += [f"{SOURCE}/drivers/{tree}" for tree in _DRIVERS]
    say(f"unpacking {archive.name}")
    command = ["tar", "--use-compress-program", "xz -dT0", "-xf", str(archive), "-C", str(source)]
    command += ["--strip-components=1", "--wildcards", *wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RigError(f"`{shlex.join(command)}` failed: {done.stderr.strip()}")


def _environment(tools: Path) -> dict[str, str]:
    unpacked = tools / "usr"
    if shutil.which("bc") is None:
        busybox = shutil.which("busybox")
        assert busybox is not None, "RUN_PROGRAMS are there"
        (unpacked / "bin" / "bc").symlink_to(busybox)
    return {
        "PATH": f"{unpacked / 'bin'}:{os.environ['PATH']}",
        "LANG": "C",
        # both were configured for a place under /usr
        "BISON_PKGDATADIR": str(unpacked / "share" / "bison"),
        "M4": str(unpacked / "bin" / "m4"),
        # for the same binary from the same source, whoever builds it
        "KBUILD_BUILD_USER": "udriver",
        "KBUILD_BUILD_HOST": "udriver",
        "KBUILD_BUILD_TIMESTAMP": "@0",
    }


def _run(command: list[str], environment: dict[str, str], log: Path) -> None:
    process = Kept("make", command, stderr=log, env=environment)
    try:
        status = process.wait()
    finally:
        process.stop()
    if status:
        last = "\n  ".join(log.read_text(errors="replace").splitlines()[-15:])
        raise RigError(f"`{shlex.join(command)}` failed; the end of {log}:\n  {last}")


def _check_config(config: Path) -> None:
    """A symbol whose dependencies are not met is dropped without a word; say it."""
    asked = {line for line in CONFIG.read_text().splitlines() if line.startswith("CONFIG_")}
    if lost := asked - set(config.read_text().splitlines()):
        raise RigError(f"{SOURCE} does not take {', '.join(sorted(lost))} from {CONFIG.name}.")
