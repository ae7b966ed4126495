# SPDX-License-Identifier: MIT
"""Chips, the wire that serves them, and the vhci ports they are in: plugged, pulled, plugged again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from udriver_hw import vhci
from udriver_hw.chips.usb_serial import UsbSerial
from udriver_hw.wire_usbip import UsbipWire

__all__ = ["NoTty", "Plugged"]

ENUMERATION = 20.0  # s; hub debounce and udev take half a second on a desk


class NoTty(OSError):
    """The kernel has the device, and no driver of it made a tty."""


class Plugged:
    """What ``make()`` gives, each time anew: a chip is powered by its plug. Root and vhci needed."""

    def __init__(self, make: Callable[[], Sequence[UsbSerial]]) -> None:
        self._make = make
        self._thread: threading.Thread | None = None
        self.ports: list[int] = []

    def plug(self) -> list[str]:
        """Plug them in; give the path of each one's tty. Raises OSError, NoTty among them."""
        self.chips = list(self._make())
        self.wire = UsbipWire(*self.chips)
        self._thread = threading.Thread(target=self.wire.serve, name="usbip", daemon=True)
        self._thread.start()
        try:
            for end, chip in zip(self.wire.host_ends, self.chips, strict=True):
                self.ports.append(vhci.attach(end.fileno(), chip.speed))
        finally:
            for end in self.wire.host_ends:
                end.close()  # the kernel has its own; ours would hide its end of file
        return [self._tty(port) for port in self.ports]

    def _tty(self, port: int) -> str:
        path = vhci.tty_of(port, ENUMERATION)
        if path is None:
            raise NoTty("plugged in, but no driver made a tty of it; is it loaded?")
        return path

    def unplug(self) -> bool:
        """By surprise, in the middle of whatever is under way. As detach()."""
        if self._thread:
            self.wire.unplug()
        return self.detach()

    def detach(self) -> bool:
        """In order: the kernel lets go. Give whether all the ports are free. Harmless twice."""
        freed = [vhci.detach(port) for port in self.ports]
        self.ports.clear()
        if self._thread:
            self.wire.unplug()  # what the kernel never had
            self._thread.join()
            self._thread = None
        return all(freed)
