# SPDX-License-Identifier: MIT
"""The device behind a real pty, from the client's side of it."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable

import pytest

from udriver_hw.chips.firmware import Jumper, Step, parse_script
from udriver_hw.chips.uart import Uart
from udriver_hw.loopback import Loopback
from udriver_hw.wire_pty import PtyWire, UnsupportedOnPty

Until = Callable[[Callable[[], object]], None]
OpenTty = Callable[[str], int]
ReadAll = Callable[[int, int], bytes]

TIOCGEXCL = 0x80045440
NOBODY = "65534"


def set_speed(fd: int, speed: int) -> None:
    attributes = termios.tcgetattr(fd)
    attributes[4] = attributes[5] = speed
    termios.tcsetattr(fd, termios.TCSANOW, attributes)


def exclusive(fd: int) -> bool:
    return struct.unpack("i", fcntl.ioctl(fd, TIOCGEXCL, bytes(4)))[0] != 0


def write_until_full(fd: int, data: bytes) -> int:
    """Write what the tty takes from somebody who does not read."""
    os.set_blocking(fd, False)
    sent = 0
    while sent < len(data) and select.select([], [fd], [], 0.1)[1]:
        try:
            sent += os.write(fd, data[sent:])
        except BlockingIOError:
            pass
    os.set_blocking(fd, True)
    return sent


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.mark.parametrize("wiring", ["jumper", "echo"])
def test_a_mebibyte_comes_back_exactly(
    wiring: str, open_tty: OpenTty, read_exactly: ReadAll
) -> None:
    data = random.Random(1).randbytes(1 << 20)
    with Loopback(wiring) as device:  # type: ignore[arg-type]
        fd = open_tty(device.path)

        def write() -> None:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(fd, rest) :]

        writer = in_thread(write)
        assert read_exactly(fd, len(data)) == data
        writer.join()
        assert (device.stats().tx, device.stats().rx) == (len(data), len(data))


@pytest.mark.parametrize("wiring", ["jumper", "echo"])
def test_who_does_not_read_is_held_back_and_loses_nothing(
    wiring: str, open_tty: OpenTty, read_exactly: ReadAll
) -> None:
    data = random.Random(2).randbytes(8 << 20)
    with Loopback(wiring) as device:  # type: ignore[arg-type]
        fd = open_tty(device.path)
        sent = write_until_full(fd, data)
        assert sent < len(data)
        assert read_exactly(fd, sent) == data[:sent]
        assert device.stats().overruns == 0


@pytest.mark.slow
def test_a_paced_line_overruns_and_counts_every_byte(open_tty: OpenTty, until: Until) -> None:
    data = bytes(100_000)
    with Loopback(paced=True, depth=4096) as device:
        fd = open_tty(device.path)
        set_speed(fd, termios.B4000000)
        os.write(fd, data[:1])
        writer = in_thread(
            lambda: [os.write(fd, data[at : at + 1000]) for at in range(0, 99_000, 1000)]
        )
        until(lambda: device.stats().tx == 99_001)
        writer.join()
        lost = device.stats().overruns
        assert lost > 0
        got = 0
        while got < 99_001 - lost:
            got += len(os.read(fd, 65536))
        assert (got + device.stats().overruns, device.stats().rx) == (99_001, 99_001)


def test_a_push_beyond_the_fifo_is_counted(until: Until) -> None:
    with Loopback(paced=True, depth=16) as device:
        device.push(bytes(100))
        until(lambda: device.stats().rx)
        assert (device.stats().rx, device.stats().overruns) == (100, 84)


def test_a_device_may_speak_first(open_tty: OpenTty, read_exactly: ReadAll) -> None:
    with Loopback() as device:
        fd = open_tty(device.path)
        device.push(b"hello")
        assert read_exactly(fd, 5) == b"hello"


def test_reopened_100_times(read_exactly: ReadAll) -> None:
    with Loopback() as device:
        for n in range(100):
            fd = os.open(device.path, os.O_RDWR | os.O_NOCTTY)
            os.write(fd, b"%04d" % n)
            assert read_exactly(fd, 4) == b"%04d" % n
            os.close(fd)
        assert device.stats().rx == 400


def test_the_line_is_raw(open_tty: OpenTty, read_exactly: ReadAll) -> None:
    data = bytes(range(256))
    with Loopback() as device:
        fd = open_tty(device.path)
        os.write(fd, data)
        assert read_exactly(fd, 256) == data


# unplugging


def gone(action: Callable[[], bytes]) -> bool:
    try:
        return action() == b""
    except OSError as exc:
        return exc.errno == errno.EIO


def asleep(thread: threading.Thread) -> bool:
    with open(f"/proc/self/task/{thread.native_id}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "S"


def test_unplug_wakes_a_blocked_read(open_tty: OpenTty, until: Until) -> None:
    results: list[bool] = []
    with Loopback() as device:
        fd = open_tty(device.path)
        reader = in_thread(lambda: results.append(gone(lambda: os.read(fd, 1))))
        until(lambda: asleep(reader))
        device.unplug()
        reader.join()
    assert results == [True]
    assert not os.path.exists(device.path)


def test_unplug_wakes_a_poll(open_tty: OpenTty, until: Until) -> None:
    results: list[list[tuple[int, int]]] = []
    with Loopback() as device:
        fd = open_tty(device.path)
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poller = in_thread(lambda: results.append(poll.poll()))
        until(lambda: asleep(poller))
        device.unplug()
        poller.join()
    assert results[0][0][1] & select.POLLHUP


def test_unplug_wakes_a_blocked_write(open_tty: OpenTty, until: Until) -> None:
    results: list[bool] = []
    with Loopback() as device:
        fd = open_tty(device.path)
        write_until_full(fd, bytes(8 << 20))

        def write() -> bytes:
            while True:
                os.write(fd, bytes(1 << 16))

        writer = in_thread(lambda: results.append(gone(write)))
        until(lambda: asleep(writer))
        device.unplug()
        writer.join()
    assert results == [True]


def test_unplugging_may_be_repeated() -> None:
    with Loopback() as device:
        device.unplug()
        device.unplug()
        device.push(b"into the void")
    assert device.stats().rx == 0


def test_a_script_pulls_the_plug_in_the_middle(open_tty: OpenTty, read_exactly: ReadAll) -> None:
    steps = parse_script('expect b"one"\nsend b"1"\nany 3\nunplug\nsend b"never"')
    with Loopback(steps) as device:
        fd = open_tty(device.path)
        os.write(fd, b"one")
        assert read_exactly(fd, 1) == b"1"
        os.write(fd, b"two")
        assert gone(lambda: os.read(fd, 9))


# exclusivity


def test_a_close_beside_a_live_client_leaves_it_exclusive(
    open_tty: OpenTty, read_exactly: ReadAll
) -> None:
    with Loopback() as device:
        fd = open_tty(device.path)
        other = os.open(device.path, os.O_RDWR | os.O_NOCTTY)
        fcntl.ioctl(fd, termios.TIOCEXCL)
        os.close(other)
        os.write(fd, b"x")  # whoever answers this has seen the close
        read_exactly(fd, 1)
        assert exclusive(fd)


CLIENT = """
import fcntl, os, sys, termios
fd = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY)
fcntl.ioctl(fd, termios.TIOCEXCL)
print("open", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_exclusivity_of_a_killed_client_is_taken_off(until: Until) -> None:
    as_nobody: list[str] = []
    if os.geteuid() == 0:  # whom TIOCEXCL does not stop
        if not (setpriv := shutil.which("setpriv")):
            pytest.skip("setpriv is missing: apt-get install util-linux")
        as_nobody = [setpriv, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    with Loopback() as device:
        os.chmod(device.path, 0o666)

        def opens() -> bool:
            command = [*as_nobody, "/bin/sh", "-c", 'exec 3<>"$1"', "sh", device.path]
            return not subprocess.run(
                command, check=False, stderr=subprocess.DEVNULL, cwd="/"
            ).returncode

        assert opens()
        with subprocess.Popen(
            [sys.executable, "-c", CLIENT, device.path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        ) as client:  # fmt: skip
            assert client.stdout is not None
            assert client.stdout.readline() == b"open\n"
            assert not opens()
            client.send_signal(signal.SIGKILL)
        until(opens)


# time


def wakeups() -> int:
    (wire,) = [thread for thread in threading.enumerate() if thread.name == "loopback"]
    with open(f"/proc/self/task/{wire.native_id}/status") as status:
        return sum(int(line.split()[1]) for line in status if "ctxt_switches" in line)


def sleeps_through() -> bool:
    before = wakeups()
    time.sleep(0.1)
    return wakeups() == before


@pytest.mark.parametrize("is_open", [True, False])
def test_idle_means_no_wakeups(is_open: bool, until: Until, read_exactly: ReadAll) -> None:
    with Loopback() as device:
        fd = os.open(device.path, os.O_RDWR | os.O_NOCTTY)
        try:
            os.write(fd, b"x")
            read_exactly(fd, 1)
            if is_open:
                until(sleeps_through)
        finally:
            os.close(fd)
        if not is_open:
            until(sleeps_through)


def test_a_held_back_script_sleeps(until: Until, open_tty: OpenTty) -> None:
    steps = [Step("any", 1), Step("send", bytes(1 << 20)), Step("delay", 1), Step("send", b"x")]
    with Loopback(steps) as device:
        os.write(open_tty(device.path), b"x")
        until(lambda: device.stats().rx == 1 << 20)
        until(sleeps_through)


def test_1200_baud_is_not_faster_than_1200_baud(open_tty: OpenTty, read_exactly: ReadAll) -> None:
    with Loopback(paced=True) as device:
        fd = open_tty(device.path)
        set_speed(fd, termios.B1200)
        began = time.monotonic()
        os.write(fd, bytes(12))
        read_exactly(fd, 12)
        assert time.monotonic() - began >= 12 * 10 / 1200


def test_an_absurd_delay_is_slept_through(open_tty: OpenTty, read_exactly: ReadAll) -> None:
    with Loopback(parse_script('any 1\nsend b"x"\ndelay 99999999999999')) as device:
        fd = open_tty(device.path)
        os.write(fd, b"a")
        assert read_exactly(fd, 1) == b"x"
        os.write(fd, b"b")
        until_dead = in_thread(device.unplug)
        until_dead.join()
    assert device.stats().rx == 1


# what a pty has not


def test_modem_lines_and_line_errors_are_unsupported() -> None:
    wire = PtyWire(Uart(), Jumper())
    try:
        with pytest.raises(UnsupportedOnPty, match="no modem line cts") as line:
            wire.modem_line("cts")
        with pytest.raises(UnsupportedOnPty, match="no parity error") as error:
            wire.line_error("parity")
        assert line.value.errno == error.value.errno == errno.EOPNOTSUPP
    finally:
        wire.stop()
        wire.serve()
