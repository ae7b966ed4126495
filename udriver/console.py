# SPDX-License-Identifier: MIT
"""Composition. rich's console, that does not end the program without a word."""

from __future__ import annotations

import rich.console

__all__ = ["Console"]


class Console(rich.console.Console):
    """As rich's; a closed stdout is an error for main() to tell, not a silent exit."""

    def on_broken_pipe(self) -> None:
        """Called by rich where print() met a closed pipe."""
        raise BrokenPipeError
