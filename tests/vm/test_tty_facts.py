# SPDX-License-Identifier: MIT
"""What the driver relies on, asked of the real ftdi_sio: signals, epoll, exclusion, latency."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from vm.machine import Machine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

# F_SETSIG is 10 and TIOC[GS]SERIAL 0x541e/0x541f on x86; struct serial_struct has flags at 16.
PROGRAM = r"""
import errno, fcntl, json, os, select, signal, struct, termios, time
import serial
from vm.guest import Rig

facts = {}
tty = "/dev/ttyUSB0"
timer = "/sys/bus/usb-serial/devices/ttyUSB0/latency_timer"
port = serial.Serial(tty)
fd = port.fd

def latency():
    with open(timer) as file:
        return int(file.read())

facts["latency_fresh"] = latency()
with open(timer, "w") as file:
    file.write("16")
facts["latency_written"] = latency()
line = bytearray(72)
fcntl.ioctl(fd, 0x541E, line)
flags = struct.unpack_from("I", line, 16)[0]
struct.pack_into("I", line, 16, flags | 0x2000)
fcntl.ioctl(fd, 0x541F, line)
fcntl.ioctl(fd, 0x541E, line)
facts["low_latency_kept"] = bool(struct.unpack_from("I", line, 16)[0] & 0x2000)
facts["latency_after_low_latency"] = latency()

fcntl.ioctl(fd, termios.TIOCEXCL)
os.close(os.open(tty, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK))
facts["exclusive_root"] = "opens"
os.chmod(tty, 0o666)
os.seteuid(65534)
try:
    os.open(tty, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
except OSError as error:
    facts["exclusive_nobody"] = errno.errorcode[error.errno]
os.seteuid(0)
fcntl.ioctl(fd, termios.TIOCNXCL)

number = signal.SIGRTMIN + 1
signal.pthread_sigmask(signal.SIG_BLOCK, {number})
fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
fcntl.fcntl(fd, 10, number)
fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)

def drained():
    count = 0
    while signal.sigtimedwait({number}, 0.3):
        count += 1
    return count

epoll = select.epoll()
epoll.register(fd, select.EPOLLIN | select.EPOLLET)
drained()
os.write(fd, b"x")
info = signal.sigtimedwait({number}, 5)
facts["signal_code_band"] = [info.si_code, info.si_band]
facts["epoll"] = [events for _, events in epoll.poll(5)]
facts["byte"] = os.read(fd, 16).decode()
drained()
status = bytearray(4)
fcntl.ioctl(fd, termios.TIOCMGET, status)
facts["modem_lines"] = struct.unpack("I", status)[0] & (
    termios.TIOCM_CTS | termios.TIOCM_DSR | termios.TIOCM_CAR | termios.TIOCM_RI)
with Rig() as rig:
    rig.unplug()
    facts["epoll_hangup"] = [events for _, events in epoll.poll(5)]
    facts["signals_at_hangup"] = drained()
    facts["read_after_hangup"] = len(os.read(fd, 16))
    try:
        os.write(fd, b"x")
    except OSError as error:
        facts["write_after_hangup"] = errno.errorcode[error.errno]
    rig.plug()
    deadline = time.monotonic() + 20
    while not os.path.exists("/dev/ttyUSB1") and time.monotonic() < deadline:
        time.sleep(0.01)
    facts["minor_while_held"] = sorted(n for n in os.listdir("/dev") if n.startswith("ttyUSB"))
    rig.unplug()
    port.close()
    while os.path.exists("/dev/ttyUSB1") and time.monotonic() < deadline:
        time.sleep(0.01)
    rig.plug()
    while not os.path.exists("/run/udev/data/c188:0") and time.monotonic() < deadline:
        time.sleep(0.01)
    facts["minor_after_close"] = sorted(n for n in os.listdir("/dev") if n.startswith("ttyUSB"))
print(json.dumps(facts))
"""

EXPECTED: dict[str, Any] = {
    "latency_fresh": 0,  # QEMU answers 0; the chip on a desk answers 16
    "latency_written": 16,
    "low_latency_kept": True,
    "latency_after_low_latency": 1,
    "exclusive_root": "opens",  # CAP_SYS_ADMIN passes TIOCEXCL
    "exclusive_nobody": "EBUSY",
    "signal_code_band": [1, 0x41],  # POLL_IN, POLLIN | POLLRDNORM
    "epoll": [1],
    "byte": "x",
    "modem_lines": 0x160,  # CTS, DSR, DCD always; RI never: QEMU's usb-serial
    "epoll_hangup": [0x19],  # EPOLLIN | EPOLLERR | EPOLLHUP, though only EPOLLIN was asked
    "signals_at_hangup": 0,  # a reader by signal alone never learns of an unplug
    "read_after_hangup": 0,
    "write_after_hangup": "EIO",
    "minor_while_held": ["ttyUSB1"],
    "minor_after_close": ["ttyUSB0"],
}


@pytest.fixture(scope="module")
def facts(vm: Machine) -> dict[str, Any]:
    done = vm.run([sys.executable, "-c", PROGRAM], timeout=90)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("fact", EXPECTED)
def test_fact(facts: dict[str, Any], fact: str) -> None:
    assert facts[fact] == EXPECTED[fact]
