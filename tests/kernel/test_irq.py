# SPDX-License-Identifier: MIT
"""The IRQ core on software lines: no chip, no device, the test raises the line itself."""

from __future__ import annotations

import _thread
import dis
import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from udriver.errors import ContextError
from udriver.kernel import irqdesc
from udriver.kernel.completion import Completion
from udriver.kernel.context import in_hardirq
from udriver.kernel.irq import (
    IRQ_HANDLED,
    IRQ_NONE,
    IRQ_WAKE_THREAD,
    IRQF_NO_AUTOEN,
    IRQF_ONESHOT,
    IRQF_SHARED,
    IRQF_TRIGGER_FALLING,
    IRQF_TRIGGER_RISING,
    IrqReturn,
    disable_irq,
    disable_irq_nosync,
    enable_irq,
    free_irq,
    generic_handle_irq,
    irq_alloc_desc,
    irq_free_desc,
    irq_stat,
    request_irq,
    request_threaded_irq,
    synchronize_hardirq,
    synchronize_irq,
)

Until = Callable[[Callable[[], object], str], None]
LONG = 20.0  # seconds that only a bug lets pass


class Chip:
    """A chip that only writes down what the core asks of it."""

    name = "paper"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def irq_mask(self, irq: int) -> None:
        self.asked.append("mask")

    def irq_unmask(self, irq: int) -> None:
        self.asked.append("unmask")


class Gate:
    """A handler that stays inside until the test lets it out."""

    def __init__(self, log: list[str] | None = None, result: IrqReturn = IRQ_HANDLED) -> None:
        self.entered = threading.Event()
        self.leave = threading.Event()
        self.log = [] if log is None else log
        self.result = result

    def __call__(self, irq: int, dev_id: object) -> IrqReturn:
        self.entered.set()
        assert self.leave.wait(LONG)
        self.log.append("handler ends")
        return self.result


class Cpu(threading.Thread):
    """Another CPU: runs a function, keeps what came of it."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        super().__init__(name="cpu1")
        self._call = lambda: function(*args)
        self.result: Any = "still running"
        self.start()

    def run(self) -> None:
        try:
            self.result = self._call()
        except BaseException as exc:  # noqa: BLE001 - the test looks at it
            self.result = exc

    def end(self) -> Any:
        self.join(LONG)
        assert not self.is_alive()
        return self.result


@pytest.fixture
def chip() -> Chip:
    return Chip()


@pytest.fixture
def irq(chip: Chip) -> Iterator[int]:
    """A line; the test frees its handlers, or this does."""
    number = irq_alloc_desc("line", chip)
    yield number
    for action in irqdesc.irq_to_desc(number).actions:
        free_irq(number, action.dev_id)
    irq_free_desc(number)


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What went to sys.unraisablehook: the exception and the sentence about it."""
    seen: list[str] = []

    def hook(args: Any) -> None:
        seen.append(f"{args.exc_value!r}: {args.err_msg}")

    monkeypatch.setattr(sys, "unraisablehook", hook)
    return seen


def counting(log: list[str], name: str, result: IrqReturn = IRQ_HANDLED) -> Any:
    def handler(irq: int, dev_id: object) -> IrqReturn:
        log.append(name)
        return result

    return handler


def somebody_waits_for(irq: int) -> Callable[[], bool]:
    """Whether a synchronize or free is asleep until the line is idle."""
    desc = irqdesc.irq_to_desc(irq)
    return lambda: any(len(waiter.wait_queue) for waiter in tuple(desc.idle_waiters))


# request and free


def test_a_handler_gets_the_number_and_the_dev_id(irq: int) -> None:
    dev, seen = object(), []
    request_irq(irq, lambda *args: seen.append(args) or IRQ_HANDLED, 0, "h", dev)
    generic_handle_irq(irq)
    assert seen == [(irq, dev)]


def test_request_unmasks_and_free_masks(irq: int, chip: Chip) -> None:
    request_irq(irq, counting([], "h"), 0, "h", 1)
    assert chip.asked == ["unmask"]
    assert free_irq(irq, 1) == "h"
    assert chip.asked == ["unmask", "mask"]


def test_a_freed_handler_runs_no_more(irq: int) -> None:
    log: list[str] = []
    request_irq(irq, counting(log, "h"), 0, "h", 1)
    free_irq(irq, 1)
    generic_handle_irq(irq)
    assert log == []


@pytest.mark.parametrize(
    ("handler", "thread_fn", "flags", "dev_id"),
    [
        (None, None, 0, 1),
        (None, counting([], "t"), 0, 1),
        (counting([], "h"), None, IRQF_SHARED, None),
        (counting([], "h"), None, IRQF_SHARED | IRQF_NO_AUTOEN, 1),
    ],
    ids=["neither half", "thread without ONESHOT", "shared without dev_id", "shared NO_AUTOEN"],
)
def test_einval_is_a_value_error(
    irq: int, handler: Any, thread_fn: Any, flags: int, dev_id: Any
) -> None:
    with pytest.raises(ValueError, match=f"irq {irq} "):
        request_threaded_irq(irq, handler, thread_fn, flags, "h", dev_id)
    assert irq_stat(irq).name == "line"


def test_a_line_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="there is no irq -1"):
        request_irq(-1, counting([], "h"), 0, "h", 1)


@pytest.mark.udriver_allow("I4")  # its handlers have no device to ask whose interrupt it is
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (0, 0),
        (IRQF_SHARED, 0),
        (0, IRQF_SHARED),
        (IRQF_SHARED, IRQF_SHARED | IRQF_ONESHOT),
        (IRQF_SHARED | IRQF_ONESHOT, IRQF_SHARED),
        (IRQF_SHARED | IRQF_TRIGGER_RISING, IRQF_SHARED | IRQF_TRIGGER_FALLING),
    ],
)
def test_a_line_is_shared_only_if_both_ask_alike(irq: int, first: int, second: int) -> None:
    request_irq(irq, counting([], "a"), first, "first", 1)
    with pytest.raises(OSError, match="belongs to first") as caught:
        request_irq(irq, counting([], "b"), second, "second", 2)
    assert caught.value.errno == 16
    assert irq_stat(irq).name == "first"


class BusChip(Chip):
    """A chip with the three operations that a chip need not have."""

    refuses = ""

    def _note(self, what: str) -> None:
        self.asked.append(what)
        if what == self.refuses:
            raise ValueError(what)

    def irq_request_resources(self, irq: int) -> None:
        self._note("request_resources")

    def irq_release_resources(self, irq: int) -> None:
        self._note("release_resources")

    def irq_set_type(self, irq: int, flow_type: int) -> None:
        self._note(f"set_type {flow_type}")


@pytest.fixture
def bus_chip(chip: Chip) -> BusChip:
    return BusChip()


@pytest.fixture
def bus_irq(bus_chip: BusChip) -> Iterator[int]:
    number = irq_alloc_desc("bus line", bus_chip)
    yield number
    irq_free_desc(number)


@pytest.mark.udriver_allow("I4")
def test_resources_are_held_from_the_first_handler_to_the_last(
    bus_chip: BusChip, bus_irq: int
) -> None:
    flags = IRQF_SHARED | IRQF_TRIGGER_RISING
    request_irq(bus_irq, counting([], "a"), flags, "a", 1)
    request_irq(bus_irq, counting([], "b"), flags, "b", 2)
    request_irq(bus_irq, counting([], "c"), IRQF_SHARED, "c", 3)  # takes the trigger it finds
    for dev_id in (2, 1, 3):
        free_irq(bus_irq, dev_id)
    first = ["request_resources", "set_type 1", "unmask"]
    assert bus_chip.asked == [*first, "unmask", "unmask", "mask", "release_resources"]


@pytest.mark.parametrize(
    ("refuses", "asked"),
    [
        ("request_resources", ["request_resources"]),
        ("set_type 2", ["request_resources", "set_type 2", "release_resources"]),
    ],
)
def test_a_chip_that_refuses_leaves_a_line_as_it_was(
    bus_chip: BusChip, bus_irq: int, refuses: str, asked: list[str]
) -> None:
    bus_chip.refuses = refuses
    with pytest.raises(ValueError, match=refuses):
        request_irq(bus_irq, counting([], "h"), IRQF_TRIGGER_FALLING, "h", 1)
    assert bus_chip.asked == asked
    bus_chip.refuses = ""
    request_irq(bus_irq, counting([], "h"), 0, "h", 1)
    free_irq(bus_irq, 1)
    assert bus_chip.asked[len(asked) :] == [
        "request_resources", "unmask", "mask", "release_resources",
    ]  # fmt: skip


def test_a_chip_that_cannot_unmask_leaves_no_handler(bus_chip: BusChip, bus_irq: int) -> None:
    def refuse(irq: int) -> None:
        raise PermissionError("an fd that epoll does not take")

    bus_chip.irq_unmask = refuse  # type: ignore[method-assign]
    with pytest.raises(PermissionError):
        request_irq(bus_irq, counting([], "h"), 0, "h", 1)
    assert bus_chip.asked == ["request_resources", "mask", "release_resources"]
    assert irqdesc.irq_to_desc(bus_irq).actions == ()


def test_ctrl_c_right_behind_a_chip_that_gave_its_resources_leaves_none(
    monkeypatch: pytest.MonkeyPatch, bus_chip: BusChip
) -> None:
    """The number of the line is one of a signal, so that the chip can be one call into C."""
    monkeypatch.setattr(irqdesc, "_numbers", itertools.count(signal.SIGWINCH))
    irq = irq_alloc_desc("line", bus_chip)
    bus_chip.irq_request_resources = _thread.interrupt_main  # type: ignore[method-assign]
    found = signal.signal(irq, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            request_irq(irq, counting([], "h"), 0, "h", 1)
    finally:
        signal.signal(irq, found)
        irq_free_desc(irq)
    assert bus_chip.asked == ["release_resources"]


@pytest.mark.parametrize("begun", [False, True])
def test_ctrl_c_while_the_thread_starts_leaves_neither(
    monkeypatch: pytest.MonkeyPatch, irq: int, begun: bool
) -> None:
    start = threading.Thread.start

    def cut(thread: threading.Thread) -> None:
        if begun:
            start(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", cut)
    with pytest.raises(KeyboardInterrupt):
        request_threaded_irq(irq, None, counting([], "t"), IRQF_ONESHOT, "dev0", 1)
    assert irqdesc.irq_to_desc(irq).actions == ()
    assert not any(thread.name.startswith(f"irq/{irq}-") for thread in threading.enumerate())


def test_a_request_that_fails_leaves_a_disabled_line_disabled(bus_irq: int, chip: Chip) -> None:
    desc = irqdesc.irq_to_desc(bus_irq)
    disable_irq_nosync(bus_irq)
    assert isinstance(desc.chip, BusChip)
    desc.chip.refuses = "request_resources"
    with pytest.raises(ValueError, match="request_resources"):
        request_irq(bus_irq, counting([], "h"), 0, "h", 1)
    assert irq_stat(bus_irq).depth == 1


@pytest.mark.parametrize("when", ["request_resources", "release_resources"])
def test_a_chip_that_is_asked_keeps_nobody_from_another_line(irq: int, when: str) -> None:
    """It may hold a lock that somebody else holds who requests the line the chip hangs on."""

    class Expander(BusChip):
        def _note(self, what: str) -> None:
            if what == when:
                Cpu(request_irq, irq, counting([], "parent"), 0, "parent", self).end()
            super()._note(what)

    chained = irq_alloc_desc("chained line", Expander())
    request_irq(chained, counting([], "h"), 0, "h", 1)
    free_irq(chained, 1)
    assert irq_stat(irq).name == "parent"
    irq_free_desc(chained)


def test_who_requests_a_line_that_is_being_freed_finds_it_as_new(
    bus_chip: BusChip, bus_irq: int, until: Until
) -> None:
    gate = Gate()
    request_irq(bus_irq, gate, IRQF_TRIGGER_RISING, "first", 1)
    runner = Cpu(generic_handle_irq, bus_irq)
    assert gate.entered.wait(LONG)
    freeing = Cpu(free_irq, bus_irq, 1)
    until(somebody_waits_for(bus_irq), "free_irq waits for the handler")
    second = Cpu(request_irq, bus_irq, counting([], "second"), 0, "second", 2)
    second.join(0.1)  # time to be wrong in
    gate.leave.set()
    assert [cpu.end() for cpu in (runner, freeing, second)] == [None, "first", None]
    free_irq(bus_irq, 2)
    each = ["request_resources", "unmask", "mask", "release_resources"]
    assert bus_chip.asked == [each[0], "set_type 1", *each[1:], *each]


def test_who_frees_a_line_that_is_being_requested_comes_after_it_is_unmasked(
    bus_chip: BusChip, bus_irq: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeing: list[Cpu] = []

    def unmask(irq: int) -> None:
        freeing.append(Cpu(free_irq, irq, 1))
        freeing[0].join(0.1)  # time to be wrong in
        bus_chip.asked.append("unmask")

    monkeypatch.setattr(bus_chip, "irq_unmask", unmask)
    request_irq(bus_irq, counting([], "h"), 0, "h", 1)
    assert freeing[0].end() == "h"
    assert bus_chip.asked == ["request_resources", "unmask", "mask", "release_resources"]


@pytest.mark.udriver_allow("I3")
def test_no_autoen_starts_disabled(irq: int, chip: Chip) -> None:
    log: list[str] = []
    request_irq(irq, counting(log, "h"), IRQF_NO_AUTOEN, "h", 1)
    generic_handle_irq(irq)
    assert (log, irq_stat(irq).depth, "unmask" in chip.asked) == ([], 1, False)
    enable_irq(irq)
    assert (log, irq_stat(irq).depth) == (["h"], 0)


@pytest.mark.udriver_allow("I5")
def test_freeing_what_is_not_there_warns(irq: int) -> None:
    with pytest.warns(UserWarning, match="already-free irq"):
        assert free_irq(irq, "nobody") is None


@pytest.mark.udriver_allow("I5")
def test_a_desc_with_a_handler_is_not_freed(irq: int) -> None:
    request_irq(irq, counting([], "h"), 0, "h", 1)
    with pytest.raises(ValueError, match="still has a handler"):
        irq_free_desc(irq)


def test_raising_a_line_that_was_freed_does_nothing() -> None:
    irq = irq_alloc_desc("short")
    irq_free_desc(irq)
    generic_handle_irq(irq)


# a shared line


@pytest.mark.udriver_allow("I4")
def test_all_handlers_of_a_line_run_in_the_order_of_request(irq: int) -> None:
    log: list[str] = []
    for name in "abc":
        request_irq(irq, counting(log, name), IRQF_SHARED, name, name)
    generic_handle_irq(irq)
    assert log == ["a", "b", "c"]
    assert irq_stat(irq).name == "a, b, c"


@pytest.mark.udriver_allow("I4")  # its handlers have no device to ask whose interrupt it is
def test_one_who_handles_makes_it_not_spurious(irq: int) -> None:
    request_irq(irq, counting([], "a", IRQ_NONE), IRQF_SHARED, "a", 1)
    generic_handle_irq(irq)
    assert (irq_stat(irq).count, irq_stat(irq).spurious) == (1, 1)
    request_irq(irq, counting([], "b"), IRQF_SHARED, "b", 2)
    generic_handle_irq(irq)
    assert (irq_stat(irq).count, irq_stat(irq).spurious) == (2, 1)


@pytest.mark.udriver_allow("I4")
def test_freeing_one_keeps_the_other(irq: int, chip: Chip) -> None:
    log: list[str] = []
    request_irq(irq, counting(log, "a"), IRQF_SHARED, "a", 1)
    request_irq(irq, counting(log, "b"), IRQF_SHARED, "b", 2)
    assert free_irq(irq, 1) == "a"
    generic_handle_irq(irq)
    assert (log, "mask" in chip.asked) == (["b"], False)


# counts: busy, disabled, missed


def test_counts(irq: int) -> None:
    request_irq(irq, counting([], "h"), 0, "h", 1)
    for _ in range(3):
        generic_handle_irq(irq)
    stat = irq_stat(irq)
    assert (stat.irq, stat.name, stat.chip) == (irq, "h", "paper")
    assert (stat.count, stat.missed, stat.spurious, stat.exceptions) == (3, 0, 0, 0)


def test_raised_while_busy_leaves_one_pending_bit(irq: int) -> None:
    log: list[str] = []

    def handler(irq: int, dev_id: object) -> IrqReturn:
        log.append("starts")
        if len(log) == 1:
            for _ in range(5):
                generic_handle_irq(irq)
        log.append("ends")
        return IRQ_HANDLED

    request_irq(irq, handler, 0, "h", 1)
    generic_handle_irq(irq)
    assert log == ["starts", "ends", "starts", "ends"]
    assert (irq_stat(irq).count, irq_stat(irq).missed) == (2, 4)


def test_raised_while_busy_on_another_cpu_is_replayed_by_the_one_that_runs(irq: int) -> None:
    gate, where = Gate(), []

    def handler(irq: int, dev_id: object) -> IrqReturn:
        where.append(threading.current_thread().name)
        return gate(irq, dev_id)

    request_irq(irq, handler, 0, "h", 1)
    cpu = Cpu(generic_handle_irq, irq)
    assert gate.entered.wait(LONG)
    generic_handle_irq(irq)
    generic_handle_irq(irq)
    gate.leave.set()
    assert cpu.end() is None
    assert where == ["cpu1", "cpu1"]
    assert (irq_stat(irq).count, irq_stat(irq).missed) == (2, 1)


def test_raised_while_disabled_is_replayed_once(irq: int, chip: Chip) -> None:
    log: list[str] = []
    request_irq(irq, counting(log, "h"), 0, "h", 1)
    disable_irq(irq)
    assert chip.asked == ["unmask"], "disabling is lazy"
    for _ in range(5):
        generic_handle_irq(irq)
    assert (log, chip.asked[1]) == ([], "mask")
    enable_irq(irq)
    assert log == ["h"]
    assert (irq_stat(irq).count, irq_stat(irq).missed) == (1, 4)
    assert chip.asked[-1] == "unmask"


def test_disables_nest(irq: int) -> None:
    log: list[str] = []
    request_irq(irq, counting(log, "h"), 0, "h", 1)
    disable_irq(irq)
    disable_irq_nosync(irq)
    generic_handle_irq(irq)
    enable_irq(irq)
    assert (log, irq_stat(irq).depth) == ([], 1)
    enable_irq(irq)
    assert (log, irq_stat(irq).depth) == (["h"], 0)


def test_nothing_pending_is_nothing_replayed(irq: int) -> None:
    log: list[str] = []
    request_irq(irq, counting(log, "h"), 0, "h", 1)
    disable_irq(irq)
    enable_irq(irq)
    assert log == []


@pytest.mark.udriver_allow("I2")
def test_an_unbalanced_enable_warns_and_changes_nothing(irq: int) -> None:
    log: list[str] = []
    request_irq(irq, counting(log, "h"), 0, "h", 1)
    with pytest.warns(UserWarning, match=f"unbalanced enable for irq {irq} "):
        enable_irq(irq)
    generic_handle_irq(irq)
    assert (log, irq_stat(irq).depth) == (["h"], 0)


def test_a_handler_may_disable_its_own_line(irq: int) -> None:
    log: list[str] = []

    def handler(irq: int, dev_id: object) -> IrqReturn:
        log.append("h")
        disable_irq_nosync(irq)
        return IRQ_HANDLED

    request_irq(irq, handler, 0, "h", 1)
    generic_handle_irq(irq)
    generic_handle_irq(irq)
    assert log == ["h"]


# waiting until nobody runs


@pytest.mark.parametrize("wait", [synchronize_irq, synchronize_hardirq, disable_irq])
def test_waits_for_a_running_handler(irq: int, until: Until, wait: Callable[[int], object]) -> None:
    gate = Gate()
    request_irq(irq, gate, 0, "h", 1)
    cpu = Cpu(generic_handle_irq, irq)
    assert gate.entered.wait(LONG)

    def waiter() -> None:
        wait(irq)
        gate.log.append("waiter goes on")

    waiting = Cpu(waiter)
    until(somebody_waits_for(irq), "the waiter sleeps")
    gate.leave.set()
    assert (cpu.end(), waiting.end()) == (None, None)
    assert gate.log == ["handler ends", "waiter goes on"]


@pytest.mark.parametrize("wait", [synchronize_irq, disable_irq])
def test_waits_for_a_running_thread(irq: int, until: Until, wait: Callable[[int], object]) -> None:
    gate = Gate()
    request_threaded_irq(irq, counting([], "h", IRQ_WAKE_THREAD), gate, 0, "h", 1)
    generic_handle_irq(irq)
    assert gate.entered.wait(LONG)
    assert synchronize_hardirq(irq) is False

    def waiter() -> None:
        wait(irq)
        gate.log.append("waiter goes on")

    waiting = Cpu(waiter)
    until(somebody_waits_for(irq), "the waiter sleeps")
    gate.leave.set()
    assert waiting.end() is None
    assert gate.log == ["handler ends", "waiter goes on"]
    assert synchronize_hardirq(irq) is True


def test_disable_nosync_does_not_wait(irq: int) -> None:
    gate = Gate()
    request_irq(irq, gate, 0, "h", 1)
    cpu = Cpu(generic_handle_irq, irq)
    assert gate.entered.wait(LONG)
    disable_irq_nosync(irq)
    gate.log.append("goes on")
    gate.leave.set()
    cpu.end()
    assert gate.log == ["goes on", "handler ends"]


def test_free_returns_when_no_handler_runs(irq: int, until: Until) -> None:
    gate = Gate()
    request_irq(irq, gate, 0, "h", 1)
    cpu = Cpu(generic_handle_irq, irq)
    assert gate.entered.wait(LONG)
    generic_handle_irq(irq)  # pending: it must not be replayed to somebody who is gone

    def waiter() -> str | None:
        name = free_irq(irq, 1)
        gate.log.append("freed")
        return name

    freeing = Cpu(waiter)
    until(somebody_waits_for(irq), "free_irq sleeps")
    gate.leave.set()
    cpu.end()
    assert freeing.end() == "h"
    assert gate.log == ["handler ends", "freed"]


def test_free_waits_for_the_thread_and_ends_it(irq: int, until: Until) -> None:
    gate = Gate()
    request_threaded_irq(irq, counting([], "h", IRQ_WAKE_THREAD), gate, 0, "h", 1)
    before = threading.active_count()
    generic_handle_irq(irq)
    assert gate.entered.wait(LONG)
    desc = irqdesc.irq_to_desc(irq)

    def waiter() -> None:
        free_irq(irq, 1)
        gate.log.append("freed")

    freeing = Cpu(waiter)
    until(lambda: not desc.actions, "free_irq has taken it off the line")
    gate.leave.set()
    freeing.end()
    assert gate.log == ["handler ends", "freed"]
    assert threading.active_count() == before - 1


@pytest.mark.udriver_allow("I1")
@pytest.mark.parametrize(
    "call",
    [synchronize_irq, synchronize_hardirq, disable_irq, lambda irq: free_irq(irq, 1)],
    ids=["synchronize_irq", "synchronize_hardirq", "disable_irq", "free_irq"],
)
@pytest.mark.parametrize("half", ["handler", "thread_fn"])
def test_nobody_waits_for_himself(
    irq: int, until: Until, call: Callable[[int], object], half: str, request: Any
) -> None:
    if half == "thread_fn" and "synchronize_hardirq" in request.node.name:
        pytest.skip("a thread_fn may wait for the hard half")
    seen: list[BaseException] = []

    def refused(irq: int, dev_id: object) -> IrqReturn:
        try:
            call(irq)
        except ContextError as exc:
            seen.append(exc)
        return IRQ_HANDLED

    if half == "handler":
        request_irq(irq, refused, 0, "dev0", 1)
    else:
        request_threaded_irq(irq, counting([], "h", IRQ_WAKE_THREAD), refused, 0, "dev0", 1)
    generic_handle_irq(irq)
    until(lambda: seen, "it was refused")
    assert irq_stat(irq).depth == 0, "what was refused has changed nothing"
    assert irq_stat(irq).name == "dev0"


# the threaded half


def test_the_thread_runs_in_process_context(irq: int, until: Until) -> None:
    log: list[tuple[str, bool]] = []

    def hard(irq: int, dev_id: object) -> IrqReturn:
        log.append((threading.current_thread().name, in_hardirq()))
        return IRQ_WAKE_THREAD

    def thread_fn(irq: int, dev_id: object) -> IrqReturn:
        log.append((threading.current_thread().name, in_hardirq()))
        return IRQ_HANDLED

    request_threaded_irq(irq, hard, thread_fn, 0, "dev0", 1)
    generic_handle_irq(irq)
    synchronize_irq(irq)
    assert log == [("MainThread", True), (f"irq/{irq}-dev0", False)]


def test_several_wakes_coalesce(irq: int, until: Until) -> None:
    gate = Gate()
    request_threaded_irq(irq, counting([], "h", IRQ_WAKE_THREAD), gate, 0, "h", 1)
    generic_handle_irq(irq)
    assert gate.entered.wait(LONG)
    for _ in range(4):
        generic_handle_irq(irq)
    gate.leave.set()
    synchronize_irq(irq)
    assert gate.log == ["handler ends"] * 2
    assert irq_stat(irq).count == 5


def test_oneshot_masks_until_the_thread_is_done(irq: int) -> None:
    log: list[str] = []
    gate = Gate(log)
    request_threaded_irq(irq, counting(log, "h", IRQ_WAKE_THREAD), gate, IRQF_ONESHOT, "h", 1)
    generic_handle_irq(irq)
    assert gate.entered.wait(LONG)
    generic_handle_irq(irq)
    generic_handle_irq(irq)
    assert (log, irq_stat(irq).depth) == (["h"], 1)
    gate.leave.set()
    synchronize_irq(irq)
    assert log == ["h", "handler ends", "h", "handler ends"]
    assert (irq_stat(irq).depth, irq_stat(irq).missed) == (0, 1)


def test_oneshot_without_a_handler_runs_the_thread(irq: int) -> None:
    log: list[str] = []
    request_threaded_irq(irq, None, counting(log, "t"), IRQF_ONESHOT, "h", 1)
    generic_handle_irq(irq)
    synchronize_irq(irq)
    assert (log, irq_stat(irq).depth, irq_stat(irq).spurious) == (["t"], 0, 0)


def test_two_oneshots_share_a_line(irq: int) -> None:
    a, b = Gate(), Gate()
    shared = IRQF_SHARED | IRQF_ONESHOT
    request_threaded_irq(irq, None, a, shared, "a", 1)
    request_threaded_irq(irq, None, b, shared, "b", 2)
    generic_handle_irq(irq)
    assert a.entered.wait(LONG)
    assert b.entered.wait(LONG)
    assert irq_stat(irq).depth == 2
    a.leave.set()
    b.leave.set()
    synchronize_irq(irq)
    assert irq_stat(irq).depth == 0


def test_freeing_a_oneshot_while_its_thread_runs_is_balanced(irq: int, until: Until) -> None:
    gate = Gate()
    request_threaded_irq(irq, None, gate, IRQF_ONESHOT, "h", 1)
    generic_handle_irq(irq)
    assert gate.entered.wait(LONG)
    desc = irqdesc.irq_to_desc(irq)
    freeing = Cpu(free_irq, irq, 1)
    until(lambda: not desc.actions, "free_irq has taken the handler off")
    gate.leave.set()
    assert freeing.end() == "h"
    log: list[str] = []
    request_irq(irq, counting(log, "next"), 0, "next", 2)
    generic_handle_irq(irq)
    assert (log, irq_stat(irq).depth) == (["next"], 0)


@pytest.mark.udriver_allow("I4")
def test_freeing_one_oneshot_of_two_leaves_the_line_on(irq: int, until: Until) -> None:
    gate, log = Gate(), []
    shared = IRQF_SHARED | IRQF_ONESHOT
    request_threaded_irq(irq, None, gate, shared, "a", 1)
    request_irq(irq, counting(log, "b"), shared, "b", 2)
    generic_handle_irq(irq)
    assert gate.entered.wait(LONG)
    desc = irqdesc.irq_to_desc(irq)
    freeing = Cpu(free_irq, irq, 1)
    until(lambda: len(desc.actions) == 1, "a is off the line")
    gate.leave.set()
    assert freeing.end() == "a"
    generic_handle_irq(irq)
    assert (log, irq_stat(irq).depth) == (["b", "b"], 0)


def test_waking_a_thread_that_is_not_there_warns(irq: int) -> None:
    request_irq(irq, counting([], "h", IRQ_WAKE_THREAD), 0, "dev0", 1)
    with pytest.warns(UserWarning, match="dev0 has no thread_fn"):
        generic_handle_irq(irq)
    generic_request = irq_stat(irq)
    assert generic_request.count == 1


# exceptions


def test_an_exception_is_reported_once_and_counted(irq: int, reports: list[str]) -> None:
    def broken(irq: int, dev_id: object) -> IrqReturn:
        raise ZeroDivisionError("oops")

    request_irq(irq, broken, 0, "dev0", 1)
    for _ in range(3):
        generic_handle_irq(irq)
    assert len(reports) == 1
    assert "ZeroDivisionError('oops')" in reports[0]
    assert f"broken of dev0 on irq {irq}" in reports[0]
    stat = irq_stat(irq)
    assert (stat.exceptions, stat.count, stat.depth) == (3, 3, 0)


def test_each_failing_spell_is_reported(irq: int, reports: list[str]) -> None:
    fails = iter([True, True, False, True])

    def moody(irq: int, dev_id: object) -> IrqReturn:
        if next(fails):
            raise ZeroDivisionError
        return IRQ_HANDLED

    request_irq(irq, moody, 0, "dev0", 1)
    for _ in range(4):
        generic_handle_irq(irq)
    assert (len(reports), irq_stat(irq).exceptions) == (2, 3)


@pytest.mark.udriver_allow("I4")
def test_the_others_on_the_line_still_run(irq: int, reports: list[str]) -> None:
    log: list[str] = []
    request_irq(irq, counting(log, "a"), IRQF_SHARED, "a", 1)
    request_irq(irq, lambda *_: 1 // 0, IRQF_SHARED, "broken", 2)
    request_irq(irq, counting(log, "c"), IRQF_SHARED, "c", 3)
    generic_handle_irq(irq)
    generic_handle_irq(irq)
    assert log == ["a", "c", "a", "c"]
    assert len(reports) == 1


def test_a_handler_that_returns_no_irqreturn_is_reported(irq: int, reports: list[str]) -> None:
    request_irq(irq, lambda *_: None, 0, "dev0", 1)  # type: ignore[arg-type,return-value]
    generic_handle_irq(irq)
    assert (len(reports), irq_stat(irq).exceptions, irq_stat(irq).spurious) == (1, 1, 1)


def test_an_exception_in_the_thread_is_reported_and_it_goes_on(
    irq: int, reports: list[str]
) -> None:
    log: list[str] = []

    def broken(irq: int, dev_id: object) -> IrqReturn:
        log.append("runs")
        raise ZeroDivisionError

    request_threaded_irq(irq, None, broken, IRQF_ONESHOT, "dev0", 1)
    for _ in range(2):
        generic_handle_irq(irq)
        synchronize_irq(irq)
    assert (log, len(reports), irq_stat(irq).exceptions) == (["runs"] * 2, 1, 2)
    assert "thread_fn of dev0" in reports[0]
    assert irq_stat(irq).depth == 0


@pytest.mark.udriver_allow("M10")
def test_a_wait_in_a_handler_raises_and_names_it(irq: int, reports: list[str]) -> None:
    event = Completion("event")
    event.complete()
    seen: list[str] = []

    def my_isr(irq: int, dev_id: object) -> IrqReturn:
        try:
            event.wait()
        except ContextError as exc:
            seen.append(str(exc))
            raise
        return IRQ_HANDLED

    request_irq(irq, my_isr, 0, "dev0", 1)
    generic_handle_irq(irq)
    assert "my_isr of dev0" in seen[0]
    assert len(reports) == 1
    assert event.done == 1, "it takes no token"
    assert not in_hardirq()


# spurious


def raise_many(irq: int, times: int) -> None:
    for _ in itertools.repeat(None, times):
        generic_handle_irq(irq)


@pytest.mark.udriver_allow("I4", "I6")
@pytest.mark.slow
def test_nobody_cared(irq: int, chip: Chip) -> None:
    handled = 99
    countdown = iter(range(200_000))
    log: list[str] = []

    def handler(irq: int, dev_id: object) -> IrqReturn:
        return IRQ_HANDLED if next(countdown) < handled else IRQ_NONE

    request_irq(irq, handler, IRQF_SHARED, "dev0", 1)
    raise_many(irq, 99_999)
    assert (irq_stat(irq).depth, irq_stat(irq).spurious) == (0, 99_900)
    with pytest.warns(RuntimeWarning, match="nobody cared.*99901 of 100000.*dev0"):
        generic_handle_irq(irq)
    assert (irq_stat(irq).depth, chip.asked[-1]) == (1, "mask")
    generic_handle_irq(irq)
    assert irq_stat(irq).count == 100_000
    request_irq(irq, counting(log, "late"), IRQF_SHARED, "late", 2)
    assert chip.asked[-1] == "mask", "a second handler does not turn it on"
    enable_irq(irq)
    assert (irq_stat(irq).depth, log) == (0, ["late"])


@pytest.mark.udriver_allow("I6")
@pytest.mark.slow
def test_99_900_unhandled_of_100_000_are_tolerated(irq: int) -> None:
    countdown = iter(range(200_000))

    def handler(irq: int, dev_id: object) -> IrqReturn:
        return IRQ_HANDLED if next(countdown) < 100 else IRQ_NONE

    request_irq(irq, handler, 0, "dev0", 1)
    raise_many(irq, 100_000)
    assert (irq_stat(irq).depth, irq_stat(irq).spurious) == (0, 99_900)


# Ctrl-C on top of a handler


def test_ctrl_c_on_top_of_a_handler_comes_after_the_interrupt(irq: int) -> None:
    log: list[str] = []

    def handler(irq: int, dev_id: object) -> IrqReturn:
        log.append("starts")
        if len(log) == 1:
            signal.raise_signal(signal.SIGINT)
        log.append("ends")
        return IRQ_HANDLED

    request_irq(irq, handler, 0, "dev0", 1)
    with pytest.raises(KeyboardInterrupt):
        generic_handle_irq(irq)
    assert log == ["starts", "starts", "ends"]
    assert not in_hardirq()
    assert irq_stat(irq).exceptions == 0
    generic_handle_irq(irq)
    assert log[3:] == ["starts", "ends"]
    assert irq_stat(irq).missed == 0


def test_ctrl_c_on_top_of_a_disabled_line_waits_for_nothing(irq: int) -> None:
    log: list[str] = []

    def handler(irq: int, dev_id: object) -> IrqReturn:
        log.append("runs")
        if len(log) == 1:
            disable_irq_nosync(irq)
            signal.raise_signal(signal.SIGINT)
        return IRQ_HANDLED

    request_irq(irq, handler, 0, "dev0", 1)
    with pytest.raises(KeyboardInterrupt):
        generic_handle_irq(irq)
    assert log == ["runs"]
    enable_irq(irq)
    assert log == ["runs", "runs"]


CALLS = {"CALL", "CALL_FUNCTION_EX", "CALL_KW"}
IRQDESC = os.path.join("udriver", "kernel", "irq")


class CtrlC:
    """Raises KeyboardInterrupt at the n-th place where CPython looks for signals.

    Those are: after a call into C, at the start of a frame, at a jump back.
    """

    def __init__(self, nth: int) -> None:
        self.left = nth
        self.fired = False
        self._called: FrameType | None = None
        self._start = False

    def __call__(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "call":
            self._called = None  # into Python: no check when that returns
            if IRQDESC not in frame.f_code.co_filename:
                return None
            frame.f_trace_opcodes = True
            self._start = True
            return self
        if event == "opcode":
            name = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            checks = self._called is frame or (self._start and name != "RESUME")
            checks = checks or name.startswith("JUMP_BACKWARD")
            self._called = frame if name in CALLS else None
            self._start = self._start and name in ("RESUME", "COPY_FREE_VARS", "MAKE_CELL")
            if checks:
                self.left -= 1
                if self.left == 0:
                    self.fired = True
                    raise KeyboardInterrupt
        return self


@pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="settrace gives opcodes from a second call on only: 3.11"
)
@pytest.mark.slow
def test_ctrl_c_at_any_moment_leaves_the_line_usable(irq: int) -> None:
    log: list[str] = []
    request_irq(irq, counting(log, "h"), 0, "dev0", 1)
    stuck = []
    for nth in itertools.count(1):
        cut = CtrlC(nth)
        sys.settrace(cut)
        try:
            generic_handle_irq(irq)
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        if not cut.fired:
            break
        log.clear()
        generic_handle_irq(irq)
        if not log or irqdesc.irq_to_desc(irq).busy.locked() or in_hardirq():
            stuck.append(nth)
            free_irq_by_force(irq)
    assert nth > 10
    assert stuck == []


@pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="settrace gives opcodes from a second call on only: 3.11"
)
def test_ctrl_c_at_any_moment_loses_no_interrupt_and_no_waiter_for_the_line(irq: int) -> None:
    """Another thread has raised the line while it was busy, and one waits until it is idle."""
    desc = irqdesc.irq_to_desc(irq)
    log: list[str] = []

    def handler(irq: int, dev_id: object) -> IrqReturn:
        log.append("runs")
        if len(log) == 1:
            generic_handle_irq(irq)
        return IRQ_HANDLED

    request_irq(irq, handler, 0, "dev0", 1)
    lost = []
    for nth in itertools.count(1):
        log.clear()
        idle = Completion("idle")
        desc.idle_waiters.append(idle)
        cut = CtrlC(nth)
        sys.settrace(cut)
        try:
            generic_handle_irq(irq)
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        if not cut.fired:
            break
        if log and (desc.pending or len(log) < 2 or not idle.done):
            lost.append((nth, len(log), idle.done))
        desc.pending = False
        desc.idle_waiters.clear()
    assert nth > 10
    assert lost == []


def test_a_handler_that_exits_each_time_ends_all_the_same(irq: int) -> None:
    log: list[str] = []

    def handler(irq: int, dev_id: object) -> IrqReturn:
        log.append("runs")
        assert len(log) < 1000
        raise SystemExit

    request_irq(irq, handler, 0, "dev0", 1)
    with pytest.raises(SystemExit):
        generic_handle_irq(irq)
    assert not irqdesc.irq_to_desc(irq).busy.locked()


def free_irq_by_force(irq: int) -> None:
    """So that one failure is not all failures."""
    desc = irqdesc.irq_to_desc(irq)
    if desc.busy.locked():
        desc.busy.release()
    desc.pending = False
