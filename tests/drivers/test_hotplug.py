# SPDX-License-Identifier: MIT
"""Plug and unplug without udev: whose device it is, and events that fall into each other."""

from __future__ import annotations

import ctypes
import itertools
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from ctypes.util import find_library
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from tests.drivers.conftest import BarePty, cuts_at_each_place
from tests.drivers.test_open_fails import CHIPS, CtrlCInOpen, held, left
from tests.drivers.test_usbserial import first_few, in_child
from udriver import Timeout, UsbSerial
from udriver.drivers import hotplug
from udriver.drivers.bus import UsbTty
from udriver.drivers.hotplug import Follower, Identity, Monitor
from udriver.errors import NotASerialPort
from udriver_hw.loopback import Loopback

NETLINK_KOBJECT_UEVENT = 15  # linux/netlink.h
UDEV_GROUP = 2  # libudev's, beside the kernel's own
ADAPTER = UsbTty("/dev/ttyUSB0", "0403", "6001", "A1", "1-1")


class Udev:
    """Stands in for Monitor; the test sends the events."""

    add: Callable[[UsbTty], None]
    remove: Callable[[str], None]

    def monitor(self, on_add: Callable[[UsbTty], None], on_remove: Callable[[str], None]) -> Udev:
        self.add, self.remove = on_add, on_remove
        return self

    def start(self) -> None:
        """Nothing to start."""

    def stop(self) -> None:
        """Nothing to end."""


@pytest.fixture
def udev(monkeypatch: pytest.MonkeyPatch) -> Udev:
    udev = Udev()
    monkeypatch.setattr(hotplug, "Monitor", udev.monitor)
    monkeypatch.setattr(hotplug, "usb_ttys", list)
    return udev


@pytest.fixture
def tty() -> Iterator[UsbTty]:
    with Loopback("jumper") as device:
        yield replace(ADAPTER, device=device.path)


def meanwhile(
    monkeypatch: pytest.MonkeyPatch, event: Callable[[], None]
) -> tuple[list[str], threading.Thread]:
    """Let the event come from another thread when the first opening is nearly done."""
    opened: list[str] = []
    really_open = UsbSerial.open
    thread = threading.Thread(target=event)

    def open_slowly(path: str, **options: Any) -> UsbSerial:
        opened.append(path)
        driver = really_open(path, **options)
        if len(opened) == 1:
            thread.start()
            thread.join(0.3)  # it does not end if it waits for us, as it should
        return driver

    monkeypatch.setattr(UsbSerial, "open", open_slowly)
    return opened, thread


def test_a_remove_during_the_first_probe_is_not_lost(
    udev: Udev, tty: UsbTty, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, thread = meanwhile(monkeypatch, lambda: udev.remove(tty.device))
    with Follower(tty) as follower:
        thread.join()
        with pytest.raises(Timeout):
            follower.driver(timeout=0.01)
        udev.add(tty)
        assert follower.driver(timeout=1).transact(b"x", 1, timeout=5) == b"x"
        assert follower.generation == 2


def test_an_add_during_the_first_probe_does_not_open_it_twice(
    udev: Udev, tty: UsbTty, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, thread = meanwhile(monkeypatch, lambda: udev.add(tty))
    with Follower(tty) as follower:
        thread.join()
        assert follower.probe_error is None
        assert (opened, follower.generation) == ([tty.device], 1)


def test_a_plug_whose_remove_was_lost_is_a_new_generation(udev: Udev, tty: UsbTty) -> None:
    old = BarePty()
    with Follower(replace(tty, device=old.path)) as follower:
        udev.add(tty)  # of a clone, perhaps: the one we have is there
        assert follower.generation == 1
        old.unplug()
        udev.add(tty)
        assert follower.generation == 2
        assert follower.driver(timeout=1).transact(b"x", 1, timeout=5) == b"x"


@pytest.mark.skipif(find_library("udev") is None, reason="needs libudev")
def test_events_that_the_kernel_threw_away_are_made_up_for(
    monkeypatch: pytest.MonkeyPatch, until: Callable[[Callable[[], object], str], None]
) -> None:
    monkeypatch.setattr(hotplug, "usb_ttys", lambda: [ADAPTER])
    told: list[UsbTty] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_KOBJECT_UEVENT) as kernel:
        try:
            kernel.connect((0, UDEV_GROUP))
        except PermissionError:
            pytest.skip("needs CAP_NET_ADMIN")
        monitor = Monitor(told.append, print)
        monitor._monitor.set_receive_buffer_size(2048)
        monitor.start()
        send = ctypes.PyDLL(None).send  # which keeps the GIL, and so nobody reads meanwhile
        try:
            for _ in range(2):  # it goes on listening
                told.clear()
                for _ in range(200):
                    send(kernel.fileno(), bytes(500), 500, 0)
                until(lambda: ADAPTER in told, "who is there is told of")
        finally:
            monitor.stop()


def test_after_lost_events_what_is_older_is_left_out_and_who_is_gone_is_parted_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel keeps what was queued before it began to throw away."""
    monkeypatch.setattr(hotplug, "usb_ttys", lambda: [ADAPTER])
    order: list[Any] = []
    monitor = Monitor(order.append, order.append)
    old = SimpleNamespace(action="remove", device_node=ADAPTER.device)
    queue = iter([OSError(), old, None, None])

    def poll(timeout: float) -> Any:
        event = next(queue)
        if isinstance(event, OSError):
            raise event
        return event

    monitor._monitor = SimpleNamespace(poll=poll, fileno=monitor._monitor.fileno)
    monitor._ready([])
    assert order == [None, ADAPTER]
    monitor.stop()


def test_lost_events_part_with_a_device_that_is_gone_and_no_other(udev: Udev, tty: UsbTty) -> None:
    old = BarePty()
    with Follower(replace(tty, device=old.path)) as follower:
        udev.remove(None)  # type: ignore[arg-type]
        assert follower.driver(timeout=1)
        old.unplug()
        udev.remove(None)  # type: ignore[arg-type]
        with pytest.raises(Timeout):
            follower.driver(timeout=0.01)


def test_two_threads_close(udev: Udev, tty: UsbTty, other: Any) -> None:
    for _ in range(20):
        follower = Follower(tty, irqchip="select")
        assert [each.end() for each in [other(follower.close) for _ in range(3)]] == [None] * 3


def test_what_is_no_serial_port_is_told_to_who_waits(udev: Udev, tty: UsbTty) -> None:
    with Follower(tty) as follower:
        udev.remove(tty.device)
        udev.add(replace(tty, device="/dev/null"))
        with pytest.raises(Timeout) as caught:
            follower.driver(timeout=0.01)
        assert isinstance(caught.value.__cause__, NotASerialPort)
        udev.add(tty)
        follower.driver(timeout=1)


@pytest.mark.parametrize("serial", ["A1", ""])
def test_another_serial_in_the_place_of_a_clone_is_another_device(
    monkeypatch: pytest.MonkeyPatch, serial: str
) -> None:
    mine = replace(ADAPTER, serial=serial)
    clone = replace(mine, device="/dev/ttyUSB1", topology="1-2")
    monkeypatch.setattr(hotplug, "usb_ttys", lambda: [mine, clone])
    identity = Identity.of(mine)
    assert identity.fits(replace(mine, device="/dev/ttyUSB7"))
    assert not identity.fits(clone)
    assert not identity.fits(replace(mine, serial="B2"))


def test_a_serial_of_its_own_is_known_anywhere_and_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hotplug, "usb_ttys", lambda: [ADAPTER])
    identity = Identity.of(ADAPTER)
    assert identity.fits(replace(ADAPTER, topology="3-1.4"))
    assert not identity.fits(replace(ADAPTER, serial="B2"))
    assert not identity.fits(replace(ADAPTER, interface="01"))


def test_what_a_callback_raises_is_reported_and_the_next_event_is_handled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reported: list[object] = []
    seen: list[str] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: reported.append(args.exc_type))
    monitor = object.__new__(Monitor)  # without a socket of udev's

    def on_remove(node: str) -> None:
        seen.append(node)
        raise ZeroDivisionError

    monitor._on_remove = on_remove
    for node in ("/dev/ttyUSB0", "/dev/ttyUSB1"):
        monitor._dispatch(SimpleNamespace(action="remove", device_node=node))
    assert seen == ["/dev/ttyUSB0", "/dev/ttyUSB1"]
    assert reported == [ZeroDivisionError] * 2


def left_by_any_cut(tty: UsbTty, irq: str, of_close: bool) -> Iterator[str]:
    """Where a Ctrl-C while a follower is made or closed left what a second close() did not end."""
    Follower(tty, irqchip=irq).close()
    before = held()
    for nth in itertools.count(1):
        followers = [Follower(tty, irqchip=irq)] if of_close else []
        finger = CtrlCInOpen(nth)
        try:
            sys.settrace(finger)
            if of_close:
                followers[0].close()
            else:
                followers.append(Follower(tty, irqchip=irq))
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        while followers:
            followers.pop().close()
        if why := left(before):
            yield f"place {nth}, in {finger.where}: {why}"
            return
        if not finger.where:
            break
    assert nth > 30


@cuts_at_each_place
@pytest.mark.parametrize("of_close", [False, True], ids=["open", "close"])
@pytest.mark.parametrize("irq", CHIPS)
def test_ctrl_c_anywhere_in_a_follower_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tty: UsbTty, irq: str, of_close: bool
) -> None:
    try:
        import pyudev

        pyudev.Context()
    except ImportError as exc:
        pytest.skip(str(exc))
    monkeypatch.setattr(hotplug, "usb_ttys", list)
    assert in_child(lambda: first_few(left_by_any_cut(tty, irq, of_close))) == ""
