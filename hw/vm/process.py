# SPDX-License-Identifier: MIT
"""One process that cannot outlive the rig, and the knowledge of when and how it ended.

PR_SET_PDEATHSIG is sent when the *thread* that forked ends (prctl(2)), so one thread of ours
forks it and then does nothing but wait for it. Killing the rig, even with SIGKILL, ends that
thread and so the process. setpriv(1) sets it: a preexec_fn is not safe in a process with threads. A
rig killed before it is set would never be heard of, so a shell then looks whether the rig still is.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

_TAIL_LINES = 15
_ENDING_S = 1.0  # a guest's channels close a moment before its process has ended
_PANIC = "Kernel panic - not syncing:"
_IF_PARENT_LIVES = '[ "$PPID" = "$0" ] && exec "$@"'


class Kept:
    """A started process, `name` in a sentence about it; OSError if it cannot start.

    Without `stdout`, what it says there is among the complaints in `stderr`.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        stderr: Path,
        stdout: Path | None = None,
        pass_fds: Iterable[int] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._name = name
        self._command = [
            *("setpriv", "--pdeathsig", "KILL", "--"),
            *("sh", "-c", _IF_PARENT_LIVES, str(os.getpid())),
            *command,
        ]
        self._stdout, self._stderr = stdout or stderr, stderr
        self._fds = tuple(pass_fds)
        self._env = env
        self._started = threading.Event()
        self._ended = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._error: OSError | None = None
        self._keeper = threading.Thread(target=self._keep, name=name, daemon=True)
        self._keeper.start()
        self._started.wait()
        if self._error is not None:
            raise self._error

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit status, -N after signal N; None when the seconds are over."""
        if not self._ended.wait(timeout):
            return None
        assert self._process is not None
        return self._process.returncode

    def ended(self) -> bool:
        """Whether the process is gone."""
        return self._ended.is_set()

    def ending(self, timeout: float) -> str:
        """How it ended, waited for in seconds: its signal or exit status, or that it still runs."""
        if (status := self.wait(timeout)) is None:
            return f"{self._name} still runs"
        if status < 0:
            return f"{self._name} was ended by {signal.Signals(-status).name}"
        return f"{self._name} exited with status {status}"

    def complaints(self) -> str:
        """What it wrote to its standard error."""
        return self._stderr.read_text(errors="replace").strip()

    def autopsy(self, sentence: str, console: str) -> str:
        """The sentence with how the process ended, and the end of the guest's console."""
        lines = [line for line in console.splitlines() if line.strip()]
        panics = [index for index, line in enumerate(lines) if _PANIC in line]
        if panics:
            sentence = f"the guest's kernel panicked: {lines[panics[0]].split(_PANIC)[1].strip()}"
            lines = lines[: panics[0] + _TAIL_LINES]  # its cause is before it, its trace behind
        shown = _TAIL_LINES * (4 if panics else 1)
        tail = "\n  ".join(lines[-shown:]) or "(nothing)"
        complaints = self.complaints()
        said = f"\n{self._name} said: {complaints}" if complaints else ""
        ending = self.ending(_ENDING_S)
        return f"{sentence}; {ending}. The end of its console:\n  {tail}{said}"

    def stop(self) -> None:
        """End the process, all of its session, and wait for it."""
        if self._process is not None and not self.ended():
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it ended in between
        self._keeper.join()

    def _keep(self) -> None:
        try:
            with self._stdout.open("ab") as stdout, self._stderr.open("ab") as stderr:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    pass_fds=self._fds,
                    env=self._env,
                    start_new_session=True,  # a terminal's Ctrl-C is for the rig to act on
                )
        except OSError as error:
            self._error = error
            self._ended.set()
            return
        finally:
            self._started.set()
        self._process.wait()
        self._ended.set()
