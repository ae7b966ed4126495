# SPDX-License-Identifier: MIT
"""The command: `python hw/vm/rig.py fetch` once, then `python hw/vm/rig.py run -- COMMAND...`.

`--machine uml` is User Mode Linux instead of QEMU, for both verbs.

Exit status of `run`: the guest command's own, else 77 a prerequisite is missing, 124 it took
too long, 125 the rig or the guest failed, 130 and 143 interrupted. Notes are on standard error.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import BinaryIO, NoReturn

if __name__ == "__main__":  # run as a file, its own folder is on the path, not the package's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from vm.adapters import Adapter
from vm.failure import GuestDied, RigError
from vm.initrd import bootable
from vm.job import Job
from vm.machine import Machine
from vm.packages import fetch_headers, fetch_kernel, install_programs, say
from vm.qemu import Shape
from vm.uml import Uml
from vm.uml_kernel import fetch_uml

_TAIL_PERIOD_S = 0.05
# options that mean something on one machine alone
_ONLY = {
    "qemu": ("kernel", "module", "headers", "cpus", "serial", "no_adapter"),
    "uml": ("virtual_time",),
}


class Interrupted(BaseException):
    """A signal asked the rig to end; not an Exception, so nothing on the way swallows it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_status = 128 + number


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, do, and turn every failure into one sentence and its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    for name in _ONLY["qemu" if options.machine == "uml" else "uml"]:
        if getattr(options, name, None):
            parser.error(f"--{name.replace('_', '-')} is not for --machine {options.machine}")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        return _fetch(options) if options.verb == "fetch" else _run(options)
    except RigError as error:
        say(str(error))
        return error.exit_status
    except BrokenPipeError:
        # Who read our output left, as head(1) does; keep the exit from flushing into it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        say(f"{error}.")
        return RigError.exit_status
    except Interrupted as interrupted:
        say(f"interrupted by {interrupted}; the guest is gone.")
        return interrupted.exit_status


def _interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)  # the clean-up this starts must come to its end
    raise Interrupted(number)


def _fetch(options: argparse.Namespace) -> int:
    if options.machine == "uml":
        print(fetch_uml(update=options.update).release)
        return 0
    install_programs()
    began = time.monotonic()
    boot = bootable(fetch_kernel(options.kernel, update=options.update), options.module)
    if options.headers:
        fetch_headers(boot.release)
    say(f"kernel {boot.release} ready to boot in {time.monotonic() - began:.1f} s")
    print(boot.release)
    return 0


def _run(options: argparse.Namespace) -> int:
    with _machine(options) as vm:
        try:
            job = vm.start(options.command)
            say(f"boot: {vm.boot_seconds:.1f} s to ready guest (Linux {vm.kernel_release})")
            return _followed(job, options.timeout)
        except GuestDied as error:
            raise vm.death(error) from error
        finally:
            if options.console:
                sys.stderr.write(vm.console())


def _machine(options: argparse.Namespace) -> Machine | Uml:
    if options.machine == "uml":
        return Uml(
            results=options.results,
            virtual_time=options.virtual_time,
            memory=options.memory,
            append=options.append,
            boot_timeout=options.boot_timeout,
        )
    return Machine(
        adapters=_adapters(options),
        results=options.results,
        kernel=options.kernel,
        extra_modules=options.module,
        shape=Shape(options.memory, options.cpus or 1, options.append),
        boot_timeout=options.boot_timeout,
    )


def _followed(job: Job, timeout: float | None) -> int:
    """Pass the output on while it is written, then return the exit status."""
    deadline = None if timeout is None else time.monotonic() + timeout
    streams = ((job.stdout_file, sys.stdout.buffer), (job.stderr_file, sys.stderr.buffer))
    passed = [0, 0]
    while True:
        status = job.poll()  # before the copy: after the end, everything is in the files
        for index, (path, stream) in enumerate(streams):
            passed[index] += _copy(path, passed[index], stream)
        if status is not None:
            return status
        if deadline is not None and time.monotonic() > deadline:
            return job.wait(0)
        time.sleep(_TAIL_PERIOD_S)


def _copy(path: Path, offset: int, stream: BinaryIO) -> int:
    if not path.exists():
        return 0
    with path.open("rb") as output:
        output.seek(offset)
        data = output.read()
    stream.write(data)
    stream.flush()
    return len(data)


def _adapters(options: argparse.Namespace) -> tuple[Adapter, ...]:
    serials = options.serial or ["UD0001"]
    if options.no_adapter:
        serials = []
    return tuple(
        Adapter(name=f"adapter{index}", serial=serial, port=index + 1)
        for index, serial in enumerate(serials)
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rig.py", description="A real kernel in a VM.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    fetch = verbs.add_parser("fetch", help="get a machine and a kernel from Debian's packages")
    fetch.add_argument("--update", action="store_true", help="look for a newer kernel than cached")
    fetch.add_argument(
        "--headers", action="store_true", help="also what hw/vm/oracle is built with"
    )
    run = verbs.add_parser("run", help="boot, run one command in the guest, return its status")
    for verb in (fetch, run):
        verb.add_argument("--machine", choices=("qemu", "uml"), default="qemu", help="%(default)s")
        verb.add_argument("--kernel", metavar="SERIES", help="6.1, 6.12, ... (default: newest)")
        verb.add_argument(
            "--module", action="append", default=[], help="also load this module; repeatable"
        )
    run.add_argument("--timeout", type=float, metavar="S", help="kill the command after this")
    run.add_argument("--boot-timeout", type=float, default=120.0, metavar="S")
    run.add_argument("--results", type=Path, metavar="DIR", help="writable in the guest, same path")
    run.add_argument("--memory", type=int, default=512, metavar="MIB")
    run.add_argument("--cpus", type=int, metavar="N")
    run.add_argument(
        "--serial", action="append", help="an adapter with this serial; repeat for more, equal too"
    )
    run.add_argument("--no-adapter", action="store_true", help="boot with empty USB ports")
    run.add_argument(
        "--virtual-time", action="store_true", help="uml: time passes only in sleep, and at once"
    )
    run.add_argument("--append", default="", help="more of the kernel's command line")
    run.add_argument("--console", action="store_true", help="print the guest's console at the end")
    run.add_argument("command", nargs="+", metavar="COMMAND", help="after --, as in env(1)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
