# SPDX-License-Identifier: MIT
"""``python -m udriver`` is ``udriver``."""

from udriver.cli import main

if __name__ == "__main__":
    main()
