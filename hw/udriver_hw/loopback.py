# SPDX-License-Identifier: MIT
"""A UART with something on its wire, served behind a pty; ``python -m udriver_hw.loopback``.

Any program in any language may open the path it prints.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from udriver_hw.chips.firmware import Echo, Firmware, Jumper, Script, Step, parse_script
from udriver_hw.chips.uart import Uart
from udriver_hw.fault_options import FaultLog, add_options, faults_of
from udriver_hw.faults import Faults
from udriver_hw.faulty_pty import FaultyFirmware
from udriver_hw.wire_pty import PtyWire, Stats, UnsupportedOnPty

__all__ = ["Loopback", "main"]

Wiring = Literal["jumper", "echo"] | list[Step]
UNSUPPORTED = 7  # exit status: a pty cannot do it


def _firmware(wiring: Wiring, uart: Uart) -> Firmware:
    if isinstance(wiring, list):
        return Script(wiring)
    return Jumper() if wiring == "jumper" else Echo(uart)


class Loopback:
    """A simulated device, running in a thread of its own until close() or unplug().

    ``wiring``: "jumper" is TX wired to RX, "echo" a device that sends back what it received, a
    list of steps (see parse_script()) a scripted one. ``paced`` takes as long as the baud rate.
    ``depth`` in bytes is that of the chip's FIFOs. ``faults`` is what goes wrong on the wire;
    raises UnsupportedOnPty for one that a pty cannot do.
    """

    def __init__(
        self,
        wiring: Wiring = "jumper",
        *,
        paced: bool = False,
        depth: int = 65536,
        faults: Faults | None = None,
    ) -> None:
        uart = Uart(depth, paced=paced)
        self._far_end = FaultyFirmware(_firmware(wiring, uart), faults or Faults())
        self._wire = PtyWire(uart, self._far_end)
        self.path = self._wire.path
        self._thread = threading.Thread(target=self._wire.serve, name="loopback", daemon=True)
        self._thread.start()

    def push(self, data: bytes) -> None:
        """Let the device send ``data`` of its own accord."""
        self._far_end.say(data)
        self._wire.push(b"")  # which wakes it

    def stats(self) -> Stats:
        """What went over the wire."""
        return self._wire.stats()

    def unplug(self) -> None:
        """Take the device away by surprise: the tty hangs up. May be repeated."""
        self._wire.stop()
        self._thread.join()

    close = unplug  # a pty knows no orderly removal

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m udriver_hw.loopback",
        description="Print the path of a simulated serial device, and serve it until end of file "
        "on stdin.",
    )
    parser.add_argument("--wiring", choices=["jumper", "echo"], default="jumper")
    parser.add_argument("--script", type=Path, help="a scripted device instead")
    parser.add_argument("--paced", action="store_true", help="take as long as the baud rate")
    parser.add_argument("--link", type=Path, help="a symbolic link to the path, while it is served")
    add_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until end of file, SIGTERM or Ctrl-C; the exit status is 0, 143 or 130; 7: unsupported."""
    arguments = _arguments(argv)
    try:
        wiring: Wiring = arguments.wiring
        if arguments.script:
            wiring = parse_script(_text(arguments.script), str(arguments.script))
        uart = Uart(65536, paced=arguments.paced)
        faults = FaultLog(arguments.fault_log).faults(faults_of(arguments), arguments.seed)
        wire = PtyWire(uart, FaultyFirmware(_firmware(wiring, uart), faults))
        if arguments.link:
            _link(arguments.link, wire.path)
    except UnsupportedOnPty as exc:
        print(f"loopback: {exc.strerror}", file=sys.stderr)
        return UNSUPPORTED
    except (OSError, ValueError) as exc:
        print(f"loopback: {exc}; see --help", file=sys.stderr)
        return 2
    try:
        return _serve(wire)
    finally:
        if arguments.link and os.path.realpath(arguments.link) == wire.path:
            arguments.link.unlink()  # else it is somebody else's by now


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text file") from None


def _serve(wire: PtyWire) -> int:
    status = [0]

    def stop(signum: int, frame: object) -> None:
        status[0] = 128 + signum
        wire.stop()

    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, stop)
    try:
        print(wire.path, flush=True)
    except OSError as exc:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the interpreter flushes it once more
        print(f"loopback: the path cannot be printed: {exc}; see --help", file=sys.stderr)
        return 2
    threading.Thread(target=_stop_at_eof, args=(wire,), daemon=True).start()
    wire.serve()
    return status[0]


def _stop_at_eof(wire: PtyWire) -> None:
    """Whoever started us has our stdin; it ends with him, so that nobody is left behind."""
    try:
        while os.read(0, 4096):
            pass
    except OSError:
        pass  # no stdin at all is an end of file too
    wire.stop()


def _link(link: Path, path: str) -> None:
    """Make ``link``; one that a server left behind when it was killed is replaced, no other."""
    if link.is_symlink():
        target = os.readlink(link)
        # the number of a pty that is gone is the next one given, so it may be ours by now
        if target == path or (target.startswith("/dev/pts/") and not link.exists()):
            link.unlink()
    link.symlink_to(path)


if __name__ == "__main__":
    sys.exit(main())
