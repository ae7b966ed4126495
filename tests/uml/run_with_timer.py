# SPDX-License-Identifier: MIT
"""`udriver run` on our FT232R with its latency timer at some value: run_with_timer.py MS [OPTION...].

Prints a JSON object: its exit status, its report and its stderr, and the timer afterwards.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from udriver_hw.spawned import spawn_usb


def main(milliseconds: str, *options: str) -> None:
    with spawn_usb("ft232r") as server:
        timer = Path(f"/sys/class/tty/{Path(server.path).name}/device/latency_timer")
        timer.write_text(milliseconds)
        command = [sys.executable, "-m", "udriver", "run", server.path, "--json", *options]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        after = int(timer.read_text())
    report = json.loads(done.stdout)
    print(json.dumps([done.returncode, report, done.stderr, after]))


if __name__ == "__main__":
    main(*sys.argv[1:])
