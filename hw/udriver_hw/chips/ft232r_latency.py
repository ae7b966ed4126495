# SPDX-License-Identifier: MIT
"""When the FT232R answers the host: its latency timer, and what sends a packet before it runs out.

What this models: AN232B-04 "Data throughput, latency and handshaking", section 3: a packet leaves
when 62 bytes are there, when a status line changed, when the event character came, or when the
timer runs out, which starts again with each packet. One with an error leaves at once and alone: the host's
driver blames each byte of a packet for its line status.
Not modelled: the packets without data that a chip sends each time the timer runs out while nothing
happens, unless ``chatty``: a driver throws them away, and a virtual machine has better to do. The
timer's phase is as if they had been sent.
"""

from __future__ import annotations

from udriver_hw.chips.dte import Dte, Run

__all__ = ["PAYLOAD", "Latency"]

PAYLOAD = 62  # bytes: wMaxPacketSize without the two of status
NSEC_PER_MSEC = 1_000_000


class Latency:
    """Decides when what ``dte`` has received leaves; ``milliseconds`` is SET_LATENCY_TIMER's."""

    def __init__(self, dte: Dte, *, chatty: bool = False) -> None:
        self._dte = dte
        self._chatty = chatty
        self.milliseconds = 16
        self.event_character: int | None = None
        self._packet_at = 0  # when the last packet left
        self._since: int | None = None  # when what waits now began to
        self._open = False  # a full packet does not end the host's transfer: another has to
        self._now = 0

    def advance(self, now: int) -> None:
        """Note since when something waits."""
        self._now = now
        if not self._waits:
            self._since = None
        elif self._since is None:
            self._since = now

    def packet(self, now: int) -> Run | None:
        """What goes into the packet that leaves now; None if none does."""
        if not self._leaves(now):
            return None
        run = self._dte.read(PAYLOAD, now)
        self._dte.changed.clear()
        self._packet_at, self._since = now, None
        self._open = len(run.data) == PAYLOAD
        self.advance(now)
        return run

    def reset(self, now: int) -> None:
        """Nothing waits any more."""
        self._packet_at, self._since, self._open = now, None, False

    def next_event(self) -> int | None:
        """When the timer runs out, if that is still to come and would send something."""
        at = self._expiry()
        return at if at is not None and at > self._now else None

    @property
    def _waits(self) -> bool:
        return self._open or self._chatty or len(self._dte) > 0

    def _leaves(self, now: int) -> bool:
        head = self._dte.head()
        at = self._expiry()
        return (
            len(head.data) >= PAYLOAD
            or head.status != 0
            or self._dte.mixed
            or bool(self._dte.changed)
            or (self.event_character is not None and self.event_character in head.data)
            or (at is not None and now >= at)
        )

    def _expiry(self) -> int | None:
        """The first run-out of the timer after something began to wait."""
        if self._since is None:
            return None
        period = max(1, self.milliseconds) * NSEC_PER_MSEC
        passed = max(0, self._since - self._packet_at)
        return self._packet_at + max(1, -(-passed // period)) * period
