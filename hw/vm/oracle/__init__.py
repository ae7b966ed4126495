# SPDX-License-Identifier: MIT
"""The kernel as oracle: plays scripts on the real ``struct completion`` and brings back logs."""
