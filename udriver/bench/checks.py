# SPDX-License-Identifier: MIT
"""Composition. What tracepoints and context checks cost while off: the driver with and without them.

The functions on the path are compiled once more with each ``if tracepoint.ring is not None`` and each
``might_sleep()`` cut out, and their code objects exchanged for a turn. The completion checker is not
there at all while off: it exchanges code objects in the same way, and a test compares them.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from types import CodeType, FunctionType

from udriver.bench.rounds import Block, Contestant, take_turns
from udriver.bench.roundtrip import FRAME, driver_trips
from udriver.bench.rows import Row
from udriver.drivers import usbserial
from udriver.kernel import completion, irqdesc, threads

__all__ = ["check_rows", "without_checks"]


class _Cut(ast.NodeTransformer):
    """Takes the checks out of a function."""

    def __init__(self) -> None:
        self.cut = 0

    def visit_If(self, node: ast.If) -> ast.AST | None:
        text = ast.unparse(node.test)
        if text in ("tracepoint.ring is not None", "trace is not None"):
            self.cut += 1
            return None
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        if ast.unparse(node.value).startswith("might_sleep("):
            self.cut += 1
            return None
        return self.generic_visit(node)


@cache
def _bare_code(function: FunctionType) -> tuple[CodeType, CodeType] | None:
    """Its code as it is and without the checks, both compiled here; None if it has none to cut.

    Nor if it is more than a plain function. Cached: a turn that begins with a compilation is measured
    on other caches, and often on another CPU, than one that does not.
    """
    if function.__code__.co_freevars or function.__code__.co_filename.startswith("<"):
        return None
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    whole = _compiled(tree, function)
    cut = _Cut()
    tree = ast.fix_missing_locations(cut.visit(tree))
    definition = tree.body[0]
    if not cut.cut or not isinstance(definition, ast.FunctionDef) or definition.decorator_list:
        return None
    if not definition.body:
        definition.body.append(ast.Pass())
    return whole, _compiled(tree, function)


def _compiled(tree: ast.Module, function: FunctionType) -> CodeType:
    code = compile(tree, inspect.getfile(function), "exec")
    return next(const for const in code.co_consts if isinstance(const, CodeType))


def _functions() -> Iterator[FunctionType]:
    for module in (completion, irqdesc, threads, usbserial):
        for thing in vars(module).values():
            if getattr(thing, "__module__", None) != module.__name__:
                continue
            members = vars(thing).values() if isinstance(thing, type) else [thing]
            yield from (member for member in members if isinstance(member, FunctionType))


@contextmanager
def without_checks(cut: bool = True) -> Iterator[int]:
    """The block runs without them; gives in how many functions there were some.

    ``cut`` False exchanges the same functions' code for a copy of what it is: the other side of the scale.
    """
    exchanged = []
    try:
        for function in _functions():
            codes = _bare_code(function)
            if codes is not None:
                exchanged.append((function, function.__code__))
                function.__code__ = codes[cut]
        yield len(exchanged)
    finally:
        for function, code in exchanged:
            function.__code__ = code


@contextmanager
def _trips(path: str, cut: bool) -> Iterator[Block]:
    with without_checks(cut), driver_trips(path, FRAME, "inline") as block:
        yield block


def check_rows(path: str, rung: str, rounds: int, count: int) -> list[Row]:
    """The inline round trip with the checks, as it is, against the one without."""
    with without_checks():
        pass  # everything is compiled before the first turn
    both = [
        Contestant("with", partial(_trips, path, False)),
        Contestant("without", partial(_trips, path, True)),
    ]
    results = take_turns(both, rounds, count)
    return [
        Row(
            "tracepoints and context checks, off, p50",
            "cut out",
            results.ratio("with", "without", 50),
            limit=1.03,
            ours=results.value("with", 50) / 1000,
            theirs=results.value("without", 50) / 1000,
            unit="us",
            rung=rung,
        )
    ]
