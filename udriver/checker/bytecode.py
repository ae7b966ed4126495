# SPDX-License-Identifier: MIT
"""What the caller does next with what it was given: read off its bytecode, once for each line.

CPython 3.11 to 3.13. What cannot be told is given as "not so", so that no rule fires on a guess.
"""

from __future__ import annotations

import dis
import functools
from bisect import bisect_right
from collections.abc import Collection
from types import CodeType, FrameType

__all__ = [
    "destination",
    "escapes",
    "fails_when",
    "literal_argument",
    "result_returned",
    "result_unused",
    "stored_in",
]

_CALLS = ("CALL", "CALL_FUNCTION_EX", "CALL_KW", "CALL_METHOD")


@functools.lru_cache(maxsize=512)
def _instructions(code: CodeType) -> tuple[list[dis.Instruction], list[int]]:
    found = [ins for ins in dis.get_instructions(code) if ins.opname not in ("CACHE", "NOP")]
    return found, [ins.offset for ins in found]


def _at(code: CodeType, lasti: int) -> int:
    """The index of the instruction that is being executed."""
    return bisect_right(_instructions(code)[1], lasti) - 1


def _after_call(frame: FrameType) -> dis.Instruction | None:
    code = frame.f_code
    found, _ = _instructions(code)
    index = _at(code, frame.f_lasti)
    if index < 0 or index + 1 >= len(found) or found[index].opname not in _CALLS:
        return None
    return found[index + 1]


def result_unused(frame: FrameType) -> bool:
    """Whether the call that ``frame`` is in throws its result away.

    Or keeps it in a local variable that nobody reads; ``_`` says that this is meant.
    """
    after = _after_call(frame)
    if after is None or after.opname != "STORE_FAST" or after.argval == "_":
        return after is not None and after.opname == "POP_TOP"
    found, _ = _instructions(frame.f_code)
    return not any(
        ins.opname.startswith(("LOAD_FAST", "STORE_FAST_LOAD", "DELETE_FAST"))
        and after.argval in (ins.argval if isinstance(ins.argval, tuple) else (ins.argval,))
        for ins in found
    )


def result_returned(frame: FrameType) -> bool:
    """Whether the call that ``frame`` is in gives what the function itself returns."""
    after = _after_call(frame)
    return after is not None and after.opname == "RETURN_VALUE"


def stored_in(frame: FrameType) -> tuple[str, str]:
    """How and under which name the result of the call is stored: ``("STORE_FAST", "x")``."""
    after = _after_call(frame)
    if after is None or not after.opname.startswith("STORE_"):
        return "", ""
    name = after.argval[0] if isinstance(after.argval, tuple) else after.argval
    return after.opname, str(name)


def destination(frame: FrameType) -> tuple[str, str, str]:
    """As stored_in(), and for an attribute the name of the variable whose attribute it is."""
    how, name = stored_in(frame)
    found, _ = _instructions(frame.f_code)
    index = _at(frame.f_code, frame.f_lasti) + 1
    if how or index + 1 >= len(found):
        return how, name, ""
    owner, store = found[index : index + 2]
    if owner.opname.startswith("LOAD_") and store.opname == "STORE_ATTR":
        return store.opname, str(store.argval), str(owner.argval)
    return "", "", ""


_HANDED_ON = ("STORE_ATTR", "STORE_SUBSCR", "STORE_GLOBAL", "RETURN_VALUE", "YIELD_VALUE")


def escapes(code: CodeType, local: str, api: Collection[str]) -> bool:
    """Whether the function may hand ``local`` on to somebody: all it does not is to call ``api``."""
    found, _ = _instructions(code)
    for index, ins in enumerate(found):
        named = ins.argval if isinstance(ins.argval, tuple) else (ins.argval,)
        loads = ins.opname.startswith(
            ("LOAD_FAST", "LOAD_DEREF", "LOAD_CLOSURE", "STORE_FAST_LOAD")
        )
        if loads and local in named and _handed_on(found, index, api):
            return True
    return False


def _handed_on(found: list[dis.Instruction], index: int, api: Collection[str]) -> bool:
    after = found[index + 1].opname
    if after in ("LOAD_METHOD", "LOAD_ATTR", "BEFORE_WITH", "POP_TOP", "STORE_FAST"):
        return False  # its own method, or a with block
    before = index - 1
    while before > 0 and found[before].opname.startswith(("LOAD_FAST", "LOAD_CONST", "PUSH_NULL")):
        before -= 1
    callee = found[before]
    while after.startswith("LOAD_") and index + 2 < len(found):
        index += 1
        after = found[index + 1].opname
    if after in _HANDED_ON or after.startswith(("BUILD_", "LIST_", "MAP_", "MAKE_")):
        return True
    name = callee.argval[-1] if isinstance(callee.argval, tuple) else callee.argval
    return not (callee.opname.startswith("LOAD_") and name in api)


def literal_argument(frame: FrameType, value: int) -> bool:
    """Whether ``value``, the last argument of the call, is a number written there."""
    found, _ = _instructions(frame.f_code)
    index = _at(frame.f_code, frame.f_lasti) - 1
    while index > 0 and found[index].opname in ("PRECALL", "KW_NAMES"):
        index -= 1
    ins = found[index] if index >= 0 else None
    if ins is None or ins.opname != "LOAD_CONST":
        return False
    return type(ins.argval) is int and ins.argval == value  # not the other branch of a condition


def fails_when(frame: FrameType, outcome: bool) -> bool:
    """Whether the test that ``frame`` is in leads straight to an error if it says ``outcome``.

    An error is a ``raise`` or ``return`` of a negative number; an ``assert`` is none.
    """
    code = frame.f_code
    found, offsets = _instructions(code)
    index = _at(code, frame.f_lasti)
    if index < 0:
        return False
    if "JUMP" not in found[index].opname:
        outcome ^= found[index].opname == "UNARY_NOT"
        index += 1
        while index < len(found) and found[index].opname in ("UNARY_NOT", "TO_BOOL"):
            outcome ^= found[index].opname == "UNARY_NOT"
            index += 1
    if index >= len(found):
        return False
    jump = found[index]
    if not jump.opname.startswith("POP_JUMP") or not jump.opname.endswith(("_TRUE", "_FALSE")):
        return False
    if outcome == jump.opname.endswith("_TRUE"):
        index = bisect_right(offsets, jump.argval - 1)
    else:
        index += 1
    return _is_error(found, offsets, index)


def _is_error(found: list[dis.Instruction], offsets: list[int], index: int) -> bool:
    before = found[index]
    for _ in found:  # at most so many, whatever jumps there are
        if index >= len(found):
            return False
        ins = found[index]
        name = ins.opname
        if name == "JUMP_FORWARD":  # the other branch of ``a if x else b``
            index = bisect_right(offsets, ins.argval - 1)
            continue
        if name == "LOAD_ASSERTION_ERROR" or "JUMP" in name or name.startswith("STORE_"):
            return False
        if name == "RAISE_VARARGS":
            return True
        if name == "RETURN_CONST":
            return _negative(ins.argval)
        if name == "RETURN_VALUE":
            return before.opname == "UNARY_NEGATIVE" or (
                before.opname == "LOAD_CONST" and _negative(before.argval)
            )
        before = ins
        index += 1
    return False


def _negative(value: object) -> bool:
    return isinstance(value, int) and value < 0
