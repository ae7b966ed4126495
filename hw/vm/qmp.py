# SPDX-License-Identifier: MIT
"""The host's side of QEMU's monitor: commands in order, events kept until somebody asks.

Source: docs/interop/qmp-spec.txt of QEMU. Any thread may call execute(); one reader thread.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from vm.failure import RigError

Message = dict[str, Any]


class QmpError(RigError):
    """QEMU refused a command."""


class Qmp:
    """One monitor connection; `end` is our end of the socket pair QEMU was started with."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._command = threading.Lock()
        self._arrived = threading.Condition()
        self._replies: deque[Message] = deque()
        self._events: deque[Message] = deque(maxlen=256)
        self._closed = False
        threading.Thread(target=self._read, name="qmp", daemon=True).start()

    def execute(self, command: str, arguments: Message | None = None) -> Any:
        """Run one command, return its value; QmpError if QEMU says no or is gone."""
        return self._execute(command, arguments or {}, ())

    def give_fd(self, name: str, fd: int) -> None:
        """Pass a descriptor into QEMU, to be named in a later command."""
        self._execute("getfd", {"fdname": name}, (fd,))

    def wait_event(self, name: str, chosen: Callable[[Message], bool], timeout: float) -> Message:
        """The first kept event of that name whose data `chosen` accepts; takes it out."""
        deadline = time.monotonic() + timeout
        with self._arrived:
            while True:
                for event in self._events:
                    if event["event"] == name and chosen(event.get("data", {})):
                        self._events.remove(event)
                        return event
                self._wait(deadline, f"event {name}")

    def _execute(self, command: str, arguments: Message, fds: Sequence[int]) -> Any:
        line = json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n"
        with self._command:
            try:
                # The descriptor rides on the first byte, which the kernel keeps whole with it.
                sent = socket.send_fds(self._socket, [line], list(fds)) if fds else 0
                self._socket.sendall(line[sent:])
            except OSError as error:
                raise QmpError(f"QEMU is gone, it could not be told {command}.") from error
            reply = self._reply(command)
        if "error" in reply:
            raise QmpError(f"QEMU refused {command}: {reply['error']['desc']}")
        return reply["return"]

    def _reply(self, command: str) -> Message:
        deadline = time.monotonic() + 60
        with self._arrived:
            while not self._replies:
                self._wait(deadline, f"reply to {command}")
            return self._replies.popleft()

    def _wait(self, deadline: float, what: str) -> None:
        if self._closed:
            raise QmpError(f"QEMU ended while the rig waited for its {what}.")
        if not self._arrived.wait(deadline - time.monotonic()) and time.monotonic() > deadline:
            raise QmpError(f"QEMU gave no {what} in time.")

    def _read(self) -> None:
        try:
            with self._socket.makefile("rb") as lines:
                for line in lines:
                    self._keep(json.loads(line))
        except (OSError, ValueError):
            pass  # the other end went away, mid-line perhaps: the same as the end of file
        with self._arrived:
            self._closed = True
            self._arrived.notify_all()

    def _keep(self, message: Message) -> None:
        with self._arrived:
            if "event" in message:
                self._events.append(message)
            elif "QMP" not in message:  # the greeting answers no command
                self._replies.append(message)
            self._arrived.notify_all()
