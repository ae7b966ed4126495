# SPDX-License-Identifier: MIT
"""The kernel's virtual USB host: plug a socket in, pull it, and find what became of it.

Source: drivers/usb/usbip/vhci_sysfs.c and Documentation/ABI/testing/sysfs-platform-vhci... of
Linux. Writing here needs root; nothing needs the usbip tool or a network.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

__all__ = ["Port", "attach", "detach", "port_of", "ports", "tty_of", "why_not"]

VHCI = Path("/sys/devices/platform/vhci_hcd.0")
DEVICES = Path("/sys/bus/usb/devices")
FREE = 4  # VDEV_ST_NULL, in the column "sta"
USB3 = 5  # enum usb_device_speed: what goes to the other half of the ports
DEVID = 0x10002  # bus 1, device 2 at the far end: nobody looks
LOOK_AGAIN = 0.02  # s


class Port(NamedTuple):
    """A row of the status file."""

    number: int
    hub: str  # "hs" or "ss"
    free: bool
    busid: str  # of the device in it, such as "3-1"


def why_not() -> str | None:
    """The sentence that says why nothing can be plugged in here, if so."""
    if not VHCI.is_dir():
        return "this kernel has no vhci_hcd; `modprobe vhci_hcd` loads it, where it was built"
    if not os.access(VHCI / "attach", os.W_OK):
        return "plugging a device into the kernel needs root; run it as root"
    return None


def ports() -> list[Port]:
    """All of them."""
    rows = [line.split() for line in (VHCI / "status").read_text().splitlines()[1:]]
    return [Port(int(row[1]), row[0], int(row[2]) == FREE, row[-1]) for row in rows if len(row) > 6]


def attach(fd: int, speed: int) -> int:
    """Plug the stream socket ``fd`` into a free port; give its number. The kernel keeps a copy.

    Raises OSError if there is no port left.
    """
    hub = "ss" if speed >= USB3 else "hs"
    for port in ports():
        if port.free and port.hub == hub:
            try:
                (VHCI / "attach").write_text(f"{port.number} {fd} {DEVID} {speed}")
            except OSError:
                continue  # somebody else was faster
            return port.number
    raise OSError("no vhci port is free; unplug something")


def detach(number: int, timeout: float = 10.0) -> bool:
    """Pull what is in that port, and wait until it is free; give whether it is. Harmless twice.

    It needs nothing of the process that serves the port: that one may be stopped, or gone.
    """
    try:
        (VHCI / "detach").write_text(str(number))
    except OSError:
        pass  # it was empty already
    end = time.monotonic() + timeout
    while not any(port.free for port in ports() if port.number == number):
        if time.monotonic() > end:
            return False
        time.sleep(LOOK_AGAIN)
    return True


def port_of(path: str) -> int | None:
    """The port that this tty is in; None if it is in none."""
    try:
        device = os.path.realpath(f"/sys/class/tty/{Path(path).name}/device")
        return next(port.number for port in ports() if f"/{port.busid}/" in device)
    except (OSError, StopIteration):
        return None


def tty_of(number: int, timeout: float) -> str | None:
    """Wait until what is in that port is a tty, and udev is done with it; give its path."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        path = _tty(number)
        if path is not None and os.path.exists(path) and _udev_is_done(path):
            return path
        time.sleep(LOOK_AGAIN)
    return None


def _tty(number: int) -> str | None:
    for port in ports():
        if port.number == number and not port.free:
            for pattern in ("*:*/tty/tty*", "*:*/tty*/tty/tty*"):
                for found in DEVICES.joinpath(port.busid).glob(pattern):
                    return f"/dev/{found.name}"
    return None


def _udev_is_done(path: str) -> bool:
    if not os.path.exists("/run/udev/control"):
        return True  # nobody will come
    device = os.stat(path).st_rdev
    return os.path.exists(f"/run/udev/data/c{os.major(device)}:{os.minor(device)}")
