# SPDX-License-Identifier: MIT
"""Finding a port in vhci_hcd's files; the files here are copies, written as the kernel writes them."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from udriver_hw import vhci

STATUS = """\
hub port sta spd dev      sockfd local_busid
hs  0000 006 002 00010002 000005 3-1
hs  0001 004 000 00000000 000000 0-0
hs  0002 004 000 00000000 000000 0-0
ss  0003 004 000 00000000 000000 0-0
"""


@pytest.fixture
def sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "status").write_text(STATUS)
    (tmp_path / "attach").touch()
    (tmp_path / "detach").touch()
    monkeypatch.setattr(vhci, "VHCI", tmp_path)
    return tmp_path


def test_the_ports(sysfs: Path) -> None:
    taken, free, _, fast = vhci.ports()
    assert taken == (0, "hs", False, "3-1")
    assert (free.free, fast.hub) == (True, "ss")


@pytest.mark.parametrize(("speed", "port"), [(2, 1), (3, 1), (5, 3)])
def test_an_attach_takes_the_first_free_port_of_its_speed(
    sysfs: Path, speed: int, port: int
) -> None:
    assert vhci.attach(9, speed) == port
    assert (sysfs / "attach").read_text() == f"{port} 9 65538 {speed}"


def test_without_a_free_port_it_says_so(sysfs: Path) -> None:
    (sysfs / "status").write_text(STATUS.replace(" 004 ", " 006 "))
    with pytest.raises(OSError, match="no vhci port is free"):
        vhci.attach(9, 2)


def test_a_detach_waits_until_the_port_is_free(sysfs: Path) -> None:
    def kernel() -> None:
        while not (sysfs / "detach").read_text():
            time.sleep(0.001)
        (sysfs / "status").write_text(STATUS.replace(" 006 ", " 004 "))

    thread = threading.Thread(target=kernel)
    thread.start()
    assert vhci.detach(0)
    thread.join()
    assert (sysfs / "detach").read_text() == "0"


def test_a_port_that_stays_taken_is_told(sysfs: Path) -> None:
    assert vhci.detach(0, timeout=0.05) is False


def test_what_is_missing_is_one_sentence(
    sysfs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert vhci.why_not() is None
    monkeypatch.setattr(vhci.os, "access", lambda path, mode: False)
    assert "root" in str(vhci.why_not())
    monkeypatch.setattr(vhci, "VHCI", tmp_path / "none")
    assert "vhci_hcd" in str(vhci.why_not())
