# SPDX-License-Identifier: MIT
"""Composition. The rule's file: where it goes, who wins, and how it gets there whole or not at all.

1. What is read and written is reached folder by folder with O_NOFOLLOW, and then by names relative to
   the last one: a link planted anywhere below the root is refused, not followed.
2. The new file is written beside the old, flushed to the disk and renamed over it. Whoever loses a race,
   or the disk's last block, leaves one whole file.
3. A file that udriver did not write is kept as 61-udriver.rules.udriver-saved beside it, a name udev
   does not read, and uninstalling puts it back. It is there before the new one is.
4. Look and change are one step to others, by a flock of the folder: of two uninstalls at once the
   second would else remove what the first has put back.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from udriver.errors import Busy, UDriverError
from udriver.udev import RULE_NAME, is_ours

__all__ = [
    "FOLDERS", "SAVED_SUFFIX", "Copy", "Refused", "RulesFolder", "copies", "difference", "not_ours",
]  # fmt: skip

FOLDERS = (  # udev(7): of files with the same name, the first wins
    "etc/udev/rules.d",
    "run/udev/rules.d",
    "usr/local/lib/udev/rules.d",
    "usr/lib/udev/rules.d",
    "lib/udev/rules.d",
)
SAVED_SUFFIX = ".udriver-saved"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LARGEST = 1 << 20  # bytes; a rule file is a few kB, and what is there might be anything
LOCK_SECONDS = 10  # not for ever: whoever may read the folder may lock it


class Refused(UDriverError):
    """What is there is not ours to touch."""


class Failed(UDriverError, OSError):
    """The kernel did not let us; ``errno`` says why."""

    def __str__(self) -> str:
        return str(self.strerror)


@dataclass(frozen=True, slots=True)
class Copy:
    """A file with our name in one of udev's folders; ``masks`` if it is there to switch us off."""

    path: Path
    masks: bool
    text: str | None


def copies(root: Path) -> list[Copy]:
    """All files with our name, the one that wins first."""
    found: list[Copy] = []
    seen: set[str] = set()
    for folder in FOLDERS:
        path = root / folder / RULE_NAME
        real = os.path.realpath(path.parent)  # /lib may be a link to /usr/lib
        if real in seen or not os.path.lexists(path):
            continue
        seen.add(real)
        text = _text(path)
        masks = os.path.realpath(path) == os.devnull or text == ""
        found.append(Copy(path, masks, None if masks else text))
    return found


def _text(path: Path) -> str | None:
    if not path.is_file():
        return None
    with contextlib.suppress(OSError):
        return path.read_bytes()[:_LARGEST].decode(errors="replace")
    return None


def difference(old: str | None, new: str | None, path: Path) -> str:
    """A unified diff, empty if there is nothing to change; None is a file that is not there."""
    diff = "".join(
        difflib.unified_diff(
            (old or "").splitlines(keepends=True),
            (new or "").splitlines(keepends=True),
            os.devnull if old is None else str(path),
            os.devnull if new is None else str(path),
        )
    )
    return diff.encode(errors="replace").decode()  # what is there need not be UTF-8


class RulesFolder:
    """One folder of rule files, open; every name below is relative to it."""

    def __init__(self, fd: int, path: Path) -> None:
        self._fd = fd
        self.path = path
        self.target = path / RULE_NAME
        self.saved = path / (RULE_NAME + SAVED_SUFFIX)

    @classmethod
    @contextlib.contextmanager
    def open(cls, root: Path, *, make: bool = False) -> Iterator[RulesFolder | None]:
        """The folder below ``root`` where an administrator's rules go; None if there is none."""
        path = root / FOLDERS[0]
        fd: int | None = None
        try:
            fd = _descend(root, make=make)
            yield cls(fd, path) if fd is not None else None
        except OSError as error:
            if isinstance(error, UDriverError):
                raise
            raise _sentence(error, path) from error
        finally:
            if fd is not None:
                os.close(fd)

    def text(self) -> str | None:
        """What the target holds; None if it is not there. Refuses what is no plain file."""
        return self._read(RULE_NAME)

    def saved_text(self) -> str | None:
        """What was there before us and is kept."""
        return self._read(self.saved.name)

    def install(self, text: str) -> None:
        """Put ``text`` there, whole, after keeping what is there and not ours."""
        with self._alone():
            old = self.text()
            if old == text:
                return
            if old is not None and not is_ours(old):
                self._keep(old)
            self._write(text)

    def uninstall(self) -> None:
        """Take ours away and put back what was there before. Refuses if it is not ours."""
        with self._alone():
            text = self.text()
            if text is not None and not is_ours(text):
                raise not_ours(self.target)
            if self.saved_text() is not None:
                os.rename(self.saved.name, RULE_NAME, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            elif text is not None:
                os.unlink(RULE_NAME, dir_fd=self._fd)
            os.fsync(self._fd)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else changes the folder meanwhile, if its file system has locks at all."""
        end = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > end:
                    raise Busy(f"{self.path} is locked; `sudo lslocks` says by whom") from None
                time.sleep(0.02)
                continue
            except OSError:
                pass
            break
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _read(self, name: str) -> str | None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        try:
            fd = os.open(name, flags, dir_fd=self._fd)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            points = os.readlink(name, dir_fd=self._fd)
            raise Refused(
                f"{self.path / name} is a symbolic link to {points}, which is not followed; "
                f"remove it with `sudo rm {quote(str(self.path / name))}` if you did not want it"
            ) from None
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise Refused(f"{self.path / name} is not a regular file; move it away")
            with open(fd, "rb", closefd=False) as file:
                return file.read(_LARGEST).decode(errors="surrogateescape")
        finally:
            os.close(fd)

    def _keep(self, old: str) -> None:
        try:
            os.link(
                RULE_NAME, self.saved.name,
                src_dir_fd=self._fd, dst_dir_fd=self._fd, follow_symlinks=False,
            )  # fmt: skip
        except FileExistsError:
            if self.saved_text() != old:  # equal if another install is at the same place
                raise Refused(
                    f"{self.target} is not ours and {self.saved} holds yet another; "
                    "move one of them away"
                ) from None

    def _write(self, text: str) -> None:
        name = f".{RULE_NAME}.{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, 0o600, dir_fd=self._fd)
        try:
            try:
                data = memoryview(text.encode(errors="surrogateescape"))
                while data:
                    data = data[os.write(fd, data) :]
                os.fchmod(fd, 0o644)
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(name, RULE_NAME, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=self._fd)
            raise
        os.fsync(self._fd)


def not_ours(path: Path) -> Refused:
    """The sentence for a file that uninstalling must leave alone."""
    return Refused(
        f"{path} was not written by udriver, or was edited since; look at it and "
        f"remove it yourself with `sudo rm {quote(str(path))}`"
    )


def _descend(root: Path, *, make: bool) -> int | None:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for name in FOLDERS[0].split("/"):
        parent = fd
        try:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o755, dir_fd=parent)
            fd = os.open(name, _FOLDER, dir_fd=parent)
        except FileNotFoundError:
            return None
        finally:
            os.close(parent)
    return fd


def _sentence(error: OSError, path: Path) -> OSError:
    """Failed is told as it stands: of any other ENOSPC the command line says it was stdout's."""
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        what = "a folder on the way is missing or is a symbolic link, which is not followed"
    else:
        what = os.strerror(error.errno or errno.EIO).lower()
    message = f"{path} cannot be written: {what}; what was there is as it was"
    kind = PermissionError if isinstance(error, PermissionError) else Failed
    return kind(error.errno, message)
