# SPDX-License-Identifier: MIT
"""The device side: chips, and the wires they hang on. Shares a path and bytes with a driver.

Standard library only; never imports a driver, so that no constant and no bug is on both sides.
"""
