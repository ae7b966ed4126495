# SPDX-License-Identifier: MIT
"""Process context. Plug and unplug: udev's events become probe() and remove().

1. Only events that udev has *processed* count. The kernel's own come 130 ms earlier, while the
   node still belongs to root and has no links.
2. Which device it is says its identity, not its node: the serial where it has one, else the place
   where it is plugged in. A node's number changes when somebody still holds the old one. At that
   place another serial is another device.
3. Each plug is a new generation: a new UsbSerial with completions of its own, so that nothing
   that is late can complete the next one.
4. remove() closes the old fd, or the kernel would give the device another node.
5. Events get lost, if very many come at once: then who is there is looked for, and a plug while
   the tty that we have is hung up is the next generation.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import call
from typing import Any, Self

from udriver.drivers.bus import UsbTty, describe, usb_ttys
from udriver.drivers.epoll_thread import EpollThread
from udriver.drivers.irqchip import IRQCHIPS
from udriver.drivers.usbserial import UsbSerial
from udriver.errors import DeviceGone, Timeout, UDriverError
from udriver.kernel import sched
from udriver.kernel.annotation import completion_set_kind
from udriver.kernel.completion import Completion
from udriver.kernel.threads import Ready

__all__ = ["Follower", "Identity", "Monitor"]


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes a device the same one again: ids, interface, and serial or else topology."""

    vid: str
    pid: str
    interface: str
    serial: str
    topology: str

    @classmethod
    def of(cls, tty: UsbTty) -> Identity:
        """The identity of ``tty``; two clones with one serial are told apart by their place."""
        clones = [other for other in usb_ttys() if other.serial == tty.serial]
        unique = bool(tty.serial) and len({other.topology for other in clones}) <= 1
        return cls(
            tty.vid,
            tty.pid,
            tty.interface,
            tty.serial,
            "" if unique else tty.topology,
        )

    def __str__(self) -> str:
        place = f"at {self.topology}" if self.topology else ""
        return " ".join(filter(None, (f"{self.vid}:{self.pid}", self.serial, place)))

    def fits(self, tty: UsbTty) -> bool:
        """Whether ``tty`` is that device."""
        mine = (self.vid, self.pid, self.interface, self.serial)
        if mine != (tty.vid, tty.pid, tty.interface, tty.serial):
            return False
        return self.topology in ("", tty.topology)


class _Thread(EpollThread):
    def _run(self) -> None:
        sched.active().current()  # opens two fds: now, not at some unplug, where it looks like a leak
        super()._run()


class Monitor:
    """A thread that sleeps on udev's socket and tells of USB ttys: ``on_add``, ``on_remove``.

    pyudev's own observer thread can die of an exception in a callback; here it is reported, and
    the next event is handled. What comes between making it and start() is told of, too.
    """

    def __init__(
        self, on_add: Callable[[UsbTty], None], on_remove: Callable[[str | None], None]
    ) -> None:
        import pyudev  # not at the top: it loads libudev, which a machine without udev lacks

        self._on_add = on_add
        self._on_remove = on_remove
        self._monitor: Any = pyudev.Monitor.from_netlink(pyudev.Context(), source="udev")
        self._monitor.filter_by(subsystem="tty")
        self._monitor.start()
        self._thread = _Thread("hotplug", self._ready)
        self._thread.epoll.register(self._monitor.fileno(), select.EPOLLIN)

    def start(self) -> None:
        """Start the thread; on any exception, Ctrl-C included, none stays."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread. May be repeated."""
        self._thread.stop()
        self._monitor = None

    def _ready(self, ready: Ready) -> None:
        try:
            device = self._monitor.poll(timeout=0)
            while device is not None:
                self._dispatch(device)
                device = self._monitor.poll(timeout=0)
        except OSError:  # pyudev's for ENOBUFS: the kernel had to throw events away
            self._dispatch(None)

    def _dispatch(self, device: Any) -> None:
        try:
            self._tell(device)
        except Exception as error:  # noqa: BLE001 - reported, and the next event is handled
            args = (type(error), error, error.__traceback__, threading.current_thread())
            threading.excepthook(threading.ExceptHookArgs(args))

    def _tell(self, device: Any) -> None:
        if device is None:
            # the error is cleared first, or it would be the next poll's as well
            with socket.socket(fileno=os.dup(self._monitor.fileno())) as netlink:
                netlink.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            while self._monitor.poll(timeout=0) is not None:
                pass  # older than what is looked for now
            self._on_remove(None)
            for each in usb_ttys():
                self._on_add(each)
        elif device.action == "remove" and device.device_node:
            self._on_remove(device.device_node)
        elif device.action == "add":
            tty = describe(device)
            if tty is not None:
                self._on_add(tty)


class Follower:
    """A driver that stays on one physical device over unplug and replug.

    ``driver()`` gives the UsbSerial of the present generation, or waits for one. ``options`` are
    those of UsbSerial.open(). Opens ``tty`` at once and raises what that raises; on any exception,
    Ctrl-C included, nothing stays open.
    """

    def __init__(self, tty: UsbTty, **options: Any) -> None:
        self.identity = Identity.of(tty)
        self.generation = 0
        self.probe_error: Exception | None = None
        self._options = options
        self._drivers: list[UsbSerial] = []  # the present one, or none
        self._node = ""
        self._monitor: Monitor | None = None
        self._present = Completion(f"plug of {tty.device}")
        completion_set_kind(self._present, "condition")  # driver() looks at _drivers behind it
        self._closed = False
        self._closing = threading.RLock()
        self._changing = threading.Lock()  # the first probe is made while the monitor listens
        chip = options.get("irqchip", "inline")
        self._chip = IRQCHIPS[chip] if isinstance(chip, str) else chip
        try:
            # a replug is probed on the monitor's thread, where no handler can be set
            self._chip.hold(self)
            # listening starts first, so that no plug falls between the look and the listening
            self._monitor = Monitor(self._probe, self._remove)
            self._monitor.start()
            self._probe(tty)
            if self.probe_error is not None:
                raise self.probe_error
        except BaseException:
            self.close()
            raise

    def driver(self, timeout: float | None = None) -> UsbSerial:
        """The driver of the present generation; waits up to ``timeout`` seconds for a plug."""
        try:
            self._present.wait(timeout)
        except TimeoutError:
            raise Timeout(
                f"{self.identity} was not plugged in again within {timeout} s; is its cable in?"
            ) from self.probe_error
        drivers = self._drivers[:]
        if self._closed or not drivers:
            raise DeviceGone(f"{self.identity} went at this moment, or was closed; ask again")
        return drivers[0]

    def _probe(self, tty: UsbTty) -> None:
        with self._changing:
            if self._closed or not self.identity.fits(tty):
                return
            if self._drivers:
                if not (self._drivers[0].gone or self._drivers[0].port.hung_up):
                    return
                self._part()  # its remove was lost
            opening = partial(UsbSerial.open, tty.device, **self._options)
            try:
                # open and remember in one C call: a signal handler may raise between any two
                self._drivers.extend(map(call, (opening,)))
            except (OSError, UDriverError) as exc:
                self.probe_error = exc  # told to whoever waits for the plug
                return
            self.probe_error = None
            self._node = tty.device
            self.generation += 1
            self._present.complete_all()

    def _remove(self, node: str | None) -> None:
        with self._changing:
            if self._drivers and (
                node == self._node or (node is None and self._drivers[0].port.hung_up)
            ):
                self._part()

    def _part(self) -> None:
        self._present.reinit()
        self._drivers.pop().close()

    def close(self) -> None:
        """Stop following and close the driver; who waits for a plug gets DeviceGone.

        May be repeated, and has to be when Ctrl-C cuts it short.
        """
        with self._closing:
            self._closed = True
            if self._monitor is not None:
                self._monitor.stop()
            self._present.complete_all()
            for driver in self._drivers:
                driver.close()
            self._drivers.clear()
            self._chip.drop(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
