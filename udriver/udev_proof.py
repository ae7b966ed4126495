# SPDX-License-Identifier: MIT
"""Composition. Proves that the rule took: each promise is read back from the system, per device.

A check says ok, FAIL with what would mend it, or skip where there is nothing to prove. What a rule
file says proves nothing: udev skips what it does not understand and ends with success.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import pwd
import stat
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from udriver.drivers.holders import holders
from udriver.udev import FAST_LATENCY_MS, link_name
from udriver.udev_system import Plugged, System

__all__ = ["Check", "User", "acl_users", "drop_stale_acl", "invoking_user", "open_as", "prove"]

ACL = "system.posix_acl_access"
_ACL_USER = 0x02  # include/uapi/linux/posix_acl.h; le32 version, then le16 tag, le16 perm, le32 id
_ACL_MASK = 0x10
_READ_WRITE = 0o6


@dataclass(frozen=True, slots=True)
class Check:
    """One promise about one device; ``ok`` is None where there was nothing to prove."""

    device: str
    what: str
    ok: bool | None
    says: str
    fix: str = ""

    def __str__(self) -> str:
        word = {True: "ok  ", False: "FAIL", None: "skip"}[self.ok]
        return f"{word} {self.device} {self.what}: {self.says}" + (self.fix and f"; {self.fix}")


@dataclass(frozen=True, slots=True)
class User:
    """Whose rights are proved."""

    uid: int
    gid: int
    name: str
    groups: tuple[int, ...]


def invoking_user(environ: Mapping[str, str] = os.environ) -> User:
    """Who asked for this: the user behind sudo or pkexec, else the process's own."""
    uid = os.geteuid()
    if uid == 0:
        behind = environ.get("SUDO_UID") or environ.get("PKEXEC_UID") or ""
        uid = int(behind) if behind.isdecimal() else 0
    if uid == os.geteuid():
        return User(uid, os.getegid(), _name(uid), tuple(os.getgroups()))
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return User(uid, uid, str(uid), ())
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    return User(uid, entry.pw_gid, entry.pw_name, tuple(groups))


def prove(system: System, devices: Sequence[Plugged], user: User) -> list[Check]:
    """All promises of the rule, for each device, in the order a reader would ask."""
    of = {device.name: system.properties(device.tty) for device in devices}
    links = {name: link_name(properties) for name, properties in of.items()}
    return [
        check
        for device in devices
        for check in _device(system, device, user, of[device.name], links)
    ]


def _device(
    system: System,
    device: Plugged,
    user: User,
    properties: Mapping[str, str],
    links: Mapping[str, str | None],
) -> Iterator[Check]:
    node = system.root / "dev" / device.name
    named = f"/dev/{device.name}"
    again = f"replug it, or run `sudo udevadm trigger --action=change {_paths(device)}`"
    yield _link(system, device, links)
    yield _mode(node, named)
    tags = properties.get("CURRENT_TAGS", properties.get("TAGS", ""))
    tagged = ":uaccess:" in tags
    yield Check(named, "uaccess", tagged, f"tags {tags or 'none'}", "" if tagged else again)
    yield _acl(system, node, named, user, properties.get("ID_SEAT", "seat0"))
    if device.latency_file is not None:
        yield _latency(device.latency_file, named, again)
    told = {
        "ID_MM_PORT_IGNORE": properties,
        "ID_MM_DEVICE_IGNORE": system.properties(device.usb),
    }
    missing = [name for name, where in told.items() if where.get(name) != "1"]
    says = f"not told by {' and '.join(missing)}" if missing else "leaves it alone"
    yield Check(named, "ModemManager", not missing, says, again if missing else "")
    yield _open(node, named, user)


def _paths(device: Plugged) -> str:
    """All that the rule acts on, parents first: the tty's event alone sets no latency."""
    paths = [f"/sys/bus/usb/devices/{device.usb.name}"]
    if device.port is not None:
        paths.append(f"/sys/bus/usb-serial/devices/{device.port.name}")
    return " ".join([*paths, f"/sys/class/tty/{device.name}"])


def _link(system: System, device: Plugged, links: Mapping[str, str | None]) -> Check:
    named, link = f"/dev/{device.name}", links[device.name]
    if link is None:
        fix = "look at `udevadm info` of it"
        return Check(named, "link", False, "it has neither a safe serial nor an ID_PATH", fix)
    path = system.root / "dev" / link
    try:
        points = os.path.basename(os.readlink(path))
    except OSError as error:
        fix = "run `sudo udevadm settle`, then replug it"
        return Check(named, "link", False, f"no /dev/{link} ({error.strerror})", fix)
    if points == device.name and path.resolve() == (system.root / "dev" / device.name).resolve():
        return Check(named, "link", True, f"/dev/{link}")
    others = [f"/dev/{name}" for name in links if links[name] == link and name != device.name]
    says = f"/dev/{link} points to {points}"
    if others:
        says += f": {', '.join(others)} has the same serial"
    return Check(named, "link", False, says, "name this one by /dev/serial/by-path")


def _mode(node: Path, named: str) -> Check:
    try:
        found = os.stat(node)
    except OSError as error:
        return Check(named, "mode", False, f"no node ({error.strerror})", "replug it")
    says = f"{stat.filemode(found.st_mode)} {_name(found.st_uid)}:{_group(found.st_gid)}"
    open_to_all = bool(found.st_mode & 0o007)
    fix = "another rule lets everybody in; find it with `grep -rn MODE /etc/udev/rules.d`"
    return Check(named, "mode", not open_to_all, says, fix if open_to_all else "")


def _acl(system: System, node: Path, named: str, user: User, seat: str) -> Check:
    if not os.path.isdir(system.root / "run/systemd/seats"):
        says = "no logind here, so nobody gets an ACL; the group decides"
        return Check(named, "acl", None, says)
    active = _settings(system.root / "run/systemd/seats" / seat).get("ACTIVE_UID")
    users = acl_users(node)
    if user.uid in users:
        return Check(named, "acl", True, f"{user.name} may read and write")
    if user.uid == 0:
        return Check(named, "acl", None, "root needs none")
    if active != str(user.uid):
        says = f"{user.name} is not the active user of {seat} (by ssh?), so gets none; the group decides"
        return Check(named, "acl", None, says)
    fix = f"look at `loginctl seat-status {seat}`, then replug the device"
    return Check(named, "acl", False, f"{user.name} has no ACL on it", fix)


def acl_users(node: Path) -> set[int]:
    """The users whom the node's ACL lets read and write."""
    try:
        data = os.getxattr(node, ACL)
    except OSError:
        return set()
    entries = list(struct.iter_unpack("<HHI", data[4:]))
    mask = next((perm for tag, perm, _ in entries if tag == _ACL_MASK), _READ_WRITE)
    return {
        uid
        for tag, perm, uid in entries
        if tag == _ACL_USER and perm & mask & _READ_WRITE == _READ_WRITE
    }


def drop_stale_acl(system: System, devices: Sequence[Plugged]) -> None:
    """udev gives ACLs but takes none back: drop them where no rule asks for uaccess any more."""
    for device in devices:
        properties = system.properties(device.tty)
        if ":uaccess:" not in properties.get("CURRENT_TAGS", ""):
            with contextlib.suppress(OSError):  # there was none
                os.removexattr(system.root / "dev" / device.name, ACL)


def _latency(file: Path, named: str, again: str) -> Check:
    try:
        found = file.read_text().strip()
    except OSError as error:
        return Check(named, "latency", False, f"{file} cannot be read: {error.strerror}", again)
    ok = found == str(FAST_LATENCY_MS)
    return Check(named, "latency", ok, f"latency_timer {found} ms", "" if ok else again)


def _open(node: Path, named: str, user: User) -> Check:
    held = holders(str(node))
    failed = open_as(user, node, touch=not held)
    who = f"as {user.name}"
    if user.uid == 0:
        who += ", which proves little: start from your own account with sudo"
    if not failed:
        says = f"{who}; not opened, since {held[0]} has it" if held else who
        return Check(named, "open", True, says)
    if failed == errno.EBUSY:
        return Check(named, "open", True, f"{who}; somebody has it to himself")
    fix = f"look at `udriver doctor {named}`"
    if failed in (errno.EACCES, errno.EPERM):
        with contextlib.suppress(OSError):
            group = _group(os.stat(node).st_gid)
            fix = f"sit at the machine's seat, or `sudo usermod -aG {group} {user.name}` and log in again"
    return Check(named, "open", False, f"{who}: {os.strerror(failed)}", fix)


def open_as(user: User, node: Path, *, touch: bool = True) -> int:
    """The errno of opening ``node`` with ``user``'s rights, 0 if it went well; in a child.

    Without ``touch`` only the permission is asked, since opening moves DTR and RTS.
    """
    child = os.fork()
    if child == 0:
        failed = errno.EIO
        try:
            if os.geteuid() != user.uid:
                os.setgroups(user.groups)
                os.setgid(user.gid)
                os.setuid(user.uid)
            if touch:
                os.close(os.open(node, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC))
                failed = 0
            else:
                failed = 0 if os.access(node, os.R_OK | os.W_OK) else errno.EACCES
        except OSError as error:
            failed = error.errno or errno.EIO
        finally:
            os._exit(failed)
    _, status = os.waitpid(child, 0)
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else errno.EIO


def _settings(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    return dict(line.split("=", 1) for line in lines if "=" in line)


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
