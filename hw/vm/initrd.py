# SPDX-License-Identifier: MIT
"""Builds what QEMU boots, the kernel's ELF and a first root file system, cached by content.

The initrd holds busybox, two shell scripts and the dozen modules in load order, uncompressed:
loading a decompressed module is cheaper in the emulated guest than shrinking the archive.
Source of the format: Documentation/driver-api/early-userspace/buffer-format.rst ("newc").
"""

from __future__ import annotations

import hashlib
import shutil
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vm.cache import cache_root, filled
from vm.failure import Missing
from vm.kernel import Modules, release, write_bootable

# What the root file system and the two host channels need...
ROOT_MODULES = ("virtio_pci", "virtio_console", "9p", "9pnet_virtio", "overlay")
# ...and the adapter, loaded last: udevd is up by then and sees real "add" events. The driver
# comes before the bus, so the first plug goes as every later one. vhci_hcd is the bus of our own
# chips (hw/udriver_hw/wire_usbip.py); behind xhci_pci, whose bus stays the first.
USB_MODULES = ("usbserial", "ftdi_sio", "cp210x", "cdc_acm", "xhci_pci", "vhci_hcd")
_FOLDERS = ("dev", "proc", "sys", "bin", "root-modules", "usb-modules", "host", "run", "new")


@dataclass(frozen=True, slots=True)
class Boot:
    """What to hand to QEMU, and what it is."""

    release: str
    vmlinux: Path
    initrd: Path


class Archive:
    """A cpio archive in the newc format, as the kernel unpacks it."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._inode = 0

    def folder(self, name: str) -> None:
        self._entry(name, stat.S_IFDIR | 0o755)

    def file(self, name: str, content: bytes, mode: int = 0o644) -> None:
        self._entry(name, stat.S_IFREG | mode, content)

    def character_device(self, name: str, major: int, minor: int) -> None:
        self._entry(name, stat.S_IFCHR | 0o600, device=(major, minor))

    def closed(self) -> bytes:
        self._entry("TRAILER!!!", 0)
        return b"".join(self._parts)

    def _entry(
        self, name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)
    ) -> None:
        self._inode += 1
        path = name.encode() + b"\0"
        # ino mode uid gid nlink mtime filesize maj min rmaj rmin namesize check
        numbers = (self._inode, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(path), 0)
        header = b"070701" + b"".join(b"%08x" % number for number in numbers) + path
        self._parts += [header, _to_four(header), content, _to_four(content)]


def _to_four(part: bytes) -> bytes:
    return b"\0" * (-len(part) % 4)


def bootable(unpacked: Path, extra_modules: Iterable[str] = ()) -> Boot:
    """The ELF and the initrd for one unpacked kernel, built if no cache entry has this content."""
    busybox = _busybox().read_bytes()
    scripts = {name: _script(name) for name in ("init.sh", "agent.sh")}
    usb_modules = (*USB_MODULES, *extra_modules)
    vmlinux = filled(
        cache_root() / "vmlinux" / unpacked.name,
        lambda folder: write_bootable(unpacked, folder / "vmlinux"),
    )
    key = hashlib.sha256()
    inputs = (unpacked.name.encode(), busybox, *scripts.values(), repr(usb_modules).encode())
    for part in (*inputs, Path(__file__).read_bytes()):
        key.update(hashlib.sha256(part).digest())

    def build(folder: Path) -> None:
        (folder / "initrd").write_bytes(_initrd(unpacked, busybox, scripts, usb_modules))

    initrd = filled(cache_root() / "initrd" / key.hexdigest()[:20], build)
    return Boot(release(unpacked), vmlinux / "vmlinux", initrd / "initrd")


def _initrd(
    unpacked: Path, busybox: bytes, scripts: dict[str, bytes], usb_modules: Iterable[str]
) -> bytes:
    modules = Modules(unpacked)
    for_root = modules.in_load_order(ROOT_MODULES)
    everything = modules.in_load_order([*ROOT_MODULES, *usb_modules])
    for_usb = {name: module for name, module in everything.items() if name not in for_root}
    archive = Archive()
    for folder in _FOLDERS:
        archive.folder(folder)
    archive.character_device("dev/console", 5, 1)
    archive.character_device("dev/null", 1, 3)
    archive.file("bin/busybox", busybox, 0o755)
    archive.file("init", scripts["init.sh"], 0o755)
    archive.file("agent.sh", scripts["agent.sh"], 0o755)
    for folder, chosen in (("root-modules", for_root), ("usb-modules", for_usb)):
        for name, module in chosen.items():
            archive.file(f"{folder}/{name}.ko", module)
        archive.file(f"{folder}/order", "".join(f"{name}.ko\n" for name in chosen).encode())
    return archive.closed()


def _busybox() -> Path:
    found = shutil.which("busybox")
    if found is None:
        raise Missing("busybox not found: run `python hw/vm/rig.py fetch` first.")
    return Path(found)


def _script(name: str) -> bytes:
    return Path(__file__).with_name(name).read_bytes()
