# SPDX-License-Identifier: MIT
"""Answers what the guest asks of its own hardware: unplug, plug, state, jumper, say, heard.

One JSON object per line each way on a virtio-serial port; `guest.py` is the other side.
 ask     {"id": ..., "do": "unplug", "adapter": "adapter0", "after": 0.2}
 answer  {"id": ..., "ok": true, "value": ..., "begin_ns": a, "end_ns": b, "answer_ns": c}
The three instants count from the host's receipt of the ask, so that no two clocks need agree.
An ask with `after` runs on a timer of its own: answers may come in another order than asks.
"""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from typing import Any

from vm.adapters import AdapterSlots, Span
from vm.failure import RigError

Ask = dict[str, Any]


class Bridge:
    """Serves the asks that arrive at `end` until it is closed."""

    def __init__(self, end: socket.socket, slots: AdapterSlots) -> None:
        self._socket = end
        self._slots = slots
        self._send_lock = threading.Lock()
        threading.Thread(target=self._serve, name="bridge", daemon=True).start()

    def _serve(self) -> None:
        try:
            with self._socket.makefile("rb") as lines:
                for line in lines:
                    self._take(line, time.monotonic_ns())
        except OSError:
            pass  # the rig is shutting the machine down

    def _take(self, line: bytes, received_ns: int) -> None:
        try:
            ask = json.loads(line)
            after = float(ask.get("after", 0))
        except (ValueError, AttributeError, TypeError):
            return  # the rest of a line whose writer was killed: nobody waits for an answer
        if after <= 0:
            self._answer(ask, received_ns)
            return
        timer = threading.Timer(after, self._answer, (ask, received_ns))
        timer.daemon = True
        timer.start()

    def _answer(self, ask: Ask, received_ns: int) -> None:
        began_ns = time.monotonic_ns()
        answer: Ask = {"id": ask.get("id")}
        try:
            value = self._do(ask)
        except (RigError, KeyError, TypeError, ValueError) as error:
            answer |= {"ok": False, "error": f"{error}"}
        else:
            span = value if isinstance(value, Span) else Span(began_ns, time.monotonic_ns())
            answer |= {"ok": True, "value": None if isinstance(value, Span) else value}
            answer["begin_ns"] = span.begin_ns - received_ns
            answer["end_ns"] = span.end_ns - received_ns
        answer["answer_ns"] = time.monotonic_ns() - received_ns
        self._send(answer)

    def _do(self, ask: Ask) -> object:
        verb, name = ask["do"], ask.get("adapter", "adapter0")
        if verb == "unplug":
            return self._slots.unplug(name)
        if verb == "plug":
            return self._slots.plug(name, ask.get("serial"))
        if verb == "state":
            return self._slots.state()
        if verb == "jumper":
            self._slots.wire(name).join(joined=bool(ask["on"]))
            return None
        if verb == "say":
            self._slots.wire(name).say(base64.b64decode(ask["data"]))
            return None
        if verb == "heard":
            return base64.b64encode(self._slots.wire(name).heard()).decode()
        raise RigError(f"the rig cannot {verb!r}.")

    def _send(self, answer: Ask) -> None:
        try:
            with self._send_lock:
                self._socket.sendall(json.dumps(answer).encode() + b"\n")
        except OSError:
            pass  # shut down between ask and answer
