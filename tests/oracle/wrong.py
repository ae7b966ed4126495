# SPDX-License-Identifier: MIT
"""Our core, deliberately wrong in one point: what the frozen logs must tell from the kernel.

Many are what another implementation really does (linuxkpi, OpenBSD, NetBSD), the others what one
writes by mistake. WRONG maps what is wrong to the names that are replaced.
"""

from __future__ import annotations

from tests.oracle import wrong_posts, wrong_waits
from tests.oracle.mistake import WRONG, mistaken
from tests.oracle.wrong_sleeps import Waiter

__all__ = ["WRONG", "Waiter", "mistaken", "wrong_posts", "wrong_waits"]
