# SPDX-License-Identifier: MIT
"""Composition. The system's udev: which of our devices are plugged in, and what udev knows of them.

Everything goes through ``System``: a root folder and a function that runs a command, so that a test
may bring its own of both.
"""

from __future__ import annotations

import operator
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from udriver.drivers.id_table import IdRow, lookup
from udriver.errors import UDriverError
from udriver.udev import LATENCY_WAS, LINK_FOLDER

__all__ = ["Plugged", "Result", "System", "run_command"]

SETTLE_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended, and what it said."""

    status: int
    stdout: str = ""
    stderr: str = ""


def run_command(argv: Sequence[str]) -> Result:
    """Run it with no terminal and the language that its output is read in."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "SYSTEMD_LOG_LEVEL": "warning"}
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            env=environment, timeout=2 * SETTLE_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Result(124, "", f"it did not end in {2 * SETTLE_SECONDS} s")
    return Result(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True, slots=True)
class Plugged:
    """A tty of a device of the id_table; the folders are those of sysfs, with links resolved."""

    row: IdRow
    name: str
    tty: Path
    port: Path | None
    usb: Path

    @property
    def latency_file(self) -> Path | None:
        """The latency_timer, where this driver has one."""
        return self.port / "latency_timer" if self.port and self.row.has_latency_timer else None


@dataclass(frozen=True, slots=True)
class System:
    """A machine: this one, or what a test makes look like one."""

    root: Path = Path("/")
    run: Callable[[Sequence[str]], Result] = run_command
    udevadm: str | None = field(
        default_factory=lambda: shutil.which("udevadm", path="/usr/bin:/bin:/usr/sbin:/sbin")
    )

    def without_udev(self) -> str | None:
        """Why there is no udev here; None if there is."""
        if self.udevadm is None:
            return "udevadm is not installed"
        if not os.path.exists(self.root / "run/udev/control"):
            return "udevd is not running (no /run/udev/control)"
        return None

    def plugged(self) -> list[Plugged]:
        """The devices of the id_table that are there, by the name of their node."""
        found = []
        for link in sorted((self.root / "sys/class/tty").glob("*")):
            tty = link.resolve()
            above = [tty, *tty.parents]
            usb = next((path for path in above if (path / "idVendor").exists()), None)
            if usb is None:
                continue
            row = lookup(_line(usb / "idVendor"), _line(usb / "idProduct"))
            if row is not None:
                found.append(Plugged(row, link.name, tty, _port(above), usb))
        return found

    def properties(self, device: Path) -> dict[str, str]:
        """What udev's database holds about a device."""
        argv = [str(self.udevadm), "info", "--query=property", f"--path={device}"]
        lines = self.run(argv).stdout.splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def reload(self) -> None:
        """Make udevd read its rules again; devices that are there keep what they have."""
        self._must([str(self.udevadm), "control", "--reload"])

    def trigger(self, devices: Sequence[Plugged]) -> None:
        """Let udev apply its rules to these devices again, parents first, and wait until it has."""
        paths: dict[str, None] = {}
        for level in (operator.attrgetter(name) for name in ("usb", "port", "tty")):
            paths |= dict.fromkeys(str(level(device)) for device in devices if level(device))
        if paths:
            self._must([str(self.udevadm), "trigger", "--action=change", *paths])
        self._must([str(self.udevadm), "settle", f"--timeout={SETTLE_SECONDS}"])

    def latencies_before(self, devices: Sequence[Plugged]) -> dict[Path, str]:
        """The latency_timer files our rule has written, with what they held before."""
        found = {}
        for device in devices:
            if device.latency_file is not None and device.port is not None:
                was = self.properties(device.port).get(LATENCY_WAS, "")
                if was.isdecimal():
                    found[device.latency_file] = was
        return found

    def marked(self, devices: Sequence[Plugged]) -> bool:
        """Whether udev still holds what our rule gave one of these devices."""
        return any(
            f"/dev/{LINK_FOLDER}/" in self.properties(device.tty).get("DEVLINKS", "")
            or (device.port is not None and LATENCY_WAS in self.properties(device.port))
            for device in devices
        )

    def _must(self, argv: Sequence[str]) -> None:
        done = self.run(argv)
        if done.status:
            said = (done.stderr.strip() or done.stdout.strip() or f"status {done.status}").split(
                "\n"
            )
            raise UDriverError(f"`{' '.join(argv[:3])}` failed: {said[-1]}")


def _port(above: Sequence[Path]) -> Path | None:
    for path in above:
        if os.path.realpath(path / "subsystem").endswith("/usb-serial"):
            return path
    return None


def _line(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
