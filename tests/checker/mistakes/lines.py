# SPDX-License-Identifier: MIT
"""I1 to I6: interrupt lines and their handlers."""

from __future__ import annotations
