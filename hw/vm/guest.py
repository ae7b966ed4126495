# SPDX-License-Identifier: MIT
"""In the guest: asks the rig to pull and plug the adapter, from the program under test.

    from vm.guest import Rig
    with Rig() as rig:
        ticket = rig.ask("unplug", after=0.2)   # returns at once
        port.read(1)                            # blocks until the hangup
        hangup = ticket.moment()                # earliest_ns <= it happened <= latest_ns

Instants are the guest's CLOCK_MONOTONIC. Two clocks are never compared: the host says how long
after our ask it acted, and how long before its answer, which bounds the instant from both sides.
The lower bound is late by nothing and early by one trip guest to host, under a millisecond
mostly. The port may be open in one process at a time; a second Rig() waits for it.
"""

from __future__ import annotations

import base64
import errno
import json
import os
import select
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

PORT = "/dev/virtio-ports/udriver.control"


class RigRefused(Exception):
    """The host did not do it; the text is its reason."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When it happened: between these two instants of this machine's CLOCK_MONOTONIC."""

    earliest_ns: int
    latest_ns: int


class Ticket:
    """An ask that is under way."""

    def __init__(self, rig: Rig, number: str, asked_ns: int) -> None:
        self._rig = rig
        self._number = number
        self._asked_ns = asked_ns

    def moment(self, timeout: float = 30.0) -> Moment:
        """Wait for the answer, return when the thing happened."""
        answer, arrived_ns = self._rig._answer_to(self._number, timeout)
        latest = arrived_ns - (answer["answer_ns"] - answer["end_ns"])
        return Moment(self._asked_ns + answer["begin_ns"], latest)

    def value(self, timeout: float = 30.0) -> Any:
        """Wait for the answer, return what the host said."""
        return self._rig._answer_to(self._number, timeout)[0]["value"]


class Rig:
    """The rig, as seen from inside. Any thread may call; opens the port when made."""

    def __init__(self, path: str = PORT, timeout: float = 30.0) -> None:
        self._fd = _opened(path, timeout)
        self._lock = threading.Lock()
        self._asked = 0
        self._rest = b""
        self._answers: dict[str, tuple[dict[str, Any], int]] = {}

    def unplug(self, adapter: str = "adapter0") -> Moment:
        """Pull the adapter out."""
        return self.ask("unplug", adapter=adapter).moment()

    def plug(self, adapter: str = "adapter0", *, serial: str | None = None) -> Moment:
        """Plug it in again; another `serial` makes it another device. udev acts later."""
        return self.ask("plug", adapter=adapter, serial=serial).moment()

    def state(self) -> list[dict[str, Any]]:
        """The adapters, each with name, serial, port and plugged."""
        listed: list[dict[str, Any]] = self.ask("state").value()
        return listed

    def jumper(self, adapter: str = "adapter0", *, on: bool) -> None:
        """Join TX and RX (as after every plug), or leave the wire open."""
        self.ask("jumper", adapter=adapter, on=on).value()

    def say(self, data: bytes, adapter: str = "adapter0") -> None:
        """Let the far end send these bytes."""
        self.ask("say", adapter=adapter, data=base64.b64encode(data).decode()).value()

    def heard(self, adapter: str = "adapter0") -> bytes:
        """Take what the far end received while the jumper was off."""
        return base64.b64decode(self.ask("heard", adapter=adapter).value())

    def ask(self, verb: str, *, after: float = 0.0, **arguments: Any) -> Ticket:
        """Send one ask and return at once; with `after` the host waits that many seconds."""
        with self._lock:
            self._asked += 1
            # A reply to somebody who had the port before us must not look like ours.
            number = f"{os.getpid()}-{id(self):x}-{self._asked}"
            line = json.dumps({"id": number, "do": verb, "after": after, **arguments}) + "\n"
            rest = line.encode()
            asked_ns = time.monotonic_ns()
            while rest:  # virtio_console takes 32 KiB a write
                rest = rest[os.write(self._fd, rest) :]
        return Ticket(self, number, asked_ns)

    def close(self) -> None:
        """Give the port back. Harmless twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _answer_to(self, number: str, timeout: float) -> tuple[dict[str, Any], int]:
        deadline = time.monotonic() + timeout
        with self._lock:
            while number not in self._answers:
                self._receive(deadline)
            answer, arrived_ns = self._answers[number]
        if not answer["ok"]:
            raise RigRefused(answer["error"])
        return answer, arrived_ns

    def _receive(self, deadline: float) -> None:
        readable, _, _ = select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            raise TimeoutError("the rig on the host did not answer in time.")
        data = os.read(self._fd, 65536)
        if not data:
            raise ConnectionError("the rig on the host is gone.")
        arrived_ns = time.monotonic_ns()
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            try:
                answer = json.loads(line)
            except ValueError:
                continue  # the tail of an answer to the port's previous owner
            self._answers[answer["id"]] = (answer, arrived_ns)


def _opened(path: str, timeout: float) -> int:
    deadline = time.monotonic() + timeout
    while True:
        try:
            return os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            # EBUSY: virtio_console lets one opener in, and another process has it.
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.02)
