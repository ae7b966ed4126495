# SPDX-License-Identifier: MIT
"""``python -m udriver`` and ``udriver``: Ctrl-C is answered from the first moment on."""

import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Load the command line and run it; a Ctrl-C while it loads ends it without a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from udriver.cli import main as run

    run(sys.argv[1:])


if __name__ == "__main__":
    main()
