# SPDX-License-Identifier: MIT
"""One contract, three irqchips: every test runs on each, but for those of one chip's own."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading
import tty
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.drivers.test_usbserial import in_child
from tests.kernel.signals import handling
from udriver.drivers import inline_chip
from udriver.drivers.epoll_thread import EpollThread
from udriver.drivers.fd_irqchip import IN, OUT, FdIrqChip
from udriver.drivers.irqchip import IRQCHIPS
from udriver.errors import UDriverError
from udriver.kernel import sched
from udriver.kernel.completion import Completion
from udriver.kernel.context import in_hardirq
from udriver.kernel.irq import (
    IRQ_HANDLED,
    IRQ_NONE,
    IrqReturn,
    disable_irq,
    enable_irq,
    free_irq,
    irq_stat,
    request_irq,
)

Until = Callable[[Callable[[], object], str], None]


class Line:
    """A pty with a handler on its line: the slave is the device's fd, the master the far end."""

    def __init__(self, chip: FdIrqChip, name: str, *, auto: bool = True) -> None:
        self.chip = chip
        self.far, self.fd = os.openpty()
        tty.setraw(self.fd)
        os.set_blocking(self.fd, False)
        os.set_blocking(self.far, False)
        self.event = Completion(name)
        self.bytes = bytearray()
        self.statuses: list[int] = []
        self.threads: list[str] = []
        self.hung_up = False
        self.fails = 0
        self.irq = chip.attach(self.fd, name)
        if auto:
            self.request()

    def request(self) -> None:
        request_irq(self.irq, self.isr, 0, self.event.name, self)

    def isr(self, irq: int, dev_id: object) -> IrqReturn:
        assert in_hardirq()
        if self.fails:
            self.fails -= 1
            raise ZeroDivisionError("the handler of a test")
        status = self.chip.status(irq)
        if not status:
            return IRQ_NONE
        self.statuses.append(status)
        self.threads.append(threading.current_thread().name)
        if status & OUT:
            self.chip.set_interest(irq, IN)
        self.drain()
        self.event.complete()
        return IRQ_HANDLED

    def drain(self) -> None:
        while not self.hung_up:
            try:
                data = os.read(self.fd, 4096)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            self.bytes += data
            if not data:
                self.hung_up = True
                self.chip.irq_mask(self.irq)

    def send(self, data: bytes) -> None:
        """The far end sends."""
        assert os.write(self.far, data) == len(data)

    def hang_up(self) -> None:
        os.close(self.far)
        self.far = -1

    def close(self) -> None:
        free_irq(self.irq, self)
        self.chip.detach(self.irq)
        for fd in (self.fd, self.far):
            if fd >= 0:
                os.close(fd)


@pytest.fixture
def chip(udriver_irq: str) -> FdIrqChip:
    return IRQCHIPS[udriver_irq]


@pytest.fixture
def new_line(chip: FdIrqChip) -> Iterator[Callable[..., Line]]:
    lines: list[Line] = []

    def make(name: str = "dev0", **options: Any) -> Line:
        lines.append(Line(chip, name, **options))
        return lines[-1]

    yield make
    for line in lines:
        line.close()


@pytest.fixture
def line(new_line: Callable[..., Line]) -> Line:
    return new_line()


def test_raised_when_readable(line: Line) -> None:
    line.send(b"x")
    assert line.event.wait(5)
    assert line.bytes == b"x"


@pytest.mark.udriver_allow("I3")
def test_raised_for_what_was_there_before_the_request(
    new_line: Callable[..., Line], until: Until
) -> None:
    line = new_line(auto=False)
    line.send(b"early")
    line.request()
    until(lambda: line.bytes == b"early", "the early bytes")


def test_raised_again_and_again(line: Line) -> None:
    for number in range(20):
        line.send(bytes([number]))
        assert line.event.wait(5)
    assert line.bytes == bytes(range(20))


def test_the_status_says_why_and_reading_clears_it(line: Line) -> None:
    line.send(b"x")
    assert line.event.wait(5)
    assert line.statuses[0] & IN
    assert not line.statuses[0] & OUT
    assert line.chip.status(line.irq) == 0


def test_not_raised_while_masked(new_line: Callable[..., Line], until: Until) -> None:
    masked, witness = new_line("masked"), new_line("witness")
    masked.chip.irq_mask(masked.irq)
    masked.send(b"x")
    for _ in range(3):
        witness.send(b"y")
        assert witness.event.wait(5)
    assert (masked.statuses, irq_stat(masked.irq).count) == ([], 0)
    masked.chip.irq_unmask(masked.irq)
    until(lambda: masked.bytes == b"x", "raised at unmask: it is still asserted")


def test_a_masked_line_is_not_raised_by_a_hangup(
    new_line: Callable[..., Line], until: Until
) -> None:
    masked, witness = new_line("masked"), new_line("witness")
    masked.chip.irq_mask(masked.irq)
    masked.hang_up()
    for _ in range(3):
        witness.send(b"y")
        assert witness.event.wait(5)
    assert masked.statuses == []
    masked.chip.irq_unmask(masked.irq)
    until(lambda: masked.hung_up, "the hangup is seen at unmask")


def test_disabled_and_enabled(new_line: Callable[..., Line], until: Until) -> None:
    line, witness = new_line("disabled"), new_line("witness")
    disable_irq(line.irq)
    line.send(b"x")
    witness.send(b"y")
    assert witness.event.wait(5)
    assert line.statuses == []
    enable_irq(line.irq)
    until(lambda: line.bytes == b"x", "what came while it was disabled")


def test_no_interest_is_no_interrupt(new_line: Callable[..., Line], until: Until) -> None:
    line, witness = new_line("quiet"), new_line("witness")
    line.chip.set_interest(line.irq, 0)
    assert line.chip.interest(line.irq) == 0
    line.send(b"x")
    for _ in range(3):
        witness.send(b"y")
        assert witness.event.wait(5)
    assert line.bytes == b""
    line.chip.set_interest(line.irq, IN)
    until(lambda: line.bytes == b"x", "raised when interest comes back")


def test_interest_in_room_to_write(line: Line) -> None:
    line.chip.set_interest(line.irq, IN | OUT)
    assert line.event.wait(5)
    assert line.statuses[0] & OUT
    assert line.chip.interest(line.irq) == IN


def test_room_is_raised_when_it_comes(line: Line, until: Until) -> None:
    try:
        while True:
            os.write(line.fd, bytes(4096))
    except BlockingIOError:
        pass
    line.chip.set_interest(line.irq, IN | OUT)
    os.read(line.far, 65536)

    def written() -> bool:
        try:
            while os.read(line.far, 65536):
                pass
        except BlockingIOError:
            pass
        return any(status & OUT for status in line.statuses)

    until(written, "the line is raised for OUT")


def test_a_hangup_raises_the_line(line: Line, until: Until) -> None:
    line.hang_up()
    until(lambda: line.hung_up, "the hangup")
    assert line.event.wait(5)


def test_a_hangup_raises_it_without_any_interest(line: Line, until: Until) -> None:
    line.chip.set_interest(line.irq, 0)
    line.hang_up()
    until(lambda: line.hung_up, "the hangup")


def test_two_lines_are_told_apart(new_line: Callable[..., Line]) -> None:
    a, b = new_line("a"), new_line("b")
    assert a.irq != b.irq
    a.send(b"for a")
    assert a.event.wait(5)
    b.send(b"for b")
    assert b.event.wait(5)
    assert (a.bytes, b.bytes) == (b"for a", b"for b")
    assert irq_stat(a.irq).chip == a.chip.name


def test_one_line_ends_and_the_other_goes_on(chip: FdIrqChip) -> None:
    a, b = Line(chip, "a"), Line(chip, "b")
    a.close()
    b.send(b"x")
    assert b.event.wait(5)
    b.close()


def test_an_exception_does_not_stop_the_other_line(
    new_line: Callable[..., Line], monkeypatch: pytest.MonkeyPatch, until: Until
) -> None:
    reports: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", reports.append)
    broken, fine = new_line("broken"), new_line("fine")
    broken.fails = 3
    broken.send(b"x")
    for number in range(5):
        fine.send(bytes([number]))
        assert fine.event.wait(5)
    assert fine.bytes == bytes(range(5))

    def repaired() -> bool:
        broken.send(b"x")
        return b"x" in broken.bytes

    until(repaired, "the broken handler works again")
    assert len(reports) == 1
    assert irq_stat(broken.irq).exceptions == 3


def test_a_thousand_interrupts_and_none_lost(line: Line, until: Until) -> None:
    for number in range(1000):
        line.send(bytes([number % 251]))
        if number % 3 == 0:  # some coalesce, some do not
            until(lambda n=number: len(line.bytes) > n, "this byte")
    until(lambda: len(line.bytes) == 1000, "all bytes")
    assert line.bytes == bytes(number % 251 for number in range(1000))
    stat = irq_stat(line.irq)
    assert 333 <= stat.count <= 2000


def test_a_line_made_again_works(chip: FdIrqChip) -> None:
    for _ in range(3):
        line = Line(chip, "again")
        line.send(b"x")
        assert line.event.wait(5)
        line.close()


def test_detach_gives_everything_back(chip: FdIrqChip) -> None:
    def here() -> tuple[Any, ...]:
        fds = sorted(fd for fd in range(256) if is_open(fd))
        return fds, threading.active_count(), signal.getsignal(signal.SIGURG)

    before = here()
    lines = [Line(chip, f"dev{number}") for number in range(3)]
    lines[0].send(b"x")
    assert lines[0].event.wait(5)
    for line in lines:
        line.close()
    assert here() == before


def is_open(fd: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_GETFD)
    except OSError:
        return False
    return True


# each chip's own


@pytest.fixture
def on(request: pytest.FixtureRequest) -> Callable[[str], Line]:
    def make(name: str) -> Line:
        line = Line(IRQCHIPS[name], "dev0")
        request.addfinalizer(line.close)
        return line

    return make


def test_signal_runs_on_the_main_thread(on: Callable[[str], Line], other: Any) -> None:
    line = on("signal")
    line.send(b"x")
    assert line.event.wait(5)
    other(line.send, b"y").end()
    assert line.event.wait(5)
    assert set(line.threads) == {"MainThread"}


def test_signal_interrupts_a_busy_main_thread(on: Callable[[str], Line]) -> None:
    line = on("signal")
    line.send(b"x")
    for _ in range(10_000_000):
        if line.bytes:
            break
    assert line.bytes == b"x", "nobody waited; it was interrupted"


def test_signal_respects_no_interest_on_its_only_line(on: Callable[[str], Line]) -> None:
    line = on("signal")
    line.chip.set_interest(line.irq, 0)
    for _ in range(10):
        line.send(b"x")  # SIGURG comes before the write returns
    assert (line.statuses, line.bytes) == ([], b"")
    line.chip.set_interest(line.irq, IN)
    assert line.event.wait(5)
    assert line.bytes == b"x" * 10


def test_signal_wakes_a_waiter_on_another_thread(on: Callable[[str], Line], other: Any) -> None:
    line = on("signal")
    waiter = other(line.event.wait, 10)
    line.send(b"x")
    assert waiter.end() is True


def test_signal_refuses_a_foreign_handler() -> None:
    before = signal.signal(signal.SIGURG, print)
    far, fd = os.openpty()
    try:
        with pytest.raises(UDriverError, match=r"SIGURG already has the handler .*select irqchip"):
            IRQCHIPS["signal"].attach(fd, "dev0")
        assert signal.getsignal(signal.SIGURG) is print
    finally:
        signal.signal(signal.SIGURG, before)
        os.close(far)
        os.close(fd)


def test_signal_refuses_to_start_off_the_main_thread(other: Any) -> None:
    far, fd = os.openpty()
    refused = other(IRQCHIPS["signal"].attach, fd, "dev0").end()
    os.close(far)
    os.close(fd)
    assert isinstance(refused, UDriverError)
    assert "main thread" in str(refused)
    assert "select irqchip" in str(refused)


def test_signal_takes_a_second_line_off_the_main_thread(
    on: Callable[[str], Line], other: Any
) -> None:
    on("signal")
    second = other(Line, IRQCHIPS["signal"], "second").end()
    second.send(b"x")
    assert second.event.wait(5)
    other(second.close).end()


def test_select_runs_on_its_thread(on: Callable[[str], Line]) -> None:
    line = on("select")
    line.send(b"x")
    assert line.event.wait(5)
    assert line.threads == ["irq/select"]


def test_inline_runs_on_the_thread_that_waits(on: Callable[[str], Line], other: Any) -> None:
    line = on("inline")
    line.send(b"x")
    assert line.event.wait(5)
    line.send(b"y")
    waiter = other(line.event.wait, 10)
    waiter.join(20)
    assert waiter.result is True
    assert line.threads == ["MainThread", "wait"]


def test_inline_takes_none_while_nobody_waits(on: Callable[[str], Line]) -> None:
    line = on("inline")
    line.send(b"x")
    assert irq_stat(line.irq).count == 0
    assert line.event.wait(5)
    assert irq_stat(line.irq).count == 1


def asleep(event: Completion) -> Callable[[], bool]:
    return lambda: len(event.wait_queue) > 0


def test_inline_one_leads_and_all_are_served(
    on: Callable[[str], Line], other: Any, until: Until
) -> None:
    line = on("inline")
    waiters = [other(line.event.wait, 15) for _ in range(4)]
    until(lambda: len(line.event.wait_queue) == 4, "all four wait")
    for served, _ in enumerate(waiters, 1):
        line.send(b"x")
        until(lambda n=served: sum(not w.is_alive() for w in waiters) == n, f"{served} served")
    assert [waiter.end() for waiter in waiters] == [True] * 4
    assert line.bytes == b"xxxx"


@pytest.mark.parametrize("timeout", [None, 20])
@pytest.mark.parametrize("earlier", [False, True], ids=["first", "again"])
def test_inline_who_sleeps_before_a_port_is_open_takes_its_interrupts(
    on: Callable[[str], Line], other: Any, timeout: float | None, earlier: bool
) -> None:
    """``again``: it fell asleep while another port was open, which has been closed since."""
    ready, later = Completion("before any port"), Completion("the bystander's")
    before = [Line(IRQCHIPS["inline"], "earlier")] if earlier else []
    waiter, bystander = other(ready.wait, timeout), other(later.wait, timeout)
    for event in (ready, later):
        while not any(task.wake is task._written for task in event.wait_queue):  # type: ignore[attr-defined]
            os.sched_yield()
    for earlier_line in before:
        earlier_line.close()
    line = on("inline")
    line.event = ready
    line.send(b"x")
    waiter.join(20)  # not a wait of ours: it takes nothing
    assert (waiter.result, line.threads) == (True, ["wait"])
    assert bystander.is_alive(), "what wakes it to take interrupts ends no wait"
    later.complete()
    bystander.join(20)
    assert bystander.result is True


def test_inline_a_follower_leads_when_the_leader_leaves(
    on: Callable[[str], Line], other: Any
) -> None:
    line = on("inline")
    leaves = Completion("the leader's")
    scheduler: Any = sched.active()

    def lead() -> str:
        leaves.wait(15)
        return "left"

    def follow() -> str:
        line.event.wait(15)
        return threading.current_thread().name

    chip: Any = scheduler.idle
    leader = other(lead)
    while not (chip._seat.leader and asleep(leaves)()):  # joins no wait, or it might lead
        os.sched_yield()
    follower = other(follow)
    while not chip._seat.followers:
        os.sched_yield()
    leaves.complete()
    leader.join(20)
    assert leader.result == "left"
    line.send(b"x")
    follower.join(20)
    assert follower.result == "follow"
    assert line.threads == ["follow"]


def test_inline_a_follower_whose_event_came_leaves_the_leader_leading(
    on: Callable[[str], Line], other: Any
) -> None:
    line = on("inline")
    mine = Completion("the follower's")
    chip: Any = IRQCHIPS["inline"]
    leader = other(line.event.wait, 15)
    while not (chip._seat.leader and asleep(line.event)()):
        os.sched_yield()
    follower = other(mine.wait, 15)
    while not chip._seat.followers:
        os.sched_yield()
    mine.complete()
    follower.join(20)
    line.send(b"x")
    leader.join(20)
    assert (leader.result, follower.result, line.threads) == (True, True, ["wait"])


def test_inline_a_follower_that_is_to_lead_and_goes_hands_it_on(
    on: Callable[[str], Line],
    other: Any,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """One interrupt ends the leader's wait and the first follower's, and a second one sleeps on."""
    line = on("inline")
    second = Line(IRQCHIPS["inline"], "second")
    request.addfinalizer(second.close)
    firsts = Completion("the first follower's")
    drain = line.drain
    monkeypatch.setattr(line, "drain", lambda: (drain(), firsts.complete()))
    chip: Any = IRQCHIPS["inline"]
    leader = other(line.event.wait, 15)
    while not (chip._seat.leader and asleep(line.event)()):
        os.sched_yield()
    followers = []
    for event in (firsts, second.event):
        followers.append(other(event.wait, 15))
        while len(chip._seat.followers) < len(followers):
            os.sched_yield()
    line.send(b"x")
    for gone in (leader, followers[0]):
        gone.join(20)  # end() waits, and might lead
    second.send(b"y")
    followers[1].join(20)
    assert [thread.result for thread in (leader, *followers)] == [True] * 3
    assert second.threads == ["wait"]


def test_signal_a_start_keeps_the_handler_though_one_of_the_last_end_runs_before_the_first_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An end on another thread has the main thread put the handler back, which may be late."""
    chip = IRQCHIPS["signal"]
    start = EpollThread.start

    def late(thread: EpollThread) -> None:
        chip._handler(signal.SIGURG, None)  # type: ignore[attr-defined]
        start(thread)

    monkeypatch.setattr(EpollThread, "start", late)
    chip.hold(late)
    assert signal.getsignal(signal.SIGURG) == chip._handler  # type: ignore[attr-defined]
    chip.drop(late)
    assert signal.getsignal(signal.SIGURG) == signal.SIG_DFL


def test_a_child_that_stops_a_thread_leaves_its_parent_s(other: Any) -> None:
    thread = EpollThread("parent's", list)
    thread.start()
    assert in_child(lambda: str(thread.stop() or "")) == ""
    thread.thread.join(0.2)  # type: ignore[union-attr]
    assert thread.thread.is_alive()  # type: ignore[union-attr]
    thread.stop()


def test_inline_a_change_of_leaders_that_was_cut_short_loses_no_wake(
    on: Callable[[str], Line], other: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new one's fds are in and a handler raises: the old one, who leads again, is in no more."""
    on("inline")
    turns = [Completion("first"), Completion("second")]
    chip: Any = IRQCHIPS["inline"]

    def cut(task: object) -> object:
        raise InterruptedError

    again = threading.Event()
    pausing = other(lambda: (turns[0].wait(15), again.wait(15), turns[1].wait(15)))
    while not (chip._seat.leader and asleep(turns[0])()):
        os.sched_yield()
    turns[0].complete()
    while chip._seat.leader:
        os.sched_yield()
    with monkeypatch.context() as patch:
        patch.setattr(inline_chip.weakref, "ref", cut)
        with pytest.raises(InterruptedError):
            Completion("main").wait(1)
    again.set()
    while not (chip._seat.leader and asleep(turns[1])()):
        os.sched_yield()
    turns[1].complete()
    pausing.join(5)
    assert pausing.result == (True, True, True)


def test_inline_a_handlers_wait_on_top_of_the_leaders_takes_interrupts(
    on: Callable[[str], Line], other: Any
) -> None:
    line = on("inline")
    never, served = Completion("never"), []

    def handler(signum: int, frame: object) -> None:
        line.send(b"x")
        served.append(line.event.wait(15))
        never.complete()

    chip: Any = IRQCHIPS["inline"]
    with handling(signal.SIGUSR1, handler):
        other(interrupt_when, lambda: chip._seat.leader and asleep(never)())
        assert never.wait(20)
    assert (served, line.threads, chip._seat.leader) == ([True], ["MainThread"], {})


def test_inline_a_handler_may_end_the_line_under_the_leader(other: Any) -> None:
    """The epoll that the wait below sleeps in is closed when that wait is over, and not before."""
    line = Line(IRQCHIPS["inline"], "dev0")
    never = Completion("never")
    chip: Any = IRQCHIPS["inline"]
    seat = chip._seat

    def handler(signum: int, frame: object) -> None:
        closer = other(line.close)
        assert closer.end() is None
        assert not seat.epoll.closed
        never.complete()

    with handling(signal.SIGUSR1, handler):
        other(interrupt_when, lambda: seat.leader and asleep(never)())
        assert never.wait(20)
    assert (seat.epoll.closed, chip._seat) == (True, None)


def interrupt_when(condition: Callable[[], object]) -> None:
    while not condition():
        os.sched_yield()
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)


def test_inline_refuses_a_scheduler_without_threads() -> None:
    far, fd = os.openpty()
    with sched.using(object()), pytest.raises(UDriverError, match="select irqchip"):  # type: ignore[type-var,arg-type]
        IRQCHIPS["inline"].attach(fd, "dev0")
    os.close(far)
    os.close(fd)
