# SPDX-License-Identifier: MIT
"""An operation as an automaton, found by running the code under test.

The ports hold nothing, so what a task does next depends on the answers it got, and on nothing
else. An operation is therefore a tree: a node is what it asks, an edge an answer. A node is found by running
the operation once more from its start with the answers that lead there; everybody who runs this
operation afterwards, in whichever program, walks the same tree. That is some hundred runs of the core
for millions of interleavings, and greenlets, threads or a copy of its logic are not needed.

While it runs, sys.settrace() counts opcodes: two questions with no opcode of Python's between them come
out of one call into C.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

from tests.interleaving import ports
from tests.interleaving.ports import Ask, Asker

Operation = Callable[[str, Asker], str]


class _Enough(BaseException):
    """The next question is known; the run that found it is of no more use."""


class Node:
    """Where a task stands: about to ask ``ask``, or at the end of the operation with ``result``.

    ``mid``: the same bytecode has asked before, so that it is not a boundary of bytecodes.
    ``where``: the function and line of the core.
    """

    __slots__ = (
        "answers",
        "ask",
        "children",
        "ended_by",
        "mid",
        "op",
        "result",
        "sleeps",
        "timed",
        "where",
    )

    def __init__(self, op: str, answers: tuple[Any, ...]) -> None:
        self.op = op
        self.answers = answers
        self.children: dict[Any, Node] = {}
        self.ask: Ask | None = None
        self.mid = False
        self.sleeps = self.timed = False
        self.ended_by: frozenset[int] = frozenset()  # signals
        self.result = ""
        self.where = ""


class Automaton:
    """The trees of all operations of ``operation``: operations.ours or operations.kernels.

    ``steps`` is where explore.Space remembers what it found out with them; ``codes`` is what has run.
    """

    def __init__(self, operation: Operation) -> None:
        self._operation = operation
        self._roots: dict[str, Node] = {}
        self.steps: dict[Any, dict[Any, Any]] = {}
        self.codes: set[CodeType] = set()

    def root(self, op: str) -> Node:
        """Where ``op`` begins."""
        node = self._roots.get(op)
        if node is None:
            node = self._roots[op] = self._run(op, ())
        return node

    def child(self, node: Node, answer: Any) -> Node:
        """Where ``node`` goes with that answer."""
        child = node.children.get(answer)
        if child is None:
            child = self._run(node.op, (*node.answers, answer))
            node.children[answer] = child
        return child

    def nodes(self) -> list[Node]:
        """All that were found."""
        found = list(self._roots.values())
        for node in found:
            found += node.children.values()
        return found

    def _run(self, op: str, answers: tuple[Any, ...]) -> Node:
        node = Node(op, answers)
        trace = _Opcodes(self.codes)
        asked: list[int] = []

        def ask(question: Ask) -> Any:
            at = len(asked)
            asked.append(trace.count)
            if at < len(answers):
                return answers[at]
            if at == len(answers):
                node.ask = question
                node.mid = at > 0 and asked[at - 1] == trace.count
                node.where = _where()
                if question.what == "sleep":
                    node.sleeps = True
                    node.timed, node.ended_by = question.arg[0], frozenset(question.arg[1])
            raise _Enough

        outer = sys.gettrace()
        sys.settrace(trace.call)
        try:
            node.result = self._operation(op, ask)
        except _Enough:
            pass
        except Exception as error:
            if isinstance(error, NotImplementedError):
                raise
            # a wrong core's; a result like another
            node.result = f"raised {error!r}"
        finally:
            sys.settrace(outer)
        if node.ask is not None:
            node.result = ""
        return node


class _Opcodes:
    """Counts the opcodes of all code but the ports'."""

    def __init__(self, codes: set[CodeType]) -> None:
        self.count = 0
        self._codes = codes

    def call(self, frame: FrameType, event: str, arg: Any) -> Any:
        if frame.f_code.co_filename in _PORTS:
            return None
        self._codes.add(frame.f_code)
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self.step

    def step(self, frame: FrameType, event: str, arg: Any) -> Any:
        self.count += event == "opcode"
        return self.step


_PORTS = {ports.__file__, __file__, Ask.__new__.__code__.co_filename}


def _where() -> str:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename in _PORTS:
        frame = frame.f_back
    assert frame is not None
    return f"{frame.f_code.co_qualname}:{frame.f_lineno}"
