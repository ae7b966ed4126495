# SPDX-License-Identifier: MIT
"""Takes apart an unpacked Debian kernel: the ELF inside the bzImage, and modules in load order.

modules.dep is made by the package's postinst (depmod), which never runs here, so `depends=` is
read from each module's .modinfo. Booting the ELF through PVH saves the guest its own
decompression under emulation.
Sources: Documentation/arch/x86/boot.rst (setup_sects, payload_offset), kernel/module/main.c.
"""

from __future__ import annotations

import lzma
import re
import shutil
import struct
import subprocess
import zlib
from collections.abc import Iterable
from pathlib import Path

from vm.failure import RigError

_SETUP_SECTS = 0x1F1
_PAYLOAD = 0x248
_XZ, _GZIP, _ZSTD = b"\xfd7zX", b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_ELF = b"\x7fELF"


def bzimage(unpacked: Path) -> Path:
    """The one kernel image of an unpacked package."""
    images = sorted(unpacked.glob("boot/vmlinuz-*"))
    if len(images) != 1:
        raise RigError(f"{unpacked} holds {len(images)} kernel images, expected one.")
    return images[0]


def release(unpacked: Path) -> str:
    """What `uname -r` will say in the guest."""
    return bzimage(unpacked).name.removeprefix("vmlinuz-")


def write_bootable(unpacked: Path, target: Path) -> None:
    """Write the uncompressed ELF; the bzImage itself boots too, slower, if it is not one."""
    image = bzimage(unpacked).read_bytes()
    elf = _decompressed(_payload(image))
    target.write_bytes(elf if elf[:4] == _ELF else image)


def _payload(image: bytes) -> bytes:
    # setup_sects 0 means 4, for images older than the field; plus the boot sector itself.
    protected_mode = ((image[_SETUP_SECTS] or 4) + 1) * 512
    offset, length = struct.unpack_from("<II", image, _PAYLOAD)
    return image[protected_mode + offset : protected_mode + offset + length]


def _decompressed(payload: bytes) -> bytes:
    # The decompressors must stop at the end of the stream: four bytes of size follow it.
    if payload.startswith(_XZ):
        return lzma.LZMADecompressor().decompress(payload)
    if payload.startswith(_GZIP):
        return zlib.decompressobj(31).decompress(payload)
    if payload.startswith(_ZSTD) and shutil.which("zstd"):
        # Exit status 1 for those trailing bytes; what it wrote is checked for the ELF magic.
        command = ["zstd", "-dcq"]
        return subprocess.run(command, input=payload, capture_output=True, check=False).stdout
    return b""


class Modules:
    """The modules of one unpacked kernel, by name with `_` for `-`, as the kernel has them."""

    def __init__(self, unpacked: Path) -> None:
        name = release(unpacked)
        found = [*unpacked.glob(f"lib/modules/{name}"), *unpacked.glob(f"usr/lib/modules/{name}")]
        if not found:
            raise RigError(f"{unpacked} holds no modules for {name}.")
        self._release = name
        self._files = {_module_name(str(path)): path for path in found[0].glob("kernel/**/*.ko*")}
        listed = (found[0] / "modules.builtin").read_text().splitlines()
        self._builtin = {_module_name(line) for line in listed}

    def in_load_order(self, names: Iterable[str]) -> dict[str, bytes]:
        """Name -> uncompressed module, each after everything it depends on."""
        loaded: dict[str, bytes] = {}
        for name in names:
            self._add(_module_name(name), loaded)
        return loaded

    def _add(self, name: str, loaded: dict[str, bytes]) -> None:
        if name in loaded or name in self._builtin:
            return
        if name not in self._files:
            raise RigError(f"kernel {self._release} has no module {name}.")
        content = _uncompressed_module(self._files[name])
        for dependency in depends(content):
            self._add(_module_name(dependency), loaded)
        loaded[name] = content  # after its dependencies: a dict keeps this order


def _module_name(path: str) -> str:
    return path.strip().rsplit("/", 1)[-1].split(".ko")[0].replace("-", "_")


def depends(module: bytes) -> list[str]:
    """The `depends=` list of a module's .modinfo section."""
    found = re.search(rb"\0depends=([^\0]*)\0", module)
    return [name for name in found[1].decode().split(",") if name] if found else []


def _uncompressed_module(path: Path) -> bytes:
    content = path.read_bytes()
    if content.startswith(_XZ):
        return lzma.decompress(content)
    if content.startswith(_ZSTD):
        command = ["zstd", "-dcq"]
        return subprocess.run(command, input=content, capture_output=True, check=True).stdout
    return content
