# SPDX-License-Identifier: MIT
"""Builds the module and its player for one kernel; cached by content, as all the rig makes."""

from __future__ import annotations

import hashlib
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from vm.cache import cache_root, filled
from vm.failure import Missing, RigError
from vm.packages import cached_headers, say

SOURCES = Path(__file__).parent
MODULE = "completion_oracle.ko"
PLAYER = "oracle_player"
# program -> package. The compiler is the one the kernel's Makefile names, see .kernelvariables.
PROGRAMS = {"make": "make", "gcc": "gcc", "x86_64-linux-gnu-gcc-12": "gcc-12"}


@dataclass(frozen=True, slots=True)
class Built:
    """Paths that are the same in the guest."""

    module: Path
    player: Path


def built(release: str) -> Built:
    """The module and the player for the kernel ``release``, built unless they are in the cache.

    Raises Missing, naming the command that brings it, without the kernel's headers or a compiler.
    """
    sources = sorted(path for path in SOURCES.iterdir() if path.suffix in (".c", ".h", ""))
    sources = [path for path in sources if path.is_file()]
    key = hashlib.sha256(release.encode())
    for path in sources:
        key.update(hashlib.sha256(path.read_bytes()).digest())
    place = cache_root() / "oracle" / key.hexdigest()[:20]
    if not place.is_dir():
        headers = cached_headers(release)
        _require_compiler()
        filled(place, lambda draft: _make(headers, release, sources, draft))
    return Built(place / MODULE, place / PLAYER)


def _require_compiler() -> None:
    absent = [program for program in PROGRAMS if shutil.which(program) is None]
    if absent:
        packages = sorted({PROGRAMS[program] for program in absent} | {"libc6-dev"})
        raise Missing(
            f"{', '.join(absent)} not found on PATH: run `sudo apt-get install "
            f"--no-install-recommends {shlex.join(packages)}`."
        )


def _make(headers: Path, release: str, sources: list[Path], draft: Path) -> None:
    say(f"building {MODULE} for Linux {release}")
    work = draft / "work"
    work.mkdir()
    for path in sources:
        shutil.copy(path, work)
    tree = headers / "usr" / "src" / f"linux-headers-{release}"
    # without BTF: it wants pahole, and nothing here reads it
    settings = ["CONFIG_DEBUG_INFO_BTF_MODULES=", "KCFLAGS=-Werror"]
    _call(["make", "-C", str(tree), f"M={work}", *settings, "modules"])
    warnings = ["-Wall", "-Wextra", "-Werror"]
    player = [*warnings, "-O2", "-static", "-o", PLAYER, f"{PLAYER}.c"]
    _call(["gcc", *player], cwd=work)
    for name in (MODULE, PLAYER):
        (work / name).rename(draft / name)
    shutil.rmtree(work)


def _call(command: list[str], cwd: Path | None = None) -> None:
    done = subprocess.run(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RigError(f"`{shlex.join(command)}` failed:\n{done.stdout}")
