# SPDX-License-Identifier: MIT
"""``python -m udriver.checker [--allow RULE]... SCRIPT [ARGUMENT]...``: run a script under the checker.

Exit status: the script's own if that is not 0, else 1 if there were reports.
"""

from __future__ import annotations

import argparse
import runpy
import sys
from pathlib import Path

from udriver.checker import RULES, checking


def main() -> int:
    """Run the script as Python would; give the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m udriver.checker", description="Run a script under the completion checker."
    )
    parser.add_argument("--allow", action="append", choices=RULES, default=[], metavar="RULE")
    parser.add_argument("script", type=Path)
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if not options.script.is_file():
        parser.error(f"there is no script {options.script}")
    sys.argv = [str(options.script), *options.arguments]
    sys.path[0] = str(options.script.resolve().parent)
    status: object = 0
    with checking(allow=options.allow) as reports:
        try:
            runpy.run_path(str(options.script), run_name="__main__")
        except SystemExit as exc:
            status = exc.code
    if reports:
        rules = ", ".join(dict.fromkeys(reports.rules))
        print(f"udriver.checker: {rules} broken; each is above with its fix", file=sys.stderr)
    if status is not None and not isinstance(status, int):
        print(status, file=sys.stderr)  # as the interpreter does with sys.exit("...")
        return 1
    return status or int(bool(reports))


if __name__ == "__main__":
    sys.exit(main())
