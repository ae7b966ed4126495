# SPDX-License-Identifier: MIT
"""Commands in a guest, and the host's side of agent.sh: several at a time in one boot.

A job is a script in the share both sides see; its output is files there, written through, so
they are whole when the agent's "done N STATUS" arrives and readable while it still runs.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from vm.failure import GuestDied, RigError, TimedOut

CHECKOUT = Path(__file__).resolve().parents[2]
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KILL_GRACE_S = 10.0


def environment(results: Path, machine: str) -> dict[str, str]:
    """What every command finds in its environment: this interpreter and the checkout."""
    # Not resolved: the folder of a venv's `python`, not of what that is a link to.
    programs = Path(sys.executable).parent
    return {
        "PATH": f"{programs}:{_SYSTEM_PATH}",
        "HOME": os.environ.get("HOME", "/root"),
        "LANG": "C.UTF-8",
        "PYTHONPATH": f"{CHECKOUT}:{CHECKOUT / 'hw'}",
        "UDRIVER_RESULTS": str(results),
        "UDRIVER_IN_VM": machine,
    }


def script(argv: Sequence[str], env: Mapping[str, str], cwd: str) -> str:
    """What a shell in the guest runs for this command."""
    # A shell's background job has SIGINT ignored, and exec keeps that: Python would then
    # never raise KeyboardInterrupt. env(1) of coreutils puts it back.
    words = ["exec", "/usr/bin/env", "-i", "--default-signal=INT,QUIT", "-C", cwd]
    words += [f"{name}={value}" for name, value in env.items()]
    return shlex.join([*words, *argv]) + "\n"


class Reports:
    """What a guest says of itself, "ready UPTIME" and "done N STATUS"; any number of waiters."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._changed = threading.Condition()
        self._status: dict[int, int] = {}
        self._gone = False
        self.ready_uptime: float | None = None  # seconds since the guest kernel's start
        self._reader = threading.Thread(target=self._read, name="reports", daemon=True)
        self._reader.start()

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
        """SIGKILL to all that the job started."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the socket; the reader is gone on return."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes it
        except OSError:
            pass
        self._reader.join()
        self._socket.close()

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


class Agent(Reports):
    """The connection to agent.sh, which also takes orders."""

    def __init__(self, end: socket.socket, jobs: Path) -> None:
        super().__init__(end)
        self._jobs = jobs
        self._last = 0

    def start(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: str) -> Job:
        """Start a command in the guest, return at once."""
        with self._changed:
            self._last += 1
            number = self._last
        folder = self._jobs / str(number)
        folder.mkdir()
        (folder / "script").write_text(script(argv, env, cwd))
        self._tell("run", number)
        return Job(self, number, folder, list(argv))

    def kill(self, number: int) -> None:
        """SIGKILL to the job's whole session."""
        self._tell("kill", number)

    def _tell(self, verb: str, number: int) -> None:
        try:
            self._socket.sendall(f"{verb} {number}\n".encode())
        except OSError as error:
            raise GuestDied(f"the guest is gone, it could not be told to {verb} a job.") from error


class Commands(ABC):
    """A machine, as somewhere that commands run."""

    @abstractmethod
    def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Job:
        """Start a command; `env` is added to the guest's, standard input is /dev/null."""

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; TimedOut kills it, and the machine stays usable."""
        try:
            job = self.start(argv, env=env, cwd=cwd)
            status = job.wait(timeout)
        except GuestDied as error:
            raise self.death(error) from error
        if check and status:
            raise RigError(f"`{shlex.join(argv)}` gave {status} in the guest: {job.stderr()}")
        return subprocess.CompletedProcess(list(argv), status, job.stdout(), job.stderr())

    def death(self, error: GuestDied | str) -> GuestDied:
        """The same error with the end of the console, for who waited on a Job."""
        return GuestDied(self._autopsy(str(error).rstrip(".")))

    @abstractmethod
    def _autopsy(self, sentence: str) -> str:
        """The sentence, how the guest ended and the end of its console."""


class Job:
    """One command in the guest. Its output files grow while it runs."""

    def __init__(self, guest: Reports, number: int, folder: Path, argv: list[str]) -> None:
        self._guest = guest
        self._number = number
        self.argv = argv
        self.stdout_file = folder / "stdout"
        self.stderr_file = folder / "stderr"

    def poll(self) -> int | None:
        """The exit status (128+N after signal N), or None while it runs."""
        return self._guest.status(self._number, 0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit status; TimedOut after killing it, when it took longer."""
        began = time.monotonic()
        status = self._guest.status(self._number, timeout)
        if status is not None:
            return status
        self.kill()
        raise TimedOut(
            f"`{shlex.join(self.argv)}` was killed after {time.monotonic() - began:.0f} s "
            "in the guest."
        )

    def kill(self) -> None:
        """Kill it and everything it started in its session; GuestDied if the guest hangs."""
        self._guest.kill(self._number)
        if self._guest.status(self._number, _KILL_GRACE_S) is None:
            raise GuestDied("the guest hangs: a killed command did not end in it.")

    def stdout(self) -> str:
        """What it wrote to standard output so far."""
        return _text(self.stdout_file)

    def stderr(self) -> str:
        """What it wrote to standard error so far."""
        return _text(self.stderr_file)


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
