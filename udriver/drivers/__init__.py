# SPDX-License-Identifier: MIT
"""What owns fds, signals and threads; the only home of pyserial and pyudev."""
