# SPDX-License-Identifier: MIT
"""udriver.kernel under test: interrupt lines."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import ClassVar

from tests.bytecode.ours import OnCompletion, program
from tests.bytecode.program import Program
from udriver.kernel import irq
from udriver.kernel.irq import IRQ_HANDLED, IRQ_WAKE_THREAD, IRQF_ONESHOT, IrqReturn
from udriver.kernel.irqdesc import irq_to_desc

__all__ = ["programs"]


class OnLine(OnCompletion):
    """A line whose handler completes x. The signal handler may raise the line, too."""

    group = "irq"
    ops: ClassVar[tuple[str, ...]] = ("complete", "complete_all", "try", "done", "irq")

    def __init__(self) -> None:
        super().__init__()
        self.irq = irq.irq_alloc_desc("line")
        self.ran: list[int] = []
        self.requested = False
        self.prepare()
        # what is raised on a line that nobody has asked for yet waits for the next interrupt
        self.new = not self.requested

    def prepare(self) -> None:
        """What comes before act()."""

    def isr(self, number: int, dev_id: object) -> IrqReturn:
        """Hardirq context: posts."""
        self.ran.append(1)
        self.complete()
        return IRQ_HANDLED

    def op(self, name: str) -> None:
        if name == "irq":
            irq.generic_handle_irq(self.irq)
        else:
            super().op(name)

    def request(self) -> None:
        """The handler on the line."""
        irq.request_irq(self.irq, self.isr, 0, "dev", self)
        self.requested = True

    def idle(self) -> bool:
        """Whether the line is on and nobody runs it; its thread may do so for a moment yet."""
        desc = irq_to_desc(self.irq)
        pending = desc.pending and not self.new
        return not (pending or desc.busy.locked() or desc.disables)

    def check(self) -> str:
        """The line is not stuck, and what was raised while it was off has been replayed."""
        if self.requested:
            desc = irq_to_desc(self.irq)
            if not self.settles(self.idle):
                return f"L the line is left pending={desc.pending} depth={len(desc.disables)}"
            before = len(self.ran)
            irq.generic_handle_irq(self.irq)
            if not self.settles(lambda: len(self.ran) > before):
                return "L an interrupt was not delivered"
        return super().check()

    def cleanup(self) -> None:
        super().cleanup()
        if self.requested:
            irq.free_irq(self.irq, self)
        irq.irq_free_desc(self.irq)


class OnRequestedLine(OnLine):
    """A handler is on it."""

    def prepare(self) -> None:
        self.request()


class OnThreadedLine(OnRequestedLine):
    """Its handler has a thread, which completes x."""

    def request(self) -> None:
        irq.request_threaded_irq(self.irq, self.hard, self.isr, self.flags, "dev", self)
        self.requested = True

    flags: ClassVar[int] = 0

    @staticmethod
    def hard(number: int, dev_id: object) -> IrqReturn:
        """Hardirq context: all is done in the thread."""
        return IRQ_WAKE_THREAD


class OnOneshotLine(OnThreadedLine):
    """Masked until the thread is done."""

    flags = IRQF_ONESHOT


class OnNewThreadedLine(OnThreadedLine):
    """Requested by act()."""

    def prepare(self) -> None:
        pass


class OnDisabledLine(OnRequestedLine):
    """Off, and one interrupt waits for it to be on again."""

    def prepare(self) -> None:
        self.request()
        irq.disable_irq(self.irq)
        irq.generic_handle_irq(self.irq)


def _free(self: OnLine) -> None:
    irq.free_irq(self.irq, self)
    self.requested = False


def _disable(self: OnLine) -> None:
    irq.disable_irq(self.irq)
    irq.enable_irq(self.irq)


def _disable_nosync(self: OnLine) -> None:
    irq.disable_irq_nosync(self.irq)
    irq.enable_irq(self.irq)


def _alloc(self: OnLine) -> None:
    irq.irq_free_desc(irq.irq_alloc_desc("other"))


@functools.cache
def programs() -> list[type[Program]]:
    """All of them."""
    return list(_programs())


def _programs() -> Iterator[type[Program]]:
    yield program(OnLine, "irq_alloc_desc, irq_free_desc", _alloc)
    yield program(OnLine, "request_irq", lambda self: self.request())
    yield program(OnNewThreadedLine, "request_threaded_irq", lambda self: self.request())
    for base in (OnRequestedLine, OnThreadedLine, OnOneshotLine):
        kind = base.__name__.removeprefix("On").removesuffix("Line").lower()
        kind = "" if kind == "requested" else f", {kind}"
        yield program(base, "free_irq" + kind, _free)
        yield program(base, "disable_irq, enable_irq" + kind, _disable)
        yield program(
            base, "generic_handle_irq" + kind, lambda self: irq.generic_handle_irq(self.irq)
        )
        yield program(base, "synchronize_irq" + kind, lambda self: irq.synchronize_irq(self.irq))
    yield program(OnRequestedLine, "disable_irq_nosync, enable_irq", _disable_nosync)
    yield program(
        OnRequestedLine, "synchronize_hardirq", lambda self: irq.synchronize_hardirq(self.irq)
    )
    yield program(OnRequestedLine, "irq_stat", lambda self: irq.irq_stat(self.irq))
    yield program(
        OnDisabledLine, "enable_irq with one pending", lambda self: irq.enable_irq(self.irq)
    )
