# SPDX-License-Identifier: MIT
"""Faults on a pty as the real driver sees them: each as what it is, and no byte unaccounted for."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from udriver import UsbSerial
from udriver.errors import DeviceGone, Timeout
from udriver.traffic import Tally, send_frames
from udriver_hw import loopback
from udriver_hw.chips.firmware import Jumper, parse_script
from udriver_hw.chips.uart import Uart
from udriver_hw.faults import Faults, parse_fault, parse_faults
from udriver_hw.faulty_pty import FaultyFirmware
from udriver_hw.loopback import Loopback
from udriver_hw.spawned import spawn
from udriver_hw.wire_pty import PtyWire, UnsupportedOnPty

DEADLINE = 20.0  # s; only a hang takes that long
SOON = 0.1  # s; what does not come in this time does not come
FRAME = bytes(range(1, 11))


@contextmanager
def driven(
    text: str, irqchip: str = "inline", *, seed: int = 0, paced: bool = False
) -> Iterator[tuple[UsbSerial, Faults, Loopback]]:
    """A driver on a jumper with these faults."""
    faults = Faults(parse_faults(text), seed)
    with (
        Loopback(faults=faults, paced=paced) as device,
        UsbSerial.open(device.path, irqchip=irqchip) as driver,
    ):
        yield driver, faults, device


def left(driver: UsbSerial) -> bytes:
    """What came and was not read."""
    return driver.read(timeout=0) if driver.in_waiting else b""


def test_a_drop_is_a_short_answer_and_a_timeout(udriver_irq: str) -> None:
    with driven("drop 3 at byte 2", udriver_irq) as (driver, faults, _):
        driver.write(FRAME)
        assert driver.readexactly(7, DEADLINE) == FRAME[:2] + FRAME[5:]
        with pytest.raises(Timeout):
            driver.read(1, SOON)
        assert driver.stats().received == len(FRAME) - faults.counts["drop 3 at byte 2"]
        assert driver.transact(FRAME, 10, DEADLINE) == FRAME  # and it was that once


def test_a_drop_on_the_way_out_never_reaches_the_far_end() -> None:
    with driven("drop tx every 4 bytes") as (driver, faults, device):
        driver.write(FRAME)
        assert driver.readexactly(8, DEADLINE) == FRAME[:4] + FRAME[5:8] + FRAME[9:]
        assert [one.way for one in faults.log] == ["tx", "tx"]
        assert device.stats().rx == 8


def test_garbled_bytes_are_wrong_where_the_log_says() -> None:
    with driven("garble 1 in 3 bytes", seed=5) as (driver, faults, _):
        got = driver.transact(FRAME * 10, 100, DEADLINE)
        wrong = [at for at in range(100) if got[at] != (FRAME * 10)[at]]
        assert wrong
        assert wrong == [one.position for one in faults.log]


def test_a_delay_is_late_and_loses_nothing(udriver_irq: str) -> None:
    with driven("delay 60 at byte 4", udriver_irq) as (driver, _, _device):
        began = time.monotonic_ns()
        driver.write(FRAME)
        assert driver.readexactly(4, DEADLINE) == FRAME[:4]
        assert driver.readexactly(6, DEADLINE) == FRAME[4:]
        assert time.monotonic_ns() - began > 60_000_000


def test_a_device_that_never_answers_is_a_timeout_each_time() -> None:
    with driven("never answer at byte 10") as (driver, faults, _):
        assert driver.transact(FRAME, 10, DEADLINE) == FRAME
        for _ in range(2):
            with pytest.raises(Timeout):
                driver.transact(FRAME, 10, SOON)
        assert driver.stats().received == 10
        assert len(faults.log) == 1


def test_an_unplug_gives_exactly_the_bytes_before_it(udriver_irq: str) -> None:
    with driven("unplug at byte 5", udriver_irq) as (driver, faults, _):
        for byte in FRAME[:5]:
            assert driver.transact(bytes([byte]), 1, DEADLINE) == bytes([byte])
        with pytest.raises(DeviceGone):
            driver.transact(b"x", 1, DEADLINE)
        assert driver.gone
        assert driver.stats().received == 5
        assert [one.position for one in faults.log] == [5]


def test_a_delay_in_front_of_an_unplug_lets_what_came_before_arrive() -> None:
    with driven("delay 200 at byte 5\nunplug at byte 5") as (driver, _, _device):
        driver.write(FRAME)
        assert driver.readexactly(5, DEADLINE) == FRAME[:5]
        with pytest.raises(DeviceGone):
            driver.read(1, DEADLINE)


def test_an_unplug_at_a_time_needs_no_byte() -> None:
    with driven("unplug at 300 ms") as (driver, _, _device), pytest.raises(DeviceGone):
        driver.read(1, DEADLINE)


def test_an_unplug_on_the_way_out_ends_a_writer() -> None:
    with driven("unplug tx at byte 1000", paced=True) as (driver, faults, _):
        with pytest.raises(DeviceGone):
            driver.write(bytes(1 << 20), DEADLINE)
        assert faults.log[0].position == 1000


def test_what_the_device_says_first_goes_through_the_faults_too() -> None:
    with driven("drop at byte 1") as (driver, _, device):
        device.push(b"abc")
        assert driver.readexactly(2, DEADLINE) == b"ac"


def test_a_paced_line_and_a_script_have_faults(udriver_irq: str) -> None:
    faults = Faults(parse_faults("drop at byte 1"))
    script = parse_script('any 1\nsend b"abc"')
    with (
        Loopback(script, faults=faults, paced=True) as device,
        UsbSerial.open(device.path, irqchip=udriver_irq) as driver,
    ):
        assert driver.transact(b"x", 2, DEADLINE) == b"ac"


# the check of `udriver run` counts what the faults did


def test_wrong_frames_are_counted() -> None:
    with driven("garble every 200 bytes") as (driver, faults, _):
        tally = Tally()
        send_frames(driver, tally, 64, lambda t: t.frames < 40, DEADLINE, lambda t: None)
        hit = {one.position // 64 for one in faults.log}
        assert (tally.errors, tally.lost, tally.frames) == (len(hit), 0, 40)
        assert len(hit) == 12


def test_lost_bytes_are_counted_and_nothing_else_is() -> None:
    with driven("drop 5 at byte 650") as (driver, _, _device):
        tally = Tally()
        with pytest.raises(Timeout):
            send_frames(driver, tally, 64, lambda t: t.frames < 40, 0.2, lambda t: None)
        assert (tally.frames, tally.lost) == (11, 5)
        assert tally.bytes + tally.lost == 11 * 64


def test_an_unplug_in_a_frame_leaves_no_byte_uncounted() -> None:
    with driven("unplug at byte 650") as (driver, faults, _):
        tally = Tally()
        with pytest.raises(DeviceGone):
            send_frames(driver, tally, 64, lambda t: t.frames < 40, DEADLINE, lambda t: None)
        assert tally.frames == 11
        assert tally.bytes + tally.lost == 11 * 64
        assert 640 <= tally.bytes <= faults.log[0].position == 650
        assert tally.errors == 0


# what a pty cannot do


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("parity at byte 3", "no parity error"),
        ("framing at byte 3", "no framing error"),
        ("overrun at byte 3", "no overrun error"),
        ("break at byte 3", "no break"),
        ("break storm 5 at 9 ms", "no break"),
        ("line dsr flip at 3 ms", "no modem line dsr"),
        ("stall at urb 3", "no stall"),
        ("unplug at urb 3", "no URBs and requests"),
        ("never answer at request 3", "no URBs and requests"),
    ],
)
def test_a_pty_does_not_pretend(text: str, what: str) -> None:
    with pytest.raises(UnsupportedOnPty, match=what) as error:
        Loopback(faults=Faults([parse_fault("drop at byte 1"), parse_fault(text, "some place")]))
    assert error.value.errno == errno.EOPNOTSUPP
    assert "some place: " in str(error.value)


# the commands


@pytest.mark.slow
def test_the_same_seed_is_the_same_log_on_a_real_pty(tmp_path: Path) -> None:
    said = []
    for run in range(2):
        log = tmp_path / f"{run}.jsonl"
        options = ["--fault", "garble 1 in 50 bytes", "--seed", "7", "--fault-log", str(log)]
        with spawn(*options) as device, UsbSerial.open(device.path) as driver:
            driver.transact(bytes(1000), 1000, DEADLINE)
        entries = [json.loads(line) for line in log.read_text().splitlines()]
        said.append([(one["position"], one["what"]) for one in entries])
    assert said[0] == said[1]
    assert len(said[0]) > 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "status", "counts"),
    [
        ("garble every 100 bytes", 1, {"errors": 6, "lost": 0, "frames": 10}),
        ("drop 3 at byte 100", 8, {"errors": 1, "lost": 3, "frames": 2}),
        ("unplug at byte 128", 6, {"errors": 0, "lost": 64, "frames": 3}),
    ],
)
def test_udriver_run_says_what_happened(fault: str, status: int, counts: dict[str, int]) -> None:
    with spawn("--fault", fault) as device:
        done = subprocess.run(
            [sys.executable, "-m", "udriver", "run", device.path, "--json",
             "--frames", "10", "--timeout", "1"],
            capture_output=True, text=True, check=False, timeout=50,
        )  # fmt: skip
    report = json.loads(done.stdout)
    assert {name: report[name] for name in counts} == counts
    assert done.returncode == status, done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["--fault", "explode at byte 1"], 2, "loopback: --fault 'explode at byte 1': 'explode' is"),
        (["--fault", "stall at urb 1"], 7, "loopback: --fault 'stall at urb 1': a pty has no stall"),
        (["--faults", "FILE"], 2, "FILE, line 2: 'nonsense' says not what happens"),
        (["--faults", "MISSING"], 2, "No such file"),
        (["--faults", "BINARY"], 2, "BINARY is not a text file"),
        (["--fault-log", "."], 2, "Is a directory"),
    ],
)  # fmt: skip
def test_a_bad_fault_is_one_sentence_with_its_place(
    arguments: list[str], status: int, sentence: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("FILE").write_text("drop at byte 1\nnonsense\n")
    Path("BINARY").write_bytes(b"\xff\xfe")
    assert loopback.main(arguments) == status
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1


def test_a_wire_with_faults_sleeps_between_them() -> None:
    faults = Faults(parse_faults("unplug at 3600000 ms\ndelay 50 at byte 0\ndelay 50 tx at byte 1"))
    firmware = FaultyFirmware(Jumper(), faults)
    wire = PtyWire(Uart(), firmware)
    thread = threading.Thread(target=wire.serve)
    thread.start()
    with ExitStack() as stack:
        stack.callback(thread.join)
        stack.callback(wire.stop)
        fd = os.open(wire.path, os.O_RDWR | os.O_NOCTTY)
        stack.callback(os.close, fd)
        os.write(fd, b"ab")
        assert os.read(fd, 1) == b"a"
        assert os.read(fd, 1) == b"b"
        before = _switches(thread)
        time.sleep(0.2)
        assert _switches(thread) - before <= 1
    assert firmware.rx.came == firmware.rx.went == firmware.tx.went == 2


def _switches(thread: threading.Thread) -> int:
    with open(f"/proc/self/task/{thread.native_id}/status") as status:
        return sum(int(line.split()[1]) for line in status if "ctxt_switches" in line)
