# SPDX-License-Identifier: MIT
"""What the rig needs from Debian: QEMU and udev installed, a kernel image only unpacked.

The kernel package is never installed: its postinst would make it this machine's kernel.
`apt-get download` plus `dpkg-deb -x` is enough, and needs no root. The cloud flavour is of no
use: it has CONFIG_USB_SUPPORT unset.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from vm.cache import cache_root, filled
from vm.failure import Missing, RigError

# program -> package. udev is the *guest's*: the guest's root is this machine's, read only.
PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "udevadm": "udev",
    "zstd": "zstd",  # the 6.12 kernel's payload; Python 3.11 has xz and gzip of its own
    "setpriv": "util-linux",
}
PREFERRED_SERIES = "6.12"
METAPACKAGE = "linux-image-amd64"
# Nothing the rig can emulate; three quarters of the 400 MB the package unpacks to.
UNUSED_MODULES = ("drivers/gpu", "drivers/net", "drivers/media", "drivers/infiniband", "sound")
_FETCH = "python hw/vm/rig.py fetch"


def say(sentence: str) -> None:
    """A note of progress; standard output belongs to the guest's command."""
    print(f"rig: {sentence}", file=sys.stderr, flush=True)


def absent_programs(programs: Mapping[str, str]) -> list[str]:
    """Those that PATH does not have."""
    return [program for program in programs if shutil.which(program) is None]


def require_programs(programs: Mapping[str, str] = PROGRAMS, fetch: str = _FETCH) -> None:
    """Raise Missing, in one sentence, unless all programs are there."""
    if platform.machine() != "x86_64":
        raise Missing(f"the rig runs on x86_64 only, and this machine is {platform.machine()}.")
    absent = absent_programs(programs)
    if absent:
        raise Missing(f"{', '.join(absent)} not found on PATH: run `{fetch}` first.")


def install_programs(programs: Mapping[str, str] = PROGRAMS) -> None:
    """Install the packages of the absent programs; without root, say the command."""
    absent = absent_programs(programs)
    if not absent:
        return
    packages = sorted({programs[program] for program in absent})
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Missing(f"{', '.join(absent)} not found: run `sudo {shlex.join(command)}`.")
    refresh_lists()
    say(f"installing {' '.join(packages)}")
    # The lock time-out is for two rigs at once: the second waits instead of failing.
    _call(["apt-get", "-o", "DPkg::Lock::Timeout=300", *command[1:]])


def fetch_kernel(series: str | None = None, *, update: bool = False) -> Path:
    """The folder of an unpacked kernel image; what is cached will do, unless `update`."""
    if not update:
        try:
            place = cached_kernel(series)
        except Missing:
            pass
        else:
            say(f"kernel {place.name.replace('_', ' ')}: in the cache")
            return place
    try:
        return _fetch_candidate(series)
    except RigError:
        if os.geteuid() != 0:
            raise
    refresh_lists()  # lists older than the archive name files that are gone from it
    return _fetch_candidate(series)


def _fetch_candidate(series: str | None) -> Path:
    package = _kernel_package(series)
    version = candidate_version(package)
    place = cache_root() / "kernels" / f"{package}_{version.replace(':', '%3a')}"
    return filled(place, lambda draft: _unpack(package, draft))


def cached_kernel(series: str | None = None) -> Path:
    """The newest kernel already in the cache, or Missing."""
    wanted_name = re.compile(_image_pattern(series) if series else "linux-image-")
    folders = [
        folder
        for folder in (cache_root() / "kernels").glob("*_*")
        if wanted_name.match(folder.name) and ".tmp" not in folder.name and folder.is_dir()
    ]
    if not folders:
        wanted = f" {series}" if series else ""
        option = f" --kernel {series}" if series else ""
        raise Missing(f"no kernel image{wanted} in {cache_root()}: run `{_FETCH}{option}` first.")
    return max(folders, key=lambda folder: version_key(folder.name))


def version_key(name: str) -> tuple[int, ...]:
    """Numbers of a package name, for ordering: 6.1.0-56 comes before 6.12.111."""
    return tuple(int(number) for number in re.findall(r"\d+", name))


def fetch_headers(release: str) -> Path:
    """The folder of the unpacked headers that modules for the kernel ``release`` are built with."""
    return filled(headers_place(release), lambda draft: _unpack_headers(release, draft))


def cached_headers(release: str) -> Path:
    """The same if it is in the cache, else Missing."""
    place = headers_place(release)
    if not place.is_dir():
        raise Missing(f"no headers of Linux {release} in the cache: run `{_FETCH} --headers`.")
    return place


def headers_place(release: str) -> Path:
    """Where they are, once they are; the Makefile inside names this path."""
    return cache_root() / "headers" / release


def _unpack_headers(release: str, draft: Path) -> None:
    package = f"linux-headers-{release}"
    if not (named := _needed_headers(package)):
        refresh_lists()
        named = _needed_headers(package)
    for needed in (package, *named):
        unpack(needed, draft)
    # Debian's Makefile names the place where the package would be installed.
    makefile = draft / "usr" / "src" / package / "Makefile"
    installed, unpacked = "/usr/src/", f"{headers_place(release)}/usr/src/"
    makefile.write_text(makefile.read_text().replace(installed, unpacked))


def _needed_headers(package: str) -> list[str]:
    listed = _output(["apt-cache", "depends", package])
    return re.findall(r"Depends: (linux-(?:headers|kbuild)-\S+)", listed)


def _unpack(package: str, draft: Path) -> None:
    unpack(package, draft)
    for tree in UNUSED_MODULES:
        for folder in draft.glob(f"**/lib/modules/*/kernel/{tree}"):
            shutil.rmtree(folder)


def unpack(package: str, draft: Path) -> None:
    """Download a package with apt, and leave in `draft` what is in it."""
    say(f"downloading {package}")
    draft.chmod(0o777)  # apt drops to its own user for the download
    _call(["apt-get", "-q", "download", package], cwd=draft)
    draft.chmod(0o755)
    (archive,) = draft.glob("*.deb")
    say(f"unpacking {archive.name}")
    _call(["dpkg-deb", "-x", archive.name, "."], cwd=draft)
    archive.unlink()


def _kernel_package(series: str | None) -> str:
    """The name to download: the series asked for, else 6.12, else what the metapackage names."""
    if shutil.which("apt-cache") is None:
        raise Missing("apt-cache not found: the rig takes its kernel from Debian's packages.")
    for _attempt in range(2):
        names = _image_names(series or PREFERRED_SERIES)
        if not names and series is None:
            names = _metapackage_depends()
        if names:
            return max(names, key=version_key)
        refresh_lists()
    wanted = f"linux-image-{series or PREFERRED_SERIES}*"
    raise Missing(f"no {wanted} in apt's lists: run `sudo apt-get update` and try again.")


def _image_names(series: str) -> list[str]:
    pattern = _image_pattern(series) + ".*-amd64(-unsigned)?$"
    listed = _output(["apt-cache", "search", "--names-only", pattern])
    names = [line.split(" ", 1)[0] for line in listed.splitlines()]
    return [name for name in names if "-cloud-" not in name and "-rt-" not in name]


def _image_pattern(series: str) -> str:
    # The separator is what keeps 6.12 out of 6.1. Both re and apt's POSIX regex read this.
    return "^linux-image-" + series.replace(".", "[.]") + "[.-]"


def _metapackage_depends() -> list[str]:
    listed = _output(["apt-cache", "depends", METAPACKAGE])
    return re.findall(r"Depends: (linux-image-\d\S*)", listed)


def candidate_version(package: str) -> str:
    """The version that apt would download."""
    found = re.search(r"^Version: (\S+)", _output(["apt-cache", "show", package]), re.MULTILINE)
    if found is None:
        raise Missing(f"apt knows no version of {package}: run `sudo apt-get update` first.")
    return found[1]


def refresh_lists() -> None:
    """apt-get update, if we may."""
    if os.geteuid() == 0:
        say("refreshing apt's lists")
        _call(["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", "update"])


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout


def _call(command: list[str], cwd: Path | None = None) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stdout.strip().splitlines() or ["it said nothing"])[-1]
        raise RigError(f"`{shlex.join(command)}` failed: {last}")
