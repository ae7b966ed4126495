# SPDX-License-Identifier: MIT
"""N_PPS with its sysfs played; on the real line discipline in tests/vm/test_pps.py."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.drivers.fake_lines import FakeLines
from udriver.drivers import pps
from udriver.drivers.pps import N_PPS, N_TTY, Pps
from udriver.drivers.usbserial import UsbSerial
from udriver.errors import Unsupported
from udriver.kernel.irq import IRQ_HANDLED, free_irq, request_irq
from udriver_hw.loopback import Loopback

Until = Callable[[Callable[[], object], str], None]


class Source:
    """/sys/class/pps, with a source of another tty and, while N_PPS is set, one of ours."""

    def __init__(self, sysfs: Path, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sysfs = sysfs
        self.device = device
        self.disciplines: list[int] = []
        self.counts = {"assert": 0, "clear": 0}
        self._make("pps0", "/dev/ttyS0")
        monkeypatch.setattr(pps, "_set_discipline", self._set)

    def _set(self, fd: int, number: int) -> None:
        self.disciplines.append(number)
        if number == N_PPS:
            self._make("pps1", self.device)

    def _make(self, name: str, device: str) -> None:
        folder = self.sysfs / name
        folder.mkdir()
        (folder / "path").write_text(f"{device}\n")
        for file in self.counts:
            (folder / file).write_text("0.000000000#0\n")

    def note(self, file: str) -> tuple[int, int]:
        """The kernel notes an edge; between which two moments of CLOCK_MONOTONIC."""
        self.counts[file] += 1
        before = time.monotonic_ns()
        seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        after = time.monotonic_ns()
        text = f"{seconds}.{nanoseconds:09d}#{self.counts[file]}\n"
        (self.sysfs / "pps1" / file).write_text(text)
        return before, after


@pytest.fixture
def device() -> Iterator[Loopback]:
    with Loopback() as loopback:
        yield loopback


@pytest.fixture
def source(tmp_path: Path, device: Loopback, monkeypatch: pytest.MonkeyPatch) -> Source:
    return Source(tmp_path, device.path, monkeypatch)


def test_its_time_is_the_kernel_s(source: Source, device: Loopback) -> None:
    with UsbSerial.open(device.path, irqchip="select") as driver:
        attached = Pps(driver.port, source.sysfs)
        assert attached.name == "pps1"
        assert attached.stamp(True) is None
        for rising, file in ((True, "assert"), (False, "clear")) * 3:
            before, after = source.note(file)
            assert attached.stamp(not rising) is None, "it was the other edge"
            stamp = attached.stamp(rising)
            assert stamp is not None
            at, error = stamp
            assert before - error <= at <= after + error
            assert attached.stamp(rising) is None, "told once"
        attached.close()
        assert source.disciplines == [N_PPS, N_TTY]


def test_a_source_that_went_tells_nothing(source: Source, device: Loopback) -> None:
    with UsbSerial.open(device.path, irqchip="select") as driver:
        attached = Pps(driver.port, source.sysfs)
        for file in ("assert", "clear", "path"):
            (source.sysfs / "pps1" / file).unlink()
        assert attached.stamp(True) is None


def test_without_a_source_the_tty_gets_its_discipline_back(
    source: Source, device: Loopback
) -> None:
    source.device = "/dev/ttyS1"
    with (
        UsbSerial.open(device.path, irqchip="select") as driver,
        pytest.raises(Unsupported, match="made no source"),
    ):
        Pps(driver.port, source.sysfs)
    assert source.disciplines == [N_PPS, N_TTY]


def test_a_kernel_without_n_pps(device: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, number: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(pps, "_set_discipline", refuse)
    with (
        UsbSerial.open(device.path, irqchip="select") as driver,
        pytest.raises(Unsupported, match=r"no N_PPS line discipline .*modprobe pps-ldisc"),
    ):
        Pps(driver.port)


def test_a_pty_has_no_dcd(device: Loopback) -> None:
    with (
        UsbSerial.open(device.path, irqchip="select") as driver,
        pytest.raises(Unsupported, match="no modem lines"),
    ):
        driver.modem.attach_pps()


def test_a_record_of_dcd_has_it_and_one_of_cts_has_not(
    source: Source, device: Loopback, monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    monkeypatch.setattr(Pps.__init__, "__defaults__", (source.sysfs,))
    with (
        FakeLines(monkeypatch) as lines,
        UsbSerial.open(device.path, irqchip="select") as driver,
    ):
        assert driver.modem.attach_pps() == driver.modem.attach_pps() == "pps1"
        for line in ("dcd", "cts"):
            request_irq(driver.line_irq(line), lambda irq, dev: IRQ_HANDLED, 0, line, lines)
        before, after = source.note("assert")
        lines.set(dcd=True)
        until(lambda: driver.modem.edges["dcd"] == 1, "the edge")
        lines.set(cts=True)
        until(lambda: driver.modem.edges["cts"] == 1, "the other line's")
        lines.set(dcd=False)  # and the kernel noted nothing
        until(lambda: driver.modem.edges["dcd"] == 2, "the next")
        noted, plain = driver.modem.events("dcd")
        (cts,) = driver.modem.events("cts")
        assert before - noted.error_ns <= noted.timestamp_ns <= after + noted.error_ns
        assert [record.edge for record in (noted, plain, cts)] == ["rising", "falling", "rising"]
        assert plain.timestamp_ns > cts.timestamp_ns > after
        for line in ("dcd", "cts"):
            free_irq(driver.line_irq(line), lines)
        assert source.disciplines == [N_PPS]
    assert source.disciplines == [N_PPS, N_TTY]
