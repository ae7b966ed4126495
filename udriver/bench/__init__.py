# SPDX-License-Identifier: MIT
"""Composition. ``udriver bench``: what the driver costs, beside a bare read and beside its peers."""
