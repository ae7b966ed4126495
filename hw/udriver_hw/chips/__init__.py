# SPDX-License-Identifier: MIT
"""Pure models: bytes, lines and time (integer nanoseconds) go in, bytes and lines come out."""
