# SPDX-License-Identifier: MIT
"""Process context. Who may open a device node: mode, owner, group, ACL; decided as the kernel does.

Sources: acl(5), "ACCESS CHECK ALGORITHM"; linux/posix_acl_xattr.h for the bytes of the attribute.
The device cgroup of a container is asked by access(2), which opens nothing (fs/namei.c,
inode_permission): opening would raise DTR and reset a board.
"""

from __future__ import annotations

import os
import pwd
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

from udriver.drivers.system import Root, read

__all__ = [
    "Acl", "Node", "User", "group_members", "group_name", "look", "may_use", "named_users", "parse_acl",
]  # fmt: skip

_XATTR = "system.posix_acl_access"
_VERSION = 2
_RW = 6
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 1, 2, 4, 8, 16, 32

Acl = tuple[tuple[int, int, int], ...]  # tag, permissions, id


@dataclass(frozen=True, slots=True)
class User:
    """Who asks: as a process, so ``groups`` are those of this login."""

    name: str
    uid: int
    groups: frozenset[int]

    @classmethod
    def current(cls) -> User:
        """The user this process runs as."""
        uid = os.geteuid()
        try:
            name = pwd.getpwuid(uid).pw_name
        except KeyError:
            name = str(uid)
        return cls(name, uid, frozenset({*os.getgroups(), os.getegid()}))


@dataclass(frozen=True, slots=True)
class Node:
    """A path in /dev: ``kind`` is "tty" for any character device, else what it is.

    ``refused`` is access(2)'s answer for reading and writing as this process.
    """

    kind: str
    mode: int = 0o660
    uid: int = 0
    gid: int = 0
    acl: Acl = ()
    refused: bool = False


def look(path: Path) -> Node | None:
    """What is at ``path``; None if nothing is."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    mode = found.st_mode
    return Node(
        _kind(mode),
        stat.S_IMODE(mode),
        found.st_uid,
        found.st_gid,
        _acl(path),
        not os.access(
            path, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids
        ),
    )


def _kind(mode: int) -> str:
    kinds = {stat.S_IFCHR: "tty", stat.S_IFREG: "a regular file", stat.S_IFDIR: "a directory"}
    return kinds.get(stat.S_IFMT(mode), "no character device")


def _acl(path: Path) -> Acl:
    try:
        return parse_acl(os.getxattr(path, _XATTR))
    except OSError:
        return ()  # ENODATA: none set; ENOTSUP: this file system has none


def parse_acl(raw: bytes) -> Acl:
    """The entries of the attribute; () if it is not one we know."""
    if len(raw) < 4 or (len(raw) - 4) % 8 or struct.unpack_from("<I", raw)[0] != _VERSION:
        return ()
    return tuple(struct.iter_unpack("<HHI", raw[4:]))


def may_use(node: Node, user: User) -> bool:
    """Whether mode and ACL let ``user`` read and write."""
    if user.uid == 0:
        return True  # CAP_DAC_OVERRIDE; where a container took it, ``refused`` says so
    if user.uid == node.uid:
        return _grants(node.mode >> 6)
    return _by_acl(node, user) if node.acl else _by_mode(node, user)


def _grants(permissions: int) -> bool:
    return permissions & _RW == _RW


def _by_mode(node: Node, user: User) -> bool:
    return _grants(node.mode >> 3 if node.gid in user.groups else node.mode)


def _by_acl(node: Node, user: User) -> bool:
    mask = next((bits for tag, bits, _ in node.acl if tag == _MASK), 7)
    for tag, bits, who in node.acl:
        if tag == _USER and who == user.uid:
            return _grants(bits & mask)
    classes = [
        bits
        for tag, bits, who in node.acl
        if (tag == _GROUP_OBJ and node.gid in user.groups) or (tag == _GROUP and who in user.groups)
    ]
    if classes:
        return any(_grants(bits & mask) for bits in classes)
    return any(tag == _OTHER and _grants(bits) for tag, bits, _ in node.acl)


def named_users(node: Node) -> list[int]:
    """Users that the ACL names: on a tty, those whose seat ``uaccess`` gave it to."""
    return [who for tag, _, who in node.acl if tag == _USER]


def _groups(root: Root) -> list[list[str]]:
    lines = (line.split(":") for line in read(root.etc / "group").splitlines())
    return [fields for fields in lines if len(fields) == 4]


def group_name(root: Root, gid: int) -> str:
    """The group's name in /etc/group, else its number."""
    return next((name for name, _, number, _ in _groups(root) if number == str(gid)), str(gid))


def group_members(root: Root, gid: int) -> list[str]:
    """Who is in the group according to /etc/group, which the next login will see."""
    found = (users for _, _, number, users in _groups(root) if number == str(gid))
    return next(found, "").split(",")
