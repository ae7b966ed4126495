# SPDX-License-Identifier: MIT
"""Process context. Which devices there are, and which one a user means by a few characters."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from udriver.errors import UDriverError

__all__ = ["BY_ID", "AmbiguousDevice", "UsbTty", "describe", "find", "match", "usb_ttys"]

BY_ID = Path("/dev/serial/by-id")
_VID_PID = re.compile(r"([0-9a-fA-F]{4}):([0-9a-fA-F]{4})(?::(.+))?")


class AmbiguousDevice(UDriverError):
    """Two or more devices fit what the user named."""


@dataclass(frozen=True, slots=True)
class UsbTty:
    """A tty on USB: its node, ids as four lower-case hex digits, serial ("" if none).

    ``topology`` is the place it is plugged in, "1-1.4"; ``interface`` its bInterfaceNumber, which
    tells the ports of a multi-port adapter apart.
    """

    device: str
    vid: str
    pid: str
    serial: str
    topology: str
    interface: str = "00"

    def __str__(self) -> str:
        serial = f" serial {self.serial}" if self.serial else ""
        return f"{self.device} ({self.vid}:{self.pid}{serial} at {self.topology})"


def usb_ttys() -> list[UsbTty]:
    """All ttys whose parent is a USB device, from sysfs, so that it works without udevd too."""
    try:
        import pyudev
    except ImportError as exc:  # libudev itself is missing
        raise UDriverError(f"devices cannot be listed ({exc}); give PORT as a path") from None
    ttys = map(describe, pyudev.Context().list_devices(subsystem="tty"))
    return sorted(filter(None, ttys), key=lambda tty: tty.device)


def describe(tty: Any) -> UsbTty | None:
    """What is known of a pyudev device; None if it is not a tty on USB."""
    usb = tty.find_parent("usb", "usb_device")
    if usb is None or not tty.device_node:
        return None
    return UsbTty(
        device=tty.device_node,
        vid=_attribute(usb, "idVendor"),
        pid=_attribute(usb, "idProduct"),
        serial=_attribute(usb, "serial"),
        topology=usb.sys_name,
        interface=_attribute(tty.find_parent("usb", "usb_interface"), "bInterfaceNumber"),
    )


def _attribute(device: Any, name: str) -> str:
    value = device.attributes.get(name) if device is not None else None
    return value.decode(errors="replace").strip() if value else ""


def find(spec: str) -> str:
    """The path that ``spec`` means: a path, a name in /dev/serial/by-id, or VID:PID[:SERIAL].

    Raises FileNotFoundError where nothing fits and AmbiguousDevice where several do.
    """
    if not spec:
        raise FileNotFoundError(2, "PORT is empty; give a path, or leave it out to use the pty")
    if "/" in spec or os.path.exists(spec):
        return spec
    by_id = BY_ID / spec
    if by_id.exists():
        return str(by_id)
    if _VID_PID.fullmatch(spec):
        return match(spec, usb_ttys()).device
    if os.path.exists(f"/dev/{spec}"):
        return f"/dev/{spec}"
    raise FileNotFoundError(
        2, f"{spec} is no path, no name in {BY_ID} and no VID:PID[:SERIAL]; give one, or no PORT"
    )


def match(spec: str, ttys: Iterable[UsbTty]) -> UsbTty:
    """The one device of ``ttys`` that VID:PID[:SERIAL] means."""
    parts = _VID_PID.fullmatch(spec)
    if parts is None:
        raise ValueError(f"{spec!r} is not VID:PID[:SERIAL]")
    vid, pid, serial = parts[1].lower(), parts[2].lower(), parts[3]
    known = list(ttys)
    fits = [
        tty for tty in known if (tty.vid, tty.pid) == (vid, pid) and serial in (None, tty.serial)
    ]
    if not fits:
        there = ", ".join(map(str, known)) or "no USB serial device at all"
        raise FileNotFoundError(2, f"no device is {spec}; there is {there}")
    if len(fits) > 1:
        listed = ", ".join(map(str, fits))
        raise AmbiguousDevice(f"{spec} fits {listed}; add the serial, or give one by its path")
    return fits[0]
