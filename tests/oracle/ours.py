# SPDX-License-Identifier: MIT
"""Plays a script on udriver, and tells it in the words of the module's log.

    *0 | | x0[0] y0[] z0[] x2 . . .
    x1[]*0 | 0=0/1 | x0[] y0[] z0[] . . . .

A line is a step. First what each operation did: the completion afterwards (``done`` and who is
queued, head first), for try and done the answer before it, and behind ``*`` who is awake now. Then, in
order, who came back: actor, result, how often it slept, ``p`` or ``f`` if a signal, or a fatal one, is
pending; ``1u`` is a rest of more than none and at most one unit. Then everything at rest: each actor idle ``.``,
dead ``-``, or asleep on a completion, with its task state in hexadecimal, ``i`` in iowait.
"""

from __future__ import annotations

import signal
from types import TracebackType
from typing import Any, Self

from tests.oracle.actor import (
    COUNTS,
    FUNCTIONS,
    MOST_COMMANDS,
    SIGNALS,
    STATES,
    Actor,
    Watch,
    timeout_of,
    told,
)
from tests.oracle.processor import Processor, Reaped, Sleeper, thread_of
from tests.oracle.script import (
    ACTORS,
    COMPLETIONS,
    FALLING,
    TIMED,
    TO_ACTOR,
    WAITS,
    Op,
    Script,
)
from udriver.kernel import completion as kernel
from udriver.kernel import sched
from udriver.kernel.context import hardirq
from udriver.kernel.sched import TASK_IDLE, TASK_RUNNING


class Ours:
    """Four actors and three completions of udriver; in a ``with`` block, which ends the threads."""

    def __init__(self, watch: Watch | None = None) -> None:
        self.cpu = Processor()
        self.cpu.fall = self._fall
        self.actors = [Actor(number) for number in range(ACTORS)]
        self.x: dict[str, kernel.Completion] = {}
        self.events: list[str] = []
        self.watch = self.cpu.watch = watch
        self._closing = False

    def __enter__(self) -> Self:
        for actor in self.actors:
            actor.thread = thread_of(self._main, actor)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing = True
        with sched.using(self.cpu):
            for actor in self.actors:
                actor.reaped, actor.pending = True, []
                self.cpu.runnable.append(actor)
            self.cpu.settle()
        for actor in self.actors:
            actor.thread.join()

    def play(self, script: Script) -> str:
        """The log, a line for each step."""
        self.x = {name: kernel.Completion(name) for name in COMPLETIONS}
        lines = []
        with sched.using(self.cpu):
            try:
                for step in script:
                    said = " ".join(map(self._perform, step))
                    self.cpu.settle()
                    lines.append(f"{said} |{''.join(self.events)} |{self._at_rest()}\n")
                    self.events.clear()
            finally:
                self._clear()
        return "".join(lines)

    def _perform(self, op: Op) -> str:
        said = ""
        if op.context == FALLING:
            said = self._arm(op, self.actors[op.whom])
        elif op.what == "tick":
            self.cpu.tick()
        elif op.actor is None:
            said = self._in_context(op) + self._completion(op.x)
        elif (actor := self.actors[op.actor]).dead:
            said = "dead"
        else:
            said = self._to_actor(op, actor)
        awake = [actor.comm for actor in self.actors
                 if actor.state == TASK_RUNNING and not actor.dead]  # fmt: skip
        return said + ("*" + "".join(awake) if awake else "")

    def _in_context(self, op: Op) -> str:
        if op.context != "hardirq":
            return self._one_shot(op)
        with hardirq("the oracle's"):
            return self._one_shot(op)

    def _one_shot(self, op: Op) -> str:
        x = self.x[op.x]
        if self.watch is not None:
            self.watch.performs(op, x)
        if op.what == "set":
            x.done = COUNTS[op.word]
            return ""
        result = getattr(kernel, FUNCTIONS[op.what])(x)
        return "" if result is None else f"{result:d}"

    def _to_actor(self, op: Op, actor: Actor) -> str:
        if op.what in SIGNALS:
            self.cpu.signal(actor, SIGNALS[op.what])
        elif op.what == "wake":
            self.cpu.wake_up_process(actor)
        elif len(actor.commands) == MOST_COMMANDS:
            return "full"
        else:
            actor.commands.append(op)
            if actor.idle:
                self.cpu.wake_up_process(actor)
        return ""

    def _arm(self, op: Op, actor: Actor) -> str:
        if actor.dead or actor.trap is not None:
            return "dead" if actor.dead else "full"
        actor.trap = op
        return ""

    def _fall(self, actor: Sleeper) -> None:
        """``actor`` has queued, set its state, and not slept yet."""
        assert isinstance(actor, Actor)
        actor.fell = True
        if (op := actor.trap) is None:
            return
        actor.trap = None
        if op.what in TO_ACTOR:
            said = self._to_actor(op, actor)
        else:
            said = self._one_shot(op) + self._completion(op.x)
        self.events.append(f" {actor.number}~{said}")

    def _at_rest(self) -> str:
        said = [self._completion(name) for name in COMPLETIONS]
        for actor in self.actors:
            where = "-" if actor.dead else "."
            if actor.waits_on is not None:
                where = f"{actor.waits_on.name}{actor.state:x}{'i' if actor.in_iowait else ''}"
            said.append(where if actor.dead else where + actor.mark)
        return "".join(f" {word}" for word in said)

    def _completion(self, name: str) -> str:
        x = self.x[name]
        return f"{name}{x.done}[{''.join(task.comm for task in x.wait_queue)}]"

    def _clear(self) -> None:
        """Between two scripts: nobody is in a wait, nothing is pending."""
        self.events.clear()
        self.cpu.forget()
        asleep = [actor for actor in self.actors if actor.waits_on is not None]
        for actor in asleep:
            actor.reaped = True
            actor.commands.clear()
            actor.trap = None
            actor.pending = []  # not to be delivered in place of Reaped
            actor.state = TASK_RUNNING  # already on its way: the end of another wakes it not again
        self.cpu.runnable.extend(asleep)
        self.cpu.settle()
        self.cpu.forget()
        for actor in self.actors:
            actor.new()

    # in the actors' threads

    def _main(self, actor: Actor) -> None:
        actor.go.acquire()
        while not self._closing:
            try:
                self._live(actor)
            except Reaped:
                pass
            except Exception as error:  # noqa: BLE001 - a wrong core's; the log says so
                self.events.append(f" {actor.number}!{error!r}")
                actor.dead, actor.waits_on = True, None
            if not self._closing:
                self.cpu.hand_on(actor)
        self._last(actor)

    def _last(self, actor: Actor) -> None:
        """Hand on the baton for good: nobody gives it back to a thread that has ended."""
        actor.go.release()
        self.cpu.hand_on(actor)

    def _live(self, actor: Actor) -> None:
        """Until it dies."""
        while not actor.dead:
            try:
                with sched.syscall():
                    self._obey(actor)
                    fatal = actor.mark == "f" or signal.SIGTERM in actor.pending
                    handled = signal.SIGUSR1 in actor.pending
            except KeyboardInterrupt:
                pass
            if fatal:
                self.events.append(f" {actor.number}:killed")
                actor.dead = True
            else:
                self.events.append(f" {actor.number}:user{handled:d}")

    def _obey(self, actor: Actor) -> None:
        """Carry out commands until one is to return to user mode."""
        while (op := self._next(actor)).what != "user":
            if op.what in WAITS:
                self._wait(actor, op)
            else:
                self.events.append(f" {actor.number}={self._one_shot(op) or 0}")

    def _next(self, actor: Actor) -> Op:
        while not actor.commands:
            actor.idle = True
            actor.state = TASK_IDLE
            self.cpu.schedule(actor)
        actor.idle = False
        actor.state = TASK_RUNNING
        return actor.commands.popleft()

    def _wait(self, actor: Actor, op: Op) -> None:
        args: list[Any] = []
        if op.what in TIMED:
            args = [timeout_of(actor.number, op.word)]
        elif op.what == "state":
            args = [STATES[op.word]]
        slept, x = actor.nvcsw, self.x[op.x]
        if self.watch is not None:
            self.watch.waits_on(actor, op, x)
        actor.waits_on, actor.fell = x, False
        try:
            result = getattr(kernel, FUNCTIONS[op.what])(x, *args)
        finally:
            actor.waits_on = None
        slept = actor.nvcsw - slept
        said = told(result, args[0], actor.fell) if op.what in TIMED else str(result or 0)
        self.events.append(f" {actor.number}={said}/{slept}{actor.mark}")
        if self.watch is not None:
            self.watch.returns(actor, op, said, slept)
