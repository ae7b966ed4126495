# SPDX-License-Identifier: MIT
"""The rig: a real kernel, real udev and an emulated FT232 in QEMU; never in the wheel. See README.md."""
