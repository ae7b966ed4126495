# SPDX-License-Identifier: MIT
"""Faults between a pty's wire and what hangs on it: a Firmware around a Firmware.

What a pty cannot do raises UnsupportedOnPty at once. What waits in a delay is held back by nobody.
"""

from __future__ import annotations

from collections import deque

from udriver_hw.chips.dte import Run
from udriver_hw.chips.firmware import Firmware, Unplugged
from udriver_hw.fault_lane import Lane, Pull
from udriver_hw.faults import Faults
from udriver_hw.wire_pty import UnsupportedOnPty

__all__ = ["FaultyFirmware"]


class FaultyFirmware:
    """``firmware`` behind ``faults``. Raises UnsupportedOnPty for those that a pty cannot do."""

    def __init__(self, firmware: Firmware, faults: Faults) -> None:
        for fault in faults.faults:
            if not fault.on_pty:
                raise UnsupportedOnPty(fault.what_a_pty_lacks, fault.place or fault.text)
        self._firmware = firmware
        self._faults = faults
        self.rx, self.tx = Lane("rx", faults), Lane("tx", faults)
        self._said: deque[bytes] = deque()
        self._pull: Pull | None = None

    def say(self, data: bytes) -> None:
        """The far end speaks of its own accord; from any thread."""
        self._said.append(bytes(data))

    def receive(self, data: bytes, now: int) -> None:
        """Characters that left TXD. Raises Unplugged."""
        self.tx.put(Run(data))
        self._forward(now)

    def _forward(self, now: int) -> None:
        data = self._taken(self.tx, now)
        if data:
            self._firmware.receive(data, now)
        if self._pull is not None:
            self._unplug(now)

    def transmit(self, now: int) -> bytes:
        """Characters for RXD. Raises Unplugged, when what came before it has gone through."""
        self._forward(now)
        while self._said:
            self.rx.put(Run(self._said.popleft()))
        self.rx.put(Run(self._firmware.transmit(now)))
        data = self._taken(self.rx, now)
        if self._pull is not None and not data:
            self._unplug(now)
        return data

    def next_event(self) -> int | None:
        """The firmware's, a lane's, or at once before an unplug."""
        if self._pull is not None or self._said:
            return 0
        events = (self._firmware.next_event(), self.rx.next_event(), self.tx.next_event())
        return min((at for at in events if at is not None), default=None)

    def _taken(self, lane: Lane, now: int) -> bytes:
        data = b""
        for item in lane.take(now):
            if isinstance(item, Run):
                data += item.data
            elif isinstance(item, Pull):
                self._pull = item
        return data

    def _unplug(self, now: int) -> None:
        pull, self._pull = self._pull, None
        assert pull is not None
        self._faults.note(now, pull.fault, pull.position, "unplugged")
        raise Unplugged
