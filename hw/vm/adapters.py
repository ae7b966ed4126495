# SPDX-License-Identifier: MIT
"""The adapters on the guest's USB: each an emulated FT232 with a fixed serial, port and wire.

1. A wire lives from plug to unplug. A byte the guest had not read when it was pulled is lost
   with it, and never reaches the next generation: socket pair and chardev are new each time.
2. Instants are the host's CLOCK_MONOTONIC, taken around the one QMP command that does it.
3. A plug is pulled with the wire silent and the processors stopped. QEMU 7.2 hands bytes to a
   usb-serial that is off its bus already when they arrive in the same turn of its main loop as
   device_del, and ends in usb_wakeup() with SIGSEGV: one unplug in a few hundred under traffic.
Sources: hw/usb/dev-serial.c (0403:6001), hw/usb/desc.c (strings) of QEMU.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

from vm.failure import RigError
from vm.jumper import Jumper
from vm.qmp import Qmp, QmpError

# A USB string descriptor's length is one byte, for two of header and two per character.
_LONGEST_SERIAL = 126


@dataclass(frozen=True, slots=True)
class Adapter:
    """What is plugged where. The serial may be empty, shared by two, or hostile; not NUL.

    The product string is QEMU's own and cannot be chosen.
    """

    name: str = "adapter0"
    serial: str = "UD0001"
    port: int = 1

    def __post_init__(self) -> None:
        if len(self.serial.encode()) > _LONGEST_SERIAL or "\0" in self.serial:
            raise RigError(f"serial {self.serial!r}: at most {_LONGEST_SERIAL} bytes, no NUL.")


@dataclass(frozen=True, slots=True)
class Span:
    """The thing happened between these two instants of the host's monotonic clock."""

    begin_ns: int
    end_ns: int


class AdapterSlots:
    """Plugs and unplugs the declared adapters; any thread may call."""

    def __init__(self, qmp: Qmp, adapters: Iterable[Adapter]) -> None:
        self._qmp = qmp
        self._lock = threading.Lock()
        self._known = {adapter.name: adapter for adapter in adapters}
        self._wires: dict[str, tuple[Jumper, str]] = {}  # plugged only; with the chardev's id
        self._generation = itertools.count(1)

    def plug(self, name: str, serial: str | None = None) -> Span:
        """Plug it in; another `serial` makes it another device in the same port."""
        with self._lock:
            adapter = self._adapter(name)
            if name in self._wires:
                raise RigError(f"{name} is plugged already.")
            if serial is not None:
                adapter = self._known[name] = replace(adapter, serial=serial)
            return self._plug(adapter)

    def unplug(self, name: str) -> Span:
        """Pull it out; on return the device is gone from the emulated bus."""
        with self._lock:
            self._adapter(name)
            if name not in self._wires:
                raise RigError(f"{name} is not plugged.")
            jumper, chardev = self._wires.pop(name)
            jumper.silence()
            begin = time.monotonic_ns()
            self._qmp.execute("stop")  # the guest's clock stands still meanwhile
            try:
                self._await_quiet(jumper)
                self._qmp.execute("device_del", {"id": name})
            finally:
                self._qmp.execute("cont")
            end = time.monotonic_ns()
            self._qmp.wait_event("DEVICE_DELETED", lambda data: data.get("device") == name, 10)
            jumper.pull()
            self._remove_chardev(chardev)
            return Span(begin, end)

    def wire(self, name: str) -> Jumper:
        """The wire of a plugged adapter."""
        with self._lock:
            self._adapter(name)
            if name not in self._wires:
                raise RigError(f"{name} is not plugged: it has no wire.")
            return self._wires[name][0]

    def state(self) -> list[dict[str, object]]:
        """Each adapter with its serial, its port and whether it is plugged."""
        with self._lock:
            return [
                {**asdict(adapter), "plugged": name in self._wires}
                for name, adapter in self._known.items()
            ]

    def close(self) -> None:
        """Drop every wire; the machine is being stopped."""
        with self._lock:
            for jumper, _chardev in self._wires.values():
                jumper.pull()
            self._wires.clear()

    def _adapter(self, name: str) -> Adapter:
        if name not in self._known:
            raise RigError(f"no adapter {name!r}: there are {', '.join(self._known) or 'none'}.")
        return self._known[name]

    def _plug(self, adapter: Adapter) -> Span:
        jumper, chardev = Jumper(), f"wire{next(self._generation)}"
        self._qmp.give_fd(chardev, jumper.far_end.fileno())
        address = {"type": "fd", "data": {"str": chardev}}
        backend = {"type": "socket", "data": {"addr": address, "server": False}}
        self._qmp.execute("chardev-add", {"id": chardev, "backend": backend})
        jumper.far_end.close()  # QEMU has its own now; ours would hide its end of file
        device = {"driver": "usb-serial", "id": adapter.name, "chardev": chardev}
        place = {"bus": "usb.0", "port": str(adapter.port), "serial": adapter.serial}
        begin = time.monotonic_ns()
        try:
            self._qmp.execute("device_add", device | place)
        except QmpError:
            jumper.pull()
            self._remove_chardev(chardev)
            raise
        self._wires[adapter.name] = (jumper, chardev)
        return Span(begin, time.monotonic_ns())

    def _await_quiet(self, jumper: Jumper) -> None:
        """Until QEMU has taken all it will: a turn of its main loop changes nothing any more."""
        before = -1
        while (left := jumper.unread()) != before:
            before = left
            for _ in range(2):  # each answer is given in a turn that has looked at the wire
                self._qmp.execute("query-status")

    def _remove_chardev(self, chardev: str) -> None:
        # The device's memory, and with it the chardev, is freed after a grace period of RCU.
        deadline = time.monotonic() + 5
        while True:
            try:
                self._qmp.execute("chardev-remove", {"id": chardev})
            except QmpError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return
