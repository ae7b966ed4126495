# SPDX-License-Identifier: MIT
"""Commands in the guest: the host's side of agent.sh, several at a time in one boot.

A job is a script in the share both sides see; its output is files there, written through, so
they are whole when the agent's "done N STATUS" arrives and readable while it still runs.
"""

from __future__ import annotations

import shlex
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from vm.failure import GuestDied, TimedOut

_KILL_GRACE_S = 10.0


class Agent:
    """The connection to agent.sh; one reader thread, any number of waiters."""

    def __init__(self, end: socket.socket, jobs: Path) -> None:
        self._socket = end
        self._jobs = jobs
        self._changed = threading.Condition()
        self._status: dict[int, int] = {}
        self._last = 0
        self._gone = False
        self.ready_uptime: float | None = None  # seconds since the guest kernel's start
        threading.Thread(target=self._read, name="agent", daemon=True).start()

    def start(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: str) -> Job:
        """Start a command in the guest, return at once."""
        with self._changed:
            self._last += 1
            number = self._last
        folder = self._jobs / str(number)
        folder.mkdir()
        # A shell's background job has SIGINT ignored, and exec keeps that: Python would then
        # never raise KeyboardInterrupt. env(1) of coreutils puts it back.
        words = ["exec", "/usr/bin/env", "-i", "--default-signal=INT,QUIT", "-C", cwd]
        words += [f"{name}={value}" for name, value in env.items()]
        (folder / "script").write_text(shlex.join([*words, *argv]) + "\n")
        self._tell("run", number)
        return Job(self, number, folder, list(argv))

    def wait_ready(self, timeout: float) -> bool:
        """Whether the guest said it is ready, within the time or before it died."""
        with self._changed:
            self._changed.wait_for(lambda: self.ready_uptime is not None or self._gone, timeout)
            return self.ready_uptime is not None

    def status(self, number: int, timeout: float | None) -> int | None:
        """A job's exit status, or None when the time is over; GuestDied if it never will."""
        with self._changed:
            self._changed.wait_for(lambda: number in self._status or self._gone, timeout)
            if number not in self._status and self._gone:
                raise GuestDied("the guest ended while a command was running in it.")
            return self._status.get(number)

    def kill(self, number: int) -> None:
        """SIGKILL to the job's whole session."""
        self._tell("kill", number)

    def _tell(self, verb: str, number: int) -> None:
        try:
            self._socket.sendall(f"{verb} {number}\n".encode())
        except OSError as error:
            raise GuestDied(f"the guest is gone, it could not be told to {verb} a job.") from error

    def _read(self) -> None:
        try:
            with self._socket.makefile("r", errors="replace") as lines:
                for line in lines:
                    self._take(line.split())
        except OSError:
            pass  # the machine was stopped
        with self._changed:
            self._gone = True
            self._changed.notify_all()

    def _take(self, words: list[str]) -> None:
        with self._changed:
            if words[:1] == ["ready"]:
                self.ready_uptime = float(words[1])
            elif words[:1] == ["done"]:
                self._status[int(words[1])] = int(words[2])
            self._changed.notify_all()


class Job:
    """One command in the guest. Its output files grow while it runs."""

    def __init__(self, agent: Agent, number: int, folder: Path, argv: list[str]) -> None:
        self._agent = agent
        self._number = number
        self.argv = argv
        self.stdout_file = folder / "stdout"
        self.stderr_file = folder / "stderr"

    def poll(self) -> int | None:
        """The exit status (128+N after signal N), or None while it runs."""
        return self._agent.status(self._number, 0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit status; TimedOut after killing it, when it took longer."""
        began = time.monotonic()
        status = self._agent.status(self._number, timeout)
        if status is not None:
            return status
        self.kill()
        raise TimedOut(
            f"`{shlex.join(self.argv)}` was killed after {time.monotonic() - began:.0f} s "
            "in the guest."
        )

    def kill(self) -> None:
        """Kill it and everything it started in its session; GuestDied if the guest hangs."""
        self._agent.kill(self._number)
        if self._agent.status(self._number, _KILL_GRACE_S) is None:
            raise GuestDied("the guest hangs: a killed command did not end in it.")

    def stdout(self) -> str:
        """What it wrote to standard output so far."""
        return _text(self.stdout_file)

    def stderr(self) -> str:
        """What it wrote to standard error so far."""
        return _text(self.stderr_file)


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
