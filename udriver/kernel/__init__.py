# SPDX-License-Identifier: MIT
"""What drivers are written with: completions, wait queues, kfifo, irqs. Standard library only.

Importing it opens no fd, starts no thread, installs no handler.
"""
