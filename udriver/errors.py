# SPDX-License-Identifier: MIT
"""Few classes, each a situation a caller can act on; every message is one whole sentence.

Everything else stays the ``OSError`` the kernel gave, with its errno.
"""

from __future__ import annotations

import errno

__all__ = [
    "Busy",
    "ContextError",
    "DeviceGone",
    "NotASerialPort",
    "Timeout",
    "UDriverError",
    "Unsupported",
]


class UDriverError(Exception):
    """The root of what udriver itself has to say."""


class ContextError(UDriverError, RuntimeError):
    """A function that sleeps was called where sleeping is forbidden (hardirq context)."""


class DeviceGone(UDriverError, OSError):
    """The device was unplugged, hung up or closed; ``errno`` is ENODEV.

    ``partial`` holds the bytes an unfinished read had already taken, so that none is lost.
    """

    def __init__(self, message: str, *, partial: bytes = b"") -> None:
        super().__init__(errno.ENODEV, message)
        self.partial = partial

    def __str__(self) -> str:
        return str(self.strerror)


class NotASerialPort(UDriverError):
    """What was named is there, and is something else."""


class Busy(UDriverError, OSError):
    """Somebody else holds the port; ``errno`` is EBUSY and the message names the holder."""

    def __init__(self, message: str) -> None:
        super().__init__(errno.EBUSY, message)

    def __str__(self) -> str:
        return str(self.strerror)


class Unsupported(UDriverError, OSError):
    """This device or kernel cannot do what was asked; ``errno`` is EOPNOTSUPP."""

    def __init__(self, message: str) -> None:
        super().__init__(errno.EOPNOTSUPP, message)

    def __str__(self) -> str:
        return str(self.strerror)


class Timeout(UDriverError, TimeoutError):
    """A call did not finish in its own timeout; ``errno`` is ETIMEDOUT.

    ``transferred`` is how many bytes of a write had left, ``partial`` what a read had taken.
    """

    def __init__(self, message: str, *, transferred: int = 0, partial: bytes = b"") -> None:
        super().__init__(errno.ETIMEDOUT, message)
        self.transferred = transferred
        self.partial = partial

    def __str__(self) -> str:
        return str(self.strerror)
