# SPDX-License-Identifier: MIT
"""QEMU's command line, and its channels: each a socket pair, so there is no path to collide."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from vm.initrd import Boot
from vm.process import Kept

# Each of these saves boot time or noise; what they gained is in README.md.
_APPEND = (
    "console=ttyS0 quiet loglevel=1 panic=-1 tsc=reliable no_timer_check nokaslr mitigations=off "
    "random.trust_cpu=on 8250.nr_uarts=1 audit=0 apparmor=0 raid=noautodetect "
    "cryptomgr.notests rcupdate.rcu_expedited=1"
)
_CHANNELS = ("qmp", "agent", "control")


@dataclass(frozen=True, slots=True)
class Shares:
    """Folders of the host the guest sees; the root is always there, read only."""

    jobs: Path
    results: Path


@dataclass(frozen=True, slots=True)
class Shape:
    """The guest's size, and what to add to its kernel's command line."""

    memory: int = 512  # MiB; half of it is what the guest may write to disk
    cpus: int = 1
    append: str = ""


class Qemu(Kept):
    """One QEMU process, paused at its first instruction until told `cont`."""

    def __init__(self, boot: Boot, shares: Shares, console: Path, shape: Shape) -> None:
        self.channel: dict[str, socket.socket] = {}
        theirs: dict[str, socket.socket] = {}
        for name in _CHANNELS:
            self.channel[name], theirs[name] = socket.socketpair()
        fds = {name: end.fileno() for name, end in theirs.items()}
        command = [
            *_machine(shape),
            *("-kernel", str(boot.vmlinux), "-initrd", str(boot.initrd)),
            *("-append", f"{_APPEND} {shape.append}"),
            *("-serial", f"file:{_escaped(console)}"),
            *_share("root", Path("/"), readonly=True),
            *_share("jobs", shares.jobs),
            *_share("results", shares.results),
            *_ports(fds),
        ]
        complaints = console.with_name("qemu.stderr")
        try:
            super().__init__("QEMU", command, stderr=complaints, pass_fds=fds.values())
        finally:
            for end in theirs.values():
                end.close()

    def stop(self) -> None:
        """End the process and wait for it. Nothing in the guest needs saving: see README.md."""
        super().stop()
        for end in self.channel.values():
            try:
                end.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads it
            except OSError:
                pass
            end.close()


def _machine(shape: Shape) -> list[str]:
    # Nehalem is x86-64-v2, what binary wheels may ask for; `max` boots slower, by the features
    # its kernel then sets up. rdrand spares the guest the wait for entropy.
    # One thread runs all processors: with a thread each, QEMU 7.2 lets one see an int3 the other
    # has already patched away ("Oops: int3" in a static branch, 2 of some 300 boots, 6.12).
    size = ["-smp", str(shape.cpus), "-m", str(shape.memory)]
    return [
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-S"),
        *("-display", "none", "-machine", "q35", "-accel", "tcg,thread=single,tb-size=256"),
        *("-cpu", "Nehalem,+rdrand", *size, "-device", "qemu-xhci,id=usb"),
    ]


def _share(tag: str, folder: Path, *, readonly: bool = False) -> list[str]:
    # security_model=none: ownership is the host's, and a chown that fails is not an error,
    # which is what lets the rig run without root. multidevs: / spans many file systems.
    kind = f"local,id={tag},path={_escaped(folder)},security_model=none,multidevs=remap"
    option = ",readonly=on" if readonly else ""
    device = f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"
    return ["-fsdev", kind + option, "-device", device]


def _ports(fds: dict[str, int]) -> list[str]:
    options = ["-chardev", f"socket,id=qmp,fd={fds['qmp']}", "-mon", "chardev=qmp,mode=control"]
    options += ["-device", "virtio-serial-pci"]
    for name in ("agent", "control"):
        options += ["-chardev", f"socket,id={name},fd={fds[name]}"]
        options += ["-device", f"virtserialport,chardev={name},name=udriver.{name}"]
    return options


def _escaped(path: Path) -> str:
    return str(path).replace(",", ",,")
