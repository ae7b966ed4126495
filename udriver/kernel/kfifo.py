# SPDX-License-Identifier: MIT
"""A power-of-two byte ring with one producer and one consumer, and so without a lock.

The counters ``in_`` and ``out`` run freely and are only reduced to an index when used, as in
lib/kfifo.c: ``in_ - out`` is the length, and full needs no spare byte. The producer (the ISR)
writes ``in_`` only, the consumer (a reader) ``out`` only; each moves its counter after the bytes.
"""

from __future__ import annotations

__all__ = ["Kfifo"]


class Kfifo:
    """``struct kfifo`` of bytes. ``size`` is rounded up to a power of two, at least 2.

    One producer and one consumer may use it at the same time from any contexts; two of a kind
    may not.
    """

    __slots__ = ("_mask", "_ring", "high_water", "in_", "out")

    def __init__(self, size: int) -> None:
        """Raise ValueError for a size below 2 (kfifo_alloc: -EINVAL).

        Context: Process context.
        """
        if size < 2:
            raise ValueError(f"a kfifo has at least 2 bytes, not {size}")
        size = 1 << (size - 1).bit_length()
        self._ring = memoryview(bytearray(size))
        self._mask = size - 1
        self.in_ = 0
        self.out = 0
        self.high_water = 0

    @property
    def size(self) -> int:
        """Bytes it holds when full (``kfifo_size``).

        Context: Any context.
        """
        return self._mask + 1

    def __len__(self) -> int:
        """Bytes in it (``kfifo_len``).

        Context: Any context.
        """
        return self.in_ - self.out

    @property
    def avail(self) -> int:
        """Bytes it has room for (``kfifo_avail``).

        Context: Any context.
        """
        return self._mask + 1 - (self.in_ - self.out)

    def dma_in_prepare(self) -> list[memoryview]:
        """The free room as one or two segments to read into; empty when full.

        Context: Any context.
        """
        size = self._mask + 1
        free = size - (self.in_ - self.out)
        if not free:
            return []
        start = self.in_ & self._mask
        end = start + free
        if end <= size:
            return [self._ring[start:end]]
        return [self._ring[start:], self._ring[: end - size]]

    def dma_in_finish(self, count: int) -> None:
        """``count`` bytes of the prepared segments were filled.

        Context: Any context.
        """
        self.in_ += count
        filled = self.in_ - self.out
        self.high_water = max(self.high_water, filled)

    def in_bytes(self, data: bytes | bytearray | memoryview) -> int:
        """Put bytes in (``kfifo_in``); give how many fitted.

        Context: Any context.
        """
        done = 0
        source = memoryview(data)
        for segment in self.dma_in_prepare():
            count = min(len(segment), len(source) - done)
            segment[:count] = source[done : done + count]
            done += count
        self.dma_in_finish(done)
        return done

    def peek(self, count: int) -> bytes:
        """Copy up to ``count`` bytes without taking them (``kfifo_out_peek``).

        Context: Any context.
        """
        if count < 0:
            raise ValueError(f"{count} bytes cannot be taken out of a kfifo")
        count = min(count, self.in_ - self.out)
        start = self.out & self._mask
        end = start + count
        if end <= self._mask + 1:
            return self._ring[start:end].tobytes()
        return b"".join((self._ring[start:], self._ring[: end & self._mask]))

    def out_bytes(self, count: int) -> bytes:
        """Take up to ``count`` bytes out (``kfifo_out``).

        Context: Any context.
        """
        data = self.peek(count)
        self.out += len(data)
        return data

    def find(self, byte: int, limit: int) -> int:
        """Bytes up to and with the first ``byte`` among the next ``limit``; 0 if it is not there.

        Context: Any context.
        """
        return self.peek(limit).find(byte) + 1
