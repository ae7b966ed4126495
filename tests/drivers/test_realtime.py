# SPDX-License-Identifier: MIT
"""``realtime=``: each step takes or says why not, and after the last close nothing of it is left."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.drivers.test_usbserial import in_child
from udriver import UsbSerial
from udriver.drivers import realtime
from udriver.drivers.realtime import Realtime, Recipe, Step
from udriver_hw.loopback import Loopback

NAMES = ["switch interval", "SCHED_FIFO", "affinity", "cpu_dma_latency"]


def taken(driver: UsbSerial) -> dict[str, Step]:
    assert driver.realtime is not None
    return {step.name: step for step in driver.realtime.steps}


def latency_files() -> int:
    found = 0
    for fd in Path("/proc/self/fd").iterdir():
        try:
            found += os.readlink(fd) == realtime.DMA_LATENCY
        except FileNotFoundError:
            pass  # the listing's own
    return found


def irq_thread(driver: UsbSerial) -> int:
    thread = driver.chip.thread()
    assert thread is not None
    assert thread.native_id is not None
    return thread.native_id


def test_not_asked_for_is_not_done() -> None:
    before = sys.getswitchinterval()
    with Loopback() as device, UsbSerial.open(device.path, irqchip="select") as driver:
        assert driver.realtime is None
        assert sys.getswitchinterval() == before
        assert os.sched_getscheduler(irq_thread(driver)) == os.sched_getscheduler(0)
        assert os.sched_getaffinity(irq_thread(driver)) == os.sched_getaffinity(0)
        assert latency_files() == 0


def test_what_is_permitted_here_takes_and_is_undone() -> None:
    before = sys.getswitchinterval()
    main = os.sched_getscheduler(0), os.sched_getaffinity(0)
    with Loopback() as device, UsbSerial.open(device.path, irqchip="select") as other:
        tid = irq_thread(other)  # the thread stays when the driver below goes
        with (
            Loopback() as second,
            UsbSerial.open(second.path, irqchip="select", realtime=True) as driver,
        ):
            steps = taken(driver)
            assert list(steps) == NAMES
            assert steps["switch interval"].taken
            assert sys.getswitchinterval() == pytest.approx(Recipe().switch_interval)
            assert (os.sched_getscheduler(tid) == os.SCHED_FIFO) is steps["SCHED_FIFO"].taken
            assert steps["affinity"].taken
            assert os.sched_getaffinity(tid) == {max(main[1])}
            assert latency_files() == steps["cpu_dma_latency"].taken
            assert all(step.what for step in steps.values())
            assert driver.transact(b"ping", 4, timeout=5) == b"ping"
        assert sys.getswitchinterval() == before
        assert (os.sched_getscheduler(tid), os.sched_getaffinity(tid)) == main
        assert (os.sched_getscheduler(0), os.sched_getaffinity(0)) == main
        assert latency_files() == 0


def test_a_refusal_is_named_and_the_port_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    before = sys.getswitchinterval()
    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    monkeypatch.setattr(realtime, "DMA_LATENCY", "/nonexistent/cpu_dma_latency")
    with (
        Loopback() as device,
        UsbSerial.open(device.path, irqchip="select", realtime=True) as driver,
    ):
        steps = taken(driver)
        assert [name for name in NAMES if steps[name].taken] == ["switch interval"]
        assert steps["SCHED_FIFO"].what == steps["affinity"].what == "Operation not permitted"
        assert steps["cpu_dma_latency"].what == "No such file or directory"
        assert "SCHED_FIFO: not taken: Operation not permitted" in str(driver.realtime)
        assert driver.transact(b"ping", 4, timeout=5) == b"ping"
    assert sys.getswitchinterval() == before


@pytest.mark.parametrize("chip", ["signal", "inline"])
def test_a_chip_without_a_thread_leaves_the_callers_alone(chip: str) -> None:
    main = os.sched_getscheduler(0), os.sched_getaffinity(0)
    with Loopback() as device, UsbSerial.open(device.path, irqchip=chip, realtime=True) as driver:
        steps = taken(driver)
        assert steps["switch interval"].taken
        for name in ("SCHED_FIFO", "affinity"):
            assert not steps[name].taken
            assert "no thread of its own" in steps[name].what
        assert (os.sched_getscheduler(0), os.sched_getaffinity(0)) == main


def test_the_last_port_undoes_it_in_whichever_order_they_close() -> None:
    before = sys.getswitchinterval()
    first = Realtime(Recipe(priority=None, cpu=None, switch_interval=1e-3), None)
    second = Realtime(Recipe(priority=None, cpu=None, switch_interval=1e-4), None)
    assert sys.getswitchinterval() == pytest.approx(1e-3)
    assert second.steps[0] == Step("switch interval", True, "1000 us")  # what is, not what it asked
    first.stop()
    first.stop()
    assert sys.getswitchinterval() == pytest.approx(1e-3)
    second.stop()
    assert sys.getswitchinterval() == before
    assert latency_files() == 0


def test_a_step_that_is_left_out_is_said_to_be() -> None:
    nothing = Realtime(Recipe(None, None, None, None), None)
    assert [step.what for step in nothing.steps] == ["not asked for"] * 4


def test_a_child_that_was_forked_while_a_step_was_taken_takes_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taking, forked = threading.Event(), threading.Event()
    interval = Recipe(1e-3, None, None, None)

    def slow(*_: object) -> str:
        taking.set()
        assert forked.wait(60)
        return "slowly"

    with monkeypatch.context() as patch:
        patch.setattr(realtime, "_switch_interval", slow)
        thread = threading.Thread(target=lambda: Realtime(interval, None).stop())
        thread.start()
        assert taking.wait(20)
    said = in_child(lambda: str(Realtime(interval, None).steps[0]))
    forked.set()
    thread.join()
    assert said == str(Step("switch interval", True, "1000 us"))


@pytest.mark.slow
def test_a_child_has_none_of_it_and_its_parent_keeps_it() -> None:
    program = """
import os, sys, threading
from udriver import UsbSerial
from udriver_hw.loopback import Loopback
before = sys.getswitchinterval()
def state(tid):
    files = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    return sys.getswitchinterval(), "/dev/cpu_dma_latency" in files, os.sched_getaffinity(tid)
with Loopback() as device, UsbSerial.open(device.path, irqchip="select", realtime=True) as driver:
    tid = driver.chip.thread().native_id
    now = state(tid)
    assert now[0] != before
    child = os.fork()
    if not child:
        os._exit(0 if state(tid)[:2] == (before, False) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert state(tid) == now
"""
    command = [sys.executable, "-W", "ignore", "-c", program]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sys.path))}
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=50
    )
    assert result.returncode == 0, result.stderr
