# SPDX-License-Identifier: MIT
"""The rig itself, against a booted guest: commands, shares, the adapter, and how it ends."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vm.adapters import Adapter
from vm.failure import TimedOut
from vm.machine import CHECKOUT, Machine

RIG = [sys.executable, str(CHECKOUT / "hw" / "vm" / "rig.py")]
BY_ID = "/dev/serial/by-id/usb-QEMU_QEMU_USB_SERIAL_UD0001-if00-port0"


pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(autouse=True)
def _rung(rung_qemu: None) -> None:
    """Skip, by name, where the rig is not."""


def python(vm: Machine, program: str, timeout: float = 60) -> str:
    """Standard output of a Python program in the guest, which must succeed."""
    done = vm.run([sys.executable, "-c", program], timeout=timeout)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_exit_status_and_both_streams_come_back(vm: Machine) -> None:
    done = vm.run(["sh", "-c", "echo out; echo err >&2; exit 7"], timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


def test_arguments_and_environment_arrive_as_they_are(vm: Machine) -> None:
    odd = "a 'b' \"c\" $d\n\\e"
    done = vm.run(["printenv", "ODD"], env={"ODD": odd}, timeout=30)
    assert done.stdout == odd + "\n"
    assert vm.run(["printf", "%s", odd], timeout=30).stdout == odd


def test_command_that_does_not_exist_is_127(vm: Machine) -> None:
    assert vm.run(["no-such-command"], timeout=30).returncode == 127


def test_killed_command_reports_its_signal_and_control_c_works(vm: Machine) -> None:
    assert vm.run(["sh", "-c", "kill -9 $$"], timeout=30).returncode == 128 + 9
    program = "import signal; print(signal.getsignal(signal.SIGINT))"
    assert "default_int_handler" in python(vm, program)


def test_results_folder_has_the_same_path_on_both_sides(vm: Machine) -> None:
    vm.run(["sh", "-c", 'echo measured > "$UDRIVER_RESULTS/figure"'], timeout=30, check=True)
    assert (vm.results / "figure").read_text() == "measured\n"


def test_guest_writes_anywhere_and_the_host_never_sees_it(vm: Machine) -> None:
    written = ("/etc/udev/rules.d/99-udriver-rig.rules", str(CHECKOUT / "left-by-the-guest"))
    for path in written:
        vm.run(["touch", path], timeout=30, check=True)
        vm.run(["test", "-e", path], timeout=30, check=True)
        assert not Path(path).exists()


def test_interpreter_and_project_are_importable(vm: Machine) -> None:
    program = "import serial, pyudev, udriver, sys; print(sys.prefix, udriver.__file__)"
    done = vm.run([sys.executable, "-c", program], timeout=60)
    if "No module named 'udriver'" in done.stderr:
        pytest.skip("udriver has no code yet in this checkout")
    assert done.stdout.split() == [sys.prefix, str(CHECKOUT / "udriver" / "__init__.py")]


def test_kernel_is_the_fetched_one_and_not_the_hosts(vm: Machine) -> None:
    assert vm.run(["uname", "-r"], timeout=30).stdout.strip() == vm.kernel_release
    assert vm.kernel_release != os.uname().release


def test_real_ftdi_sio_has_bound_the_adapter(vm: Machine) -> None:
    driver = "/sys/bus/usb-serial/devices/ttyUSB0/driver"
    assert vm.run(["readlink", driver], timeout=30).stdout.strip().endswith("/ftdi_sio")
    ids = vm.run(
        ["sh", "-c", "cat /sys/bus/usb/devices/1-1/id*; cat /sys/bus/usb/devices/1-1/serial"]
    )
    assert ids.stdout.split() == ["6001", "0403", "UD0001"]


def test_real_udev_has_named_it(vm: Machine) -> None:
    assert vm.run(["readlink", "-f", BY_ID], timeout=30).stdout == "/dev/ttyUSB0\n"
    stat = vm.run(["stat", "-c", "%U:%G %a", "/dev/ttyUSB0"], timeout=30)
    assert stat.stdout == "root:dialout 660\n"


LOOPBACK = """
import hashlib, os, serial, threading
sent = os.urandom(65536)
with serial.Serial("/dev/ttyUSB0", 115200, timeout=20) as port:
    # written from a thread: nobody reads while write() waits for room
    writer = threading.Thread(target=port.write, args=(sent,))
    writer.start()
    got = port.read(len(sent))
    writer.join()
    print(len(got), got == sent, port.in_waiting)
"""


def test_64_kib_come_back_over_the_jumper(vm: Machine) -> None:
    assert python(vm, LOOPBACK) == "65536 True 0\n"


UNPLUG = """
import os, select, serial, time
from vm.guest import Rig
with Rig() as rig, serial.Serial("/dev/ttyUSB0") as port:
    poll = select.poll()
    poll.register(port.fd, select.POLLIN)
    ticket = rig.ask("unplug", after=0.2)
    events = poll.poll(10000)
    woke = time.monotonic_ns()
    moment = ticket.moment()
    print(bool(events[0][1] & select.POLLHUP), moment.earliest_ns <= moment.latest_ns)
    print((woke - moment.earliest_ns) / 1e6)
    print(os.read(port.fd, 1), rig.state()[0]["plugged"])
with Rig() as rig:
    rig.plug()
"""


def _wait_for(vm: Machine, path: str) -> None:
    vm.run(["sh", "-c", f"until [ -e {path} ]; do sleep 0.1; done"], timeout=30, check=True)


def test_guest_unplugs_itself_and_plugs_in_again(vm: Machine) -> None:
    hangup, delay_ms, after = python(vm, UNPLUG).splitlines()
    assert hangup == "True True"
    assert -1.0 < float(delay_ms) < 1000.0  # the driver's own bound is another test's
    assert after == "b'' False"
    _wait_for(vm, BY_ID)


def test_host_unplugs_under_a_running_command(vm: Machine) -> None:
    job = vm.start(["sh", "-c", "cat /dev/ttyUSB0; echo hung up"])
    deadline = time.monotonic() + 20
    while "ttyUSB0" not in vm.run(["sh", "-c", "ls -l /proc/*/fd 2>/dev/null"], timeout=30).stdout:
        assert time.monotonic() < deadline
    vm.slots.unplug("adapter0")
    assert job.wait(timeout=20) == 0
    assert job.stdout() == "hung up\n"
    vm.slots.plug("adapter0")
    _wait_for(vm, BY_ID)


STALE = """
import serial, time
from vm.guest import Rig
with Rig() as rig:
    rig.jumper(on=False)
    with serial.Serial("/dev/ttyUSB0", timeout=5) as port:
        rig.say(b"fresh")
        print(port.read(5))
        port.write(b"heard")
        port.flush()
        heard = b""
        while heard != b"heard":
            heard += rig.heard()
        print(heard)
    rig.say(b"never read")   # the port is closed: this stays on the wire
    rig.unplug()
    rig.plug()
"""


def test_byte_of_one_plug_never_reaches_the_next(vm: Machine) -> None:
    assert python(vm, STALE) == "b'fresh'\nb'heard'\n"
    _wait_for(vm, BY_ID)
    assert python(vm, LOOPBACK) == "65536 True 0\n"


def test_other_serial_in_the_same_port_is_another_device(vm: Machine) -> None:
    vm.slots.unplug("adapter0")
    vm.slots.plug("adapter0", serial="UD0002")
    _wait_for(vm, BY_ID.replace("UD0001", "UD0002"))
    vm.slots.unplug("adapter0")
    vm.slots.plug("adapter0", serial="UD0001")
    _wait_for(vm, BY_ID)


def test_refusal_names_the_adapters_there_are(vm: Machine) -> None:
    program = "from vm.guest import Rig\ntry: Rig().unplug('x')\nexcept Exception as e: print(e)"
    assert python(vm, program) == "no adapter 'x': there are adapter0.\n"


def test_command_over_time_is_killed_and_the_guest_goes_on(vm: Machine) -> None:
    with pytest.raises(TimedOut, match="was killed after"):
        vm.run(["sh", "-c", "sleep 300 & sleep 300"], timeout=0.5)
    assert "sleep 300" not in vm.run(["ps", "-ef"], timeout=30).stdout
    assert vm.run(["true"], timeout=30).returncode == 0


def test_clones_share_a_serial_and_a_hostile_serial_stays_whole() -> None:
    hostile = 'a"b,c$d`e\n../f'
    adapters = (
        Adapter("one", serial="CLONE", port=1),
        Adapter("two", serial="CLONE", port=2),
        Adapter("bad", serial=hostile, port=3),
    )
    with Machine(adapters=adapters) as machine:
        serials = [
            machine.run(["cat", f"/sys/bus/usb/devices/1-{port}/serial"], timeout=30).stdout
            for port in (1, 2, 3)
        ]
        assert serials == ["CLONE\n", "CLONE\n", hostile + "\n"]
        assert machine.run(["sh", "-c", "ls /dev/ttyUSB*"]).stdout.split() == [
            "/dev/ttyUSB0",
            "/dev/ttyUSB1",
            "/dev/ttyUSB2",
        ]


def test_command_line_passes_status_and_streams_and_prints_the_boot_figure() -> None:
    command = [*RIG, "run", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (7, "out\n")
    assert "rig: boot: " in done.stderr
    assert done.stderr.endswith("\nerr\n")


def test_command_line_time_out_is_124() -> None:
    command = [*RIG, "run", "--timeout", "0.5", "--no-adapter", "--", "sleep", "300"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 124
    assert "was killed after" in done.stderr


def test_panic_is_125_with_the_end_of_the_console() -> None:
    command = [*RIG, "run", "--", "sh", "-c", "echo c > /proc/sysrq-trigger; sleep 60"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 125
    assert "the guest's kernel panicked: sysrq triggered crash; QEMU e" in done.stderr
    assert "Kernel panic - not syncing" in done.stderr


def test_guest_that_never_gets_ready_is_125() -> None:
    command = [*RIG, "run", "--boot-timeout", "0.5", "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 125
    assert "not ready" in done.stderr


def _qemu_of(rig: int) -> int | None:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue
        # the name in parentheses may hold anything; ppid is the second field after it
        name, fields = text[text.index("(") + 1 : text.rindex(")")], text.rsplit(")", 1)[1].split()
        if name.startswith("qemu-system") and int(fields[1]) == rig:
            return int(stat.parent.name)
    return None


def _gone(pid: int) -> bool:
    """Wait for the end of a process that is not our child."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], 10)[0])
    finally:
        os.close(handle)


@pytest.mark.parametrize("moment", ["booting", "running"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_rig_leaves_no_process_and_no_mount(
    number: signal.Signals, moment: str
) -> None:
    mounts = Path("/proc/self/mounts").read_text()
    command = [*RIG, "run", "--", "sh", "-c", "echo started; sleep 300"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as rig:
        assert rig.stdout is not None
        if moment == "running":
            assert rig.stdout.readline() == "started\n"
        deadline = time.monotonic() + 30
        while (qemu := _qemu_of(rig.pid)) is None and time.monotonic() < deadline:
            time.sleep(0.005)
        assert qemu is not None
        rig.send_signal(number)
        rig.communicate(timeout=30)
    expected = -9 if number == signal.SIGKILL else 128 + number
    assert rig.returncode == expected
    assert _gone(qemu)
    assert Path("/proc/self/mounts").read_text() == mounts
