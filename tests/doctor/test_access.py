# SPDX-License-Identifier: MIT
"""Who may open a node: the algorithm of acl(5), and the bytes the kernel keeps an ACL in."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from udriver.drivers.access import Acl, Node, User, look, may_use, named_users, parse_acl

ANN = User("ann", 1000, frozenset({1000, 30}))
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32


def entries(*more: tuple[int, int, int], mask: int = 6) -> Acl:
    return ((USER_OBJ, 6, 0), (GROUP_OBJ, 6, 0), (MASK, mask, 0), (OTHER, 0, 0), *more)


@pytest.mark.parametrize(
    ("node", "may"),
    [
        (Node("tty", 0o660, gid=30), True),
        (Node("tty", 0o660, gid=20), False),
        (Node("tty", 0o666, gid=20), True),
        (Node("tty", 0o606, gid=30), False),  # the group's bits, and no other, are hers
        (Node("tty", 0o600, uid=1000), True),
        (Node("tty", 0o066, uid=1000), False),
        (Node("tty", 0o440, gid=30), False),  # reading is not enough
        (Node("tty", acl=entries((USER, 6, 1000))), True),
        (Node("tty", acl=entries((USER, 6, 1000), mask=4)), False),
        (Node("tty", acl=entries((USER, 0, 1000), (GROUP, 6, 30))), False),
        (Node("tty", acl=entries((GROUP, 6, 30))), True),
        (Node("tty", acl=entries((GROUP, 4, 30))), False),
        (Node("tty", acl=entries((GROUP, 6, 30), mask=4)), False),
        (Node("tty", acl=entries((USER, 6, 7))), False),
        (Node("tty", acl=((USER_OBJ, 6, 0), (GROUP_OBJ, 0, 0), (OTHER, 6, 0))), True),
    ],
)
def test_may_use(node: Node, may: bool) -> None:
    assert may_use(node, ANN) is may
    assert may_use(node, User("root", 0, frozenset()))


def test_parse() -> None:
    raw = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries())
    assert parse_acl(raw) == entries()


@pytest.mark.parametrize("raw", [b"", b"\2", b"\1\0\0\0", b"\2\0\0\0\1"])
def test_what_is_no_acl_grants_nothing(raw: bytes) -> None:
    assert parse_acl(raw) == ()


def test_look_reads_the_attribute(tmp_path: Path) -> None:
    path = tmp_path / "node"
    path.touch(0o600)
    acl = entries((USER, 6, 1000))
    ordered = sorted(acl)
    raw = struct.pack("<I", 2)
    for tag, bits, who in ordered:
        raw += struct.pack("<HHI", tag, bits, who if tag == USER else 0xFFFFFFFF)
    try:
        os.setxattr(path, "system.posix_acl_access", raw)
    except OSError as exc:
        pytest.skip(f"no ACL on {tmp_path}: {exc.strerror}; mount it with the option acl")
    found = look(path)
    assert found is not None
    assert (found.kind, found.refused) == ("a regular file", False)
    assert named_users(found) == [1000]
    assert may_use(found, User("ann", 1000, frozenset()))


def test_look_at_nothing_and_at_a_device(tmp_path: Path) -> None:
    assert look(tmp_path / "nothing") is None
    null = look(Path("/dev/null"))
    assert null is not None
    assert (null.kind, null.mode, null.refused) == ("tty", 0o666, False)
