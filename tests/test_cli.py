# SPDX-License-Identifier: MIT
"""``udriver``: each bad input ends in one sentence, the documented status and a restored port."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.warm import Warm
from udriver.cli import Status
from udriver_hw.chips.firmware import parse_script
from udriver_hw.loopback import Loopback
from udriver_hw.spawned import Spawned, spawn

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": f"{ROOT}:{ROOT / 'hw'}",
    "COLUMNS": "120",
}
ENVIRONMENT.pop("UDRIVER_PORT", None)

pytestmark = pytest.mark.slow  # each starts an interpreter


Udriver = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def udriver() -> Iterator[Udriver]:
    """``udriver(argument, ..., env={})``: run the command line."""
    with Warm(ENVIRONMENT) as warm:
        yield lambda *arguments, env=(): warm.run(*arguments, env=dict(env))


def complaint(result: subprocess.CompletedProcess[str], status: Status) -> str:
    """The one sentence, after checking that it is one, and the status."""
    assert result.returncode == status, (result.returncode, result.stdout, result.stderr)
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("udriver: ")]
    lines = [line for line in lines if " interrupts (" not in line]
    assert len(lines) == 1, result.stderr
    return lines[0]


@contextlib.contextmanager
def unchanged(path: str) -> Iterator[None]:
    """The port has the same termios afterwards and can be opened by anybody."""

    def state() -> object:
        fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            return termios.tcgetattr(fd)
        finally:
            os.close(fd)

    before = state()
    yield
    assert state() == before


@pytest.fixture
def device() -> Iterator[Spawned]:
    with spawn() as spawned:
        yield spawned


KEYS = {
    "schema", "port", "rung", "irq", "frames", "bytes", "errors", "lost", "bytes_per_s",
    "latency_us", "interrupts",
}  # fmt: skip


@pytest.mark.parametrize("irq", ["signal", "select", "inline"])
def test_run_on_the_pty(udriver: Udriver, irq: str) -> None:
    result = udriver("run", "--irq", irq, "--frames", "300", "--size", "100", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert set(report) >= KEYS
    assert set(report["latency_us"]) == {"p50", "p99", "p999", "max"}
    assert (report["irq"], report["rung"]) == (irq, "pty")
    assert (report["frames"], report["bytes"]) == (300, 30000)
    assert (report["errors"], report["lost"], report["dropped"]) == (0, 0, 0)
    assert report["interrupts"] > 0
    assert "no PORT was given" in result.stderr


@pytest.mark.parametrize("irq", ["signal", "select", "inline"])
def test_run_a_file(udriver: Udriver, irq: str, tmp_path: Path, device: Spawned) -> None:
    source = tmp_path / "file"
    source.write_bytes(random.Random(irq).randbytes(300_001))
    with unchanged(device.path):
        result = udriver("run", device.path, "--irq", irq, "--file", str(source), "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert (report["bytes"], report["errors"], report["lost"]) == (300_001, 0, 0)


def test_run_for_a_duration_prints_a_table(udriver: Udriver) -> None:
    result = udriver("run", "--duration", "0.2")
    assert result.returncode == 0, result.stderr
    assert "p50 / p99 / p99.9 / max" in result.stdout


def test_the_environment_names_the_port(udriver: Udriver, device: Spawned) -> None:
    result = udriver("run", "--frames", "3", "--json", env={"UDRIVER_PORT": device.path})
    assert json.loads(result.stdout)["port"] == device.path
    assert "UDRIVER_PORT names it" in result.stderr


def test_p99_bar(udriver: Udriver) -> None:
    failed = udriver("run", "--frames", "50", "--max-p99-us", "0.001", "--json")
    assert "--max-p99-us" in complaint(failed, Status.FAILED)
    assert udriver("run", "--frames", "50", "--max-p99-us", "1e9").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["/dev/nosuch"], Status.NO_DEVICE, "/dev/nosuch"),
        (["/tmp"], Status.NO_DEVICE, "a directory"),
        (["/etc/passwd"], Status.NO_DEVICE, "a regular file"),
        (["/dev/null"], Status.NO_DEVICE, "not a tty"),
        (["0403:6001"], Status.NO_DEVICE, "no device is 0403:6001"),
        (["some-by-id-name"], Status.NO_DEVICE, "by-id"),
        (["-b", "-5"], Status.USAGE, "-5"),
        (["-b", "0"], Status.USAGE, "0"),
        (["-b", "fast"], Status.USAGE, "fast"),
        (["--frames", "0"], Status.USAGE, "frames"),
        (["--frames", "-1"], Status.USAGE, "frames"),
        (["--size", "99999999"], Status.USAGE, "size"),
        (["--duration", "-1"], Status.USAGE, "duration"),
        (["--duration", "nan"], Status.USAGE, "duration"),
        (["--timeout", "0"], Status.USAGE, "timeout"),
        (["--irq", "smoke"], Status.USAGE, "smoke"),
        (["--nonsense"], Status.USAGE, "--nonsense"),
        (["-d", "7"], Status.UNSUPPORTED, "refuses"),
        (["-p", "even"], Status.UNSUPPORTED, "refuses"),
        (["--dtr", "on"], Status.UNSUPPORTED, "no modem lines"),
        (["-f", "hard"], Status.UNSUPPORTED, "no modem lines"),
        (["-f", "soft", "--file", "/etc/passwd"], Status.USAGE, "XON"),
        (["--size", "4096", "--fifo-size", "4096"], Status.USAGE, "kfifo"),
        ([""], Status.NO_DEVICE, "empty"),
        (["--file", "/nosuch"], Status.USAGE, "/nosuch"),
        (["--file", "/tmp"], Status.USAGE, "not a regular file"),
        (["--file", "/dev/null"], Status.USAGE, "not a regular file"),
        (["--file", "/etc/passwd", "--frames", "3"], Status.USAGE, "--frames"),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, list) else None,
)
def test_bad_input(udriver: Udriver, arguments: list[str], status: Status, says: str) -> None:
    assert says in complaint(udriver("run", *arguments), status)


def test_a_pipe_that_nobody_writes_into_is_not_waited_for(udriver: Udriver, tmp_path: Path) -> None:
    pipe = tmp_path / "61.rules"
    os.mkfifo(pipe)
    says = complaint(udriver("udev", "verify", str(pipe)), Status.USAGE)
    assert f"{pipe} is not a regular file" in says
    for command in (["run"], ["trace"], ["bench", "--quick"]):
        says = complaint(udriver(*command, str(pipe)), Status.NO_DEVICE)
        assert f"{pipe} is not a serial port but a pipe" in says


def test_an_empty_file(udriver: Udriver, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    result = udriver("run", "--file", str(tmp_path / "empty"))
    assert "is empty" in complaint(result, Status.USAGE)


def test_an_unreadable_file(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody who may not read: run the tests as root")
    secret = tmp_path / "secret"
    secret.write_bytes(b"x")
    secret.chmod(0)
    for parent in (tmp_path, *tmp_path.parents[:2]):  # pytest keeps them to itself
        parent.chmod(0o755)
    result = as_nobody("run", "--file", str(secret))
    assert "cannot be read" in complaint(result, Status.USAGE)


AS_NOBODY = """
import os, sys
import udriver.cli, udriver.cli_run, udriver_hw.spawned, encodings.idna  # while it may read them
os.setgroups([]), os.setgid(65534), os.setuid(65534)
udriver.cli.main(sys.argv[1:])
"""


def as_nobody(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run with another user's rights, taken on after the imports: he may not read this tree."""
    command = [sys.executable, "-c", AS_NOBODY, *arguments]
    return subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, timeout=50, check=False
    )


def test_permission_denied(device: Spawned) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a port to somebody else: run the tests as root")
    os.chmod(device.path, 0o600)
    result = as_nobody("run", device.path)
    assert "usermod" in complaint(result, Status.PERMISSION)


def test_a_busy_port_names_its_holder(udriver: Udriver, device: Spawned) -> None:
    code = "import sys; fd = open(sys.argv[1], 'rb'); print(flush=True); input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, device.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        said = complaint(udriver("run", device.path), Status.BUSY)
        assert f"pid {holder.pid} (" in said
        assert sys.executable in said
    finally:
        holder.communicate()


SCRIPTS = {
    "garbage": ('any 16\nsend b"sixteen wrong by"\n', Status.FAILED, 1, 0),
    "short": ('any 16\nsend b"short"\n', Status.TIMEOUT, None, 11),
    "never": ("any 16\n", Status.TIMEOUT, 0, 16),
    "unplug": ('any 16\nsend b"abc"\nunplug\n', Status.LOST, None, None),
}


@pytest.mark.parametrize("kind", SCRIPTS)
def test_a_bad_device(udriver: Udriver, kind: str) -> None:
    script, status, errors, lost = SCRIPTS[kind]
    with Loopback(parse_script(script)) as device:
        result = udriver(
            "run", device.path, "--frames", "1", "--size", "16", "--timeout", "0.3", "--json"
        )
    complaint(result, status)
    report = json.loads(result.stdout)
    assert report["bytes"] + report["lost"] == 16  # nothing lost uncounted
    assert lost is None or report["lost"] == lost
    assert errors is None or report["errors"] == errors


def test_stdout_closed() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(
        [sys.executable, "-m", "udriver", "run", "--frames", "2", "--json"],
        env=ENVIRONMENT, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=50, check=False,
    )  # fmt: skip
    os.close(writer)
    assert result.returncode == Status.FAILED
    assert "stdout was closed" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("irq", ["signal", "select", "inline"])
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_running(irq: str, signum: int) -> None:
    with Loopback() as device, unchanged(device.path):
        process = start("run", device.path, "--irq", irq, "--duration", "30", "--json")
        while device.stats().rx < 6400:  # a hundred frames: it is in the middle of its work
            assert process.poll() is None, process.communicate()
        process.send_signal(signum)
        out, err = communicate(process)
    assert "Traceback" not in err
    assert process.returncode == 128 + signum
    if signum == signal.SIGINT:
        assert json.loads(out)["lost"] in (0, 64)  # at most the frame that was under way
        assert err.count("\n") == 2, err  # what it ran on, and that it was interrupted


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "udriver", *arguments], env=ENVIRONMENT, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.parametrize("delay_ms", range(20, 400, 40))
def test_interrupted_at_any_moment(delay_ms: int) -> None:
    """Start-up included: the moment is not ours to choose, so the status may be either."""
    with start("run", "--duration", "60", "--json") as process:
        deadline = time.monotonic() + delay_ms / 1000
        while time.monotonic() < deadline:  # spread over the start, not ordered against anything
            os.sched_yield()
        process.send_signal(signal.SIGINT)
        _, err = communicate(process)
    if process.returncode == 1:  # the interpreter had not come to our first line
        assert str(ROOT / "udriver") not in err
    else:
        assert process.returncode in (Status.INTERRUPTED, -signal.SIGINT), err


SIGNALLED_IN_A_WEAKREF_CALLBACK = """
import os, signal, sys, weakref
import udriver.cli, udriver.cli_run

class Thing: pass

def run_command(**options):
    thing = Thing()
    ref = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.{name}))
    del thing
    while True: pass

udriver.cli_run.run_command = run_command
udriver.cli.main(["run"])
"""


@pytest.mark.parametrize(
    ("name", "status"), [("SIGINT", Status.INTERRUPTED), ("SIGTERM", 128 + signal.SIGTERM)]
)
def test_interrupted_where_nothing_can_be_raised(name: str, status: int) -> None:
    """The interpreter drops what a weakref callback raises; the command has to end all the same."""
    with subprocess.Popen(
        [sys.executable, "-c", SIGNALLED_IN_A_WEAKREF_CALLBACK.replace("{name}", name)],
        env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        _, err = communicate(process)
    assert process.returncode == status, err
    assert "Traceback" not in err


def communicate(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What it wrote until it ended; a process that does not end is killed, and the test fails."""
    try:
        return process.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


def test_sim_serves_until_eof(udriver: Udriver) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "udriver", "sim", "--wiring", "echo"],
        env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    path = process.stdout.readline().strip()
    assert udriver("run", path, "--frames", "5").returncode == 0
    process.communicate(timeout=20)
    assert process.returncode == 0


def test_paced_is_honest(udriver: Udriver) -> None:
    report = json.loads(
        udriver("run", "--paced", "-b", "9600", "--frames", "3", "--size", "48", "--json").stdout
    )
    # 48 characters of 10 bits at 9600 baud are 50 ms on the wire, whatever the machine does
    assert report["latency_us"]["p50"] >= 50_000
    assert report["line_rate_percent"] <= 100


def test_soak_consumes_each_token_once(udriver: Udriver) -> None:
    result = udriver("soak", "--posts", "60000", "--json")
    report = json.loads(result.stdout)
    assert (result.returncode, report["posted"], report["consumed"]) == (0, 60000, 60000)
    assert report["posted_by_handler"] > 0


@pytest.mark.parametrize("irq", ["signal", "select", "inline"])
def test_trace_shows_the_stations_in_order(udriver: Udriver, irq: str) -> None:
    lines = udriver("trace", "--irq", irq, "--json").stdout.splitlines()
    names = [json.loads(line)["name"] for line in lines]
    at = [names.index(name) for name in ("irq_handler_entry", "kfifo_in", "irq_handler_exit")]
    assert at == sorted(at)
    assert "kfifo_out" in names[at[1] :]


def test_help_lists_the_statuses(udriver: Udriver) -> None:
    assert "77 prerequisite missing" in " ".join(udriver("--help").stdout.split())


@pytest.mark.parametrize("irq", ["signal", "select", "inline"])
def test_a_file_through_a_small_kfifo(
    udriver: Udriver, irq: str, tmp_path: Path, device: Spawned
) -> None:
    source = tmp_path / "file"
    source.write_bytes(random.Random(irq).randbytes(4097))
    result = udriver(
        "run", device.path, "--irq", irq, "--fifo-size", "1024", "--file", str(source), "--json"
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()


def test_a_second_ctrl_c_cuts_nothing_short() -> None:
    with Loopback() as device, unchanged(device.path):
        process = start("run", device.path, "--duration", "30", "--json")
        while device.stats().rx < 6400:
            assert process.poll() is None, process.communicate()
        for _ in range(20):
            process.send_signal(signal.SIGINT)
        out, err = communicate(process)
    assert process.returncode == Status.INTERRUPTED, err
    assert json.loads(out)["errors"] == 0
    assert "Traceback" not in err


@pytest.mark.parametrize("arguments", [["run", "--frames", "2"], ["list"], ["trace"]])
def test_a_table_into_a_closed_pipe(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(
        [sys.executable, "-m", "udriver", *arguments],
        env=ENVIRONMENT, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=50, check=False,
    )  # fmt: skip
    os.close(writer)
    assert result.returncode == Status.FAILED
    assert "stdout was closed" in result.stderr


def test_notes_do_not_land_in_the_result() -> None:
    code = f"exec {sys.executable} -m udriver run --frames 2 --json 2>&-"
    result = subprocess.run(
        ["sh", "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert json.loads(result.stdout)["frames"] == 2


def test_no_stdout_at_all_is_said() -> None:
    code = f"exec {sys.executable} -m udriver run --frames 2 --json >&-"
    result = subprocess.run(
        ["sh", "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert result.returncode == Status.FAILED
    assert "stdout is closed" in result.stderr


@pytest.mark.parametrize(
    ("found", "method", "timer", "told"),
    [
        (16, None, 16, ["16 ms in /sys/bus/usb-serial/devices/", "left so: the driver dropped ASYNC",
                        "run `udriver udev install`"]),
        (16, "ASYNC_LOW_LATENCY", 1, ["1 ms in /sys/bus/usb-serial/devices/", "16 ms before and after",
                                      "run `udriver udev install`"]),
        (1, "ASYNC_LOW_LATENCY", 1, ["1 ms in /sys/bus/usb-serial/devices/", "which is the shortest",
                                     "run `udriver bench /dev/pts/"]),
        (None, None, None, []),
    ],
    ids=["a timer that stayed", "set for the run", "short already", "no timer"],
)  # fmt: skip
def test_what_the_latency_timer_costs_is_told_with_its_file_and_what_to_do(
    found: int | None, method: str | None, timer: int | None, told: list[str]
) -> None:
    program = f"""
import sys
from udriver.__main__ import main
from udriver.drivers.latency import Latency

def lower(latency, fd):
    latency.found_ms = {found!r}
    latency.method, latency.reason = {method!r}, "" if {method!r} else "the driver dropped ASYNC_LOW_LATENCY"

Latency.lower, Latency.timer_ms = lower, {timer!r}
sys.argv[1:] = ["run", "--frames", "2", "--json"]
main()
"""
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=50, check=True,
    )  # fmt: skip
    report = json.loads(result.stdout)
    assert (report["low_latency_method"], report["latency_timer_ms"]) == (method, timer)
    said = [line for line in result.stderr.splitlines() if "latency timer" in line]
    assert len(said) == bool(told)
    for words in told:
        assert words in said[0]
    if told:
        assert "holds answers of less than 62 bytes back" in said[0]
