# SPDX-License-Identifier: MIT
"""A far end in a process of its own, so that it does not share its client's GIL."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Self

from udriver_hw import vhci

__all__ = ["Spawned", "SpawnedUsb", "spawn", "spawn_counterpart", "spawn_usb"]

START_TIMEOUT = 30.0  # seconds; an interpreter takes a tenth of one
END_TIMEOUT = 5.0


class Spawned:
    """A running ``python -m udriver_hw.loopback``; ends with close(), or with this process.

    ``path`` is what it printed: a path, or several of them with a space between two.
    """

    def __init__(self, arguments: list[str], module: str = "udriver_hw.loopback") -> None:
        # -P: a user's folder may hold anything, a package of our name included
        command = [sys.executable, "-P", "-m", module, *arguments]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(),
            start_new_session=True,  # Ctrl-C is for the client, which then ends us in order
        )
        assert self._process.stdout is not None
        ready = _readable(self._process.stdout.fileno(), START_TIMEOUT)
        self.path = self._process.stdout.readline().decode().strip() if ready else ""
        if not self.path:
            self.close()
            raise OSError(f"{' '.join(command)} did not start; run it by hand to see why")

    def unplug(self) -> None:
        """Take the device away by surprise: its process is killed."""
        self._process.kill()
        self.close()

    def close(self) -> None:
        """End it and wait for that. May be repeated."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass  # it was told something, and is gone
        self._process.stdout.close()
        try:
            self._process.wait(END_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class SpawnedUsb(Spawned):
    """A running ``python -m udriver_hw.plug``; tell() is its desk. ``path`` is the tty's.

    However its process ends, its port is free after unplug() or close(): nobody who has the tty
    open stays asleep for an answer that will not come. Call them from another thread than one that may.
    """

    def __init__(self, arguments: list[str]) -> None:
        super().__init__(arguments, "udriver_hw.plug")
        self.ports = [vhci.port_of(path) for path in self.path.split()]

    @property
    def pid(self) -> int:
        """Of the process that serves."""
        return self._process.pid

    def tell(self, command: str, timeout: float = START_TIMEOUT) -> str:
        """Do one command of desk.py; give what follows ``ok``. Raises OSError for ``error``."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command.encode() + b"\n")
        self._process.stdin.flush()
        ready = _readable(self._process.stdout.fileno(), timeout)
        answer = self._process.stdout.readline().decode().rstrip("\n") if ready else "no answer"
        word, _, rest = answer.partition(" ")
        if word != "ok":
            raise OSError(f"{command}: {rest or answer}")
        return rest

    def close(self) -> None:
        """Unplug it in order, end it and wait for that; a stopped one is freed and killed."""
        super().close()
        for port in self.ports:
            if port is not None:
                vhci.detach(port)


def _readable(fd: int, timeout: float) -> bool:
    poll = select.poll()  # not select(): the fd may be above 1023
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def spawn(
    *options: str, wiring: str = "jumper", script: Path | None = None, paced: bool = False
) -> Spawned:
    """Start a loopback as a child; ``options`` as on its command line. Raises OSError."""
    arguments = ["--script", str(script)] if script else ["--wiring", wiring]
    return Spawned([*arguments, *["--paced"] * paced, *options])


def spawn_usb(chip: str = "ft232r", *options: str) -> SpawnedUsb:
    """Plug a chip into this kernel; ``options`` as on the command line. Raises OSError."""
    return SpawnedUsb([chip, *options])


def spawn_counterpart(mode: str, ports: int = 1) -> Spawned:
    """Start the far end of a measurement (see counterpart.py). Raises OSError if it does not come up."""
    return Spawned([mode, str(ports)], "udriver_hw.counterpart")


def _environment() -> dict[str, str]:
    here = str(Path(__file__).parents[1])  # a bare checkout has not installed us
    theirs = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    # an empty entry would mean the current folder
    return {**os.environ, "PYTHONPATH": os.pathsep.join([here, *filter(None, theirs)])}
