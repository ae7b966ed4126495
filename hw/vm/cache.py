# SPDX-License-Identifier: MIT
"""Where the rig keeps what it fetched or built, and the scratch folder of one run.

1. An entry appears whole or not at all: it is filled in a folder beside its place and renamed.
2. Two that want the same entry at once: one fills, the other waits on a lock and finds it there.
3. A scratch folder belongs to a live process, by a lock the kernel drops when that process dies.
   So what a killed rig left behind is recognisable, and the next rig removes it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_OWNER = "owner.lock"


def cache_root() -> Path:
    """The cache folder: $XDG_CACHE_HOME/udriver/vm, by the XDG base directory specification."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The specification says a relative value is invalid and must be ignored.
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "udriver" / "vm"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def filled(place: Path, fill: Callable[[Path], None]) -> Path:
    """Return `place`, after `fill(folder)` made its content if it was not there."""
    if place.is_dir():
        return place
    with _locked(place.with_name(place.name + ".lock")):
        if not place.is_dir():
            _fill(place, fill)
    return place


def _fill(place: Path, fill: Callable[[Path], None]) -> None:
    for stale in place.parent.glob(place.name + ".tmp*"):  # we hold the lock: nobody's
        shutil.rmtree(stale)
    draft = Path(tempfile.mkdtemp(prefix=place.name + ".tmp", dir=place.parent))
    try:
        draft.chmod(0o755)
        fill(draft)
        draft.rename(place)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for one run, gone afterwards; also sweeps those of runs that were killed."""
    parent = cache_root() / "runs"
    parent.mkdir(parents=True, exist_ok=True)
    with _locked(parent.with_name("runs.lock")):  # nobody sweeps what is not owned yet
        _sweep(parent)
        folder = Path(tempfile.mkdtemp(dir=parent))
        owner = (folder / _OWNER).open("w")
        fcntl.flock(owner, fcntl.LOCK_EX)
    with owner:
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _sweep(parent: Path) -> None:
    for folder in parent.iterdir():
        with (folder / _OWNER).open("a") as owner:
            try:
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue  # its owner lives
            shutil.rmtree(folder, ignore_errors=True)
