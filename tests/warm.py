# SPDX-License-Identifier: MIT
"""``python -m udriver`` from an interpreter that has loaded it already: each run is a fork of that one.

A start is 0.1 s, nine tenths of it for imports, and the tests of the command line have a hundred. What
comes before main(), and Ctrl-C there, is for those tests that start ``python -m udriver`` themselves.

    python -m tests.warm FD     serve on the socket FD: a request with stdout and stderr, and the status back
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

__all__ = ["Warm"]

ROOT = Path(__file__).parents[1]
TIMEOUT = 50.0  # seconds
LOADED = [
    *(f"udriver.cli_{verb}" for verb in ("doctor", "list", "run", "soak", "trace")),
    *("udriver.console", "udriver.drivers.usbserial", "udriver_hw.spawned"),
]


class Warm:
    """Runs commands with ``environment``; ends with the block."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(TIMEOUT)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.warm", str(theirs.fileno())],
                env=environment, cwd=ROOT, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
                start_new_session=True,  # so that a run that hangs can be killed with it
            )  # fmt: skip

    def run(self, *arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """As subprocess.run(), with ``env`` besides; one that hangs is killed, and all that follow fail."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            request = json.dumps([arguments, env, os.getcwd()]).encode()
            socket.send_fds(self._socket, [request], [out.fileno(), err.fileno()])
            try:
                status = int(self._socket.recv(64))
            except TimeoutError:
                self._kill()
                raise
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(arguments, status, out.read(), err.read())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._socket.close()
        try:
            self._process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self._kill()

    def _kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def serve(requests: socket.socket) -> None:
    """Fork for each request; the child returns, and is then a ``python -m udriver`` that has begun."""
    while True:
        request, fds, _, _ = socket.recv_fds(requests, 1 << 16, 2)
        if not request:
            os._exit(0)
        child = os.fork()
        if child == 0:
            break
        for fd in fds:
            os.close(fd)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        requests.send(str(status).encode())
    requests.close()
    for fd, number in zip(fds, (1, 2), strict=True):
        os.dup2(fd, number)
        os.close(fd)
    arguments, env, cwd = json.loads(request)
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv[1:] = arguments


if __name__ == "__main__":
    for name in LOADED:
        importlib.import_module(name)
    from udriver.__main__ import main

    serve(socket.socket(fileno=int(sys.argv[1])))
    main()
