# SPDX-License-Identifier: MIT
"""The rig with User Mode Linux: what a command finds there, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vm.cache import cache_root
from vm.failure import Missing, TimedOut
from vm.job import CHECKOUT
from vm.uml import Uml
from vm.uml_kernel import cached_uml

RIG = [sys.executable, str(CHECKOUT / "hw" / "vm" / "rig.py")]
RUN = [*RIG, "run", "--machine", "uml"]
NOBODY = 65534

needs_uml = pytest.mark.usefixtures("rung_uml")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def rig(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`rig.py run --machine uml ...`."""
    return subprocess.run([*RUN, *arguments], capture_output=True, text=True, check=False)


def test_exit_status_and_both_streams_come_back(uml: Uml, tell: Callable[[str], None]) -> None:
    done = uml.run(["sh", "-c", "echo out; echo err >&2; exit 7"], timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    tell(f"rung uml, Linux {uml.kernel_release}: {uml.boot_seconds:.2f} s to ready guest")


def test_arguments_and_environment_arrive_as_they_are(uml: Uml) -> None:
    odd = "a 'b' \"c\" $d\n\\e"
    done = uml.run(["sh", "-c", 'printf "%s" "$ODD$1"', "sh", odd], env={"ODD": odd}, timeout=30)
    assert done.stdout == odd + odd


def test_a_large_output_is_whole(uml: Uml) -> None:
    program = "import sys; sys.stdout.write('x' * 5_000_000); sys.stderr.write('y' * 1_000_000)"
    done = uml.run([sys.executable, "-c", program], timeout=30)
    assert (done.stdout, done.stderr) == ("x" * 5_000_000, "y" * 1_000_000)


def test_output_is_there_while_the_command_runs(uml: Uml) -> None:
    job = uml.start(["sh", "-c", "echo early; sleep 300"])
    end = time.monotonic() + 20
    while job.stdout() != "early\n":
        assert time.monotonic() < end
        time.sleep(0.02)
    assert job.poll() is None
    job.kill()
    assert job.poll() == 128 + signal.SIGKILL


def test_what_the_guest_writes_stays_in_it_but_for_the_results(uml: Uml) -> None:
    left = CHECKOUT / "left-by-the-guest"
    script = f'touch {left} /etc/left && echo measured > "$UDRIVER_RESULTS/figure"'
    uml.run(["sh", "-c", script], timeout=30, check=True)
    assert not left.exists()
    assert not Path("/etc/left").exists()
    assert (uml.results / "figure").read_text() == "measured\n"


def test_interpreter_project_and_kernel_are_ours(uml: Uml) -> None:
    program = "import serial, pyudev, udriver, os, sys; print(sys.prefix, udriver.__file__, *os.uname()[2:3])"
    done = uml.run([sys.executable, "-c", program], timeout=60, check=True)
    place = str(CHECKOUT / "udriver" / "__init__.py")
    assert done.stdout.split() == [sys.prefix, place, uml.kernel_release]


def test_over_time_it_is_killed_and_the_machine_goes_on(uml: Uml) -> None:
    with pytest.raises(TimedOut, match="was killed after"):
        uml.run(["sleep", "300"], timeout=0.5)
    assert uml.run(["true"], timeout=30).returncode == 0


def test_two_guests_at_once_do_not_meet(uml: Uml) -> None:
    jobs = [uml.start(["sh", "-c", f"echo {name} > /etc/mine; sleep 1; cat /etc/mine"]) for name in "ab"]  # fmt: skip
    assert [job.wait(30) for job in jobs] == [0, 0]
    assert [job.stdout() for job in jobs] == ["a\n", "b\n"]


def test_a_minute_of_sleep_passes_at_once(virtual: Uml) -> None:
    program = "import time; a = time.monotonic_ns(); time.sleep(3600); print(time.monotonic_ns() - a)"  # fmt: skip
    done = virtual.run([sys.executable, "-c", program], timeout=30, check=True)
    # the task's timer slack of 50 us (prctl(2)), and the clock's steps of 256 ns
    assert 3600_000_050_000 <= int(done.stdout) < 3600_000_050_000 + 4 * 256


@needs_uml
def test_command_line_passes_status_and_streams_and_prints_the_boot_figure() -> None:
    done = rig("--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout) == (7, "out\n")
    assert "rig: boot: " in done.stderr
    assert done.stderr.endswith("\nerr\n")


@needs_uml
def test_a_guest_that_ends_under_a_command_is_125_with_its_console() -> None:
    done = rig("--", "sh", "-c", "echo o > /proc/sysrq-trigger; busybox poweroff -f")
    assert done.returncode == 125
    assert "the guest ended while a command was running in it" in done.stderr
    assert "Power down" in done.stderr


@needs_uml
def test_a_panic_is_125_with_its_reason() -> None:
    done = rig("--append", "init=/no/such/init", "--", "true")
    assert done.returncode == 125
    assert "the guest's kernel panicked: Requested init /no/such/init failed" in done.stderr


@needs_uml
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_it_needs_no_root() -> None:
    """With a cache in a folder whose name has a space and a comma, too."""
    python, program = "/usr/bin/python3", RUN[1]
    look = ["import sys; assert sys.version_info >= (3, 11); open(sys.argv[1])", program]
    try:
        subprocess.run([python, "-c", *look], user=NOBODY, cwd="/", check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("nobody has a Python that is new enough, or may not read this checkout")
    home = Path("/tmp") / f"udriver nobody, {os.getpid()}"  # tmp_path's parents are root's alone
    home.mkdir(mode=0o755)
    try:
        place = home / "udriver" / "vm" / "uml"
        place.mkdir(parents=True)
        subprocess.run(["cp", "-r", str(cached_uml().linux.parent), str(place)], check=True)
        subprocess.run(["chown", "-R", str(NOBODY), str(home)], check=True)
        script = 'id -u; echo mine > "$UDRIVER_RESULTS/figure"'
        command = [python, *RUN[1:], "--results", str(home / "out"), "--", "sh", "-c", script]
        environment = {**os.environ, "XDG_CACHE_HOME": str(home), "HOME": str(home)}
        done = subprocess.run(
            command, user=NOBODY, env=environment, cwd="/", capture_output=True, text=True, check=False
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr
        assert (home / "out" / "figure").read_text() == "mine\n"
    finally:
        subprocess.run(["rm", "-rf", str(home)], check=True)


@pytest.mark.parametrize("option", ["--cpus=2", "--no-adapter", "--serial=X", "--module=x"])
def test_an_option_of_the_other_machine_is_a_mistake(option: str) -> None:
    done = rig(option, "--", "true")
    assert done.returncode == 2
    assert f"{option.partition('=')[0]} is not for --machine uml" in done.stderr


def test_without_a_kernel_the_sentence_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root().is_relative_to(tmp_path)
    with pytest.raises(Missing, match=r"run `python hw/vm/rig\.py fetch --machine uml` first"):
        cached_uml()


def test_fetch_that_may_not_install_says_the_command_and_exits_77(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    command = [*RIG, "fetch", "--machine", "uml"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (77, "")
    assert "`sudo apt-get install --yes --no-install-recommends binutils" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def guests_of(rig: int) -> set[int]:
    """Every process in the session of a kernel that the rig started: itself and what it traces."""
    parents, sessions = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(stat.parent.name)], sessions[int(stat.parent.name)] = int(fields[1]), int(fields[3])  # fmt: skip
    leaders = {pid for pid, parent in parents.items() if parent == rig}
    return {pid for pid, session in sessions.items() if session in leaders}


@needs_uml
@pytest.mark.parametrize("moment", ["booting", "running"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_rig_leaves_no_process_and_no_mount(
    number: signal.Signals, moment: str
) -> None:
    mounts = Path("/proc/self/mounts").read_text()
    command = [*RUN, "--", "sh", "-c", "sleep 300 & echo started; sleep 300"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as rig:  # fmt: skip
        assert rig.stdout is not None
        if moment == "running":
            assert rig.stdout.readline() == "started\n"
        end = time.monotonic() + 30
        while not (guests := guests_of(rig.pid)):
            assert time.monotonic() < end
            time.sleep(0.005)
        rig.send_signal(number)
        rig.communicate(timeout=30)
    assert rig.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    while left := [pid for pid in guests if alive(pid)]:
        assert time.monotonic() < end, left
        time.sleep(0.02)
    assert Path("/proc/self/mounts").read_text() == mounts


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
