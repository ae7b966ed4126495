# SPDX-License-Identifier: MIT
"""A kfifo whose producer hands in a marked stream (parmrk.py); only the data goes in.

The ISR reads into a buffer of its own, so the driver drains the same way as without marks. A signal handler
may raise on top of it between any two bytecodes, and the driver then comes again (UsbSerial._account()). So
what a read brings is worked out first and changes nothing; all of it becomes true with one assignment, and
what then follows from it sets and never adds: done twice, it is done once.
"""

from __future__ import annotations

from typing import NamedTuple

from udriver.drivers.line_errors import LineErrors, News
from udriver.drivers.parmrk import Parmrk
from udriver.kernel.kfifo import Kfifo

__all__ = ["MarkedKfifo"]

READ_SIZE = 4096


class _State(NamedTuple):
    """The stream so far. All but the last two are sums."""

    raw: int = 0
    held: bytes = b""
    received: int = 0
    dropped: int = 0
    in_: int = 0
    data: bytes = b""
    news: News | None = None


class MarkedKfifo(Kfifo):
    """A Kfifo of ``size`` bytes of data.

    With ``drop`` there is always room for the producer, and what does not fit is ``dropped``. ``received``
    is all the data there was, ``marks`` the bytes of the stream that were none, ``raw`` both.
    """

    __slots__ = ("_buffer", "_drop", "_errors", "_size", "_state")

    def __init__(self, size: int, errors: LineErrors, *, drop: bool) -> None:
        # what the parser holds may be data of which no room was asked
        super().__init__(2 * size if size > 1 else size)
        self._size = super().size // 2
        self._errors = errors
        self._drop = drop
        self._buffer = memoryview(bytearray(READ_SIZE))
        self._state = _State()

    @property
    def size(self) -> int:
        """Bytes it holds when full, as of a Kfifo of this size; a byte more now and then."""
        return self._size

    @property
    def avail(self) -> int:
        """Bytes of the stream it has room for."""
        return max(0, self._size - len(self))

    @property
    def raw(self) -> int:
        """Bytes of the stream that were handed in."""
        return self._state.raw

    @property
    def received(self) -> int:
        """Bytes of data among them."""
        return self._state.received

    @property
    def marks(self) -> int:
        """And the others."""
        state = self._state
        return state.raw - state.received

    @property
    def dropped(self) -> int:
        """Bytes of data for which there was no room."""
        return self._state.dropped

    def dma_in_prepare(self) -> list[memoryview]:
        """A buffer for the next bytes of the stream; empty when full."""
        room = READ_SIZE if self._drop else min(READ_SIZE, self.avail)
        return [self._buffer[:room]] if room else []

    def dma_in_finish(self, count: int) -> None:
        """``count`` bytes of the buffer were filled: take the marks out, put the data in.

        If that is cut short, it is finished by a call with ``count`` less what ``raw`` has grown.
        """
        if count:
            self._state = self._after(bytes(self._buffer[:count]))
        state = self._state
        if state.news is None:
            return
        start = (state.in_ - len(state.data)) & self._mask
        tail = min(len(state.data), self._mask + 1 - start)
        self._ring[start : start + tail] = state.data[:tail]
        self._ring[: len(state.data) - tail] = state.data[tail:]
        super().dma_in_finish(state.in_ - self.in_)
        self._errors.tell(state.news)  # behind the bytes: whoever wakes finds what it is about

    def _after(self, raw: bytes) -> _State:
        before = self._state
        parser = Parmrk()
        parser.held = before.held
        data, news = self._errors.work_out(parser.feed(raw), before.received)
        kept = data[: self.avail if self._drop else super().avail]
        return _State(
            raw=before.raw + len(raw),
            held=parser.held,
            received=before.received + len(data),
            dropped=before.dropped + len(data) - len(kept),
            in_=before.in_ + len(kept),
            data=kept,
            news=news,
        )
