# SPDX-License-Identifier: MIT
"""Process context. An fd that is closed once, though Ctrl-C may raise between any two bytecodes."""

from __future__ import annotations

import os
from operator import call

__all__ = ["close_once"]


def close_once(fds: list[int]) -> None:
    """Close the last of ``fds``, if there is one; done again it does nothing.

    Forgotten and closed in one C call: a number that is closed and still known may soon be another
    file's, and one that is forgotten first stays open.
    """
    if fds:
        any(map(os.close, map(call, (fds.pop,))))
