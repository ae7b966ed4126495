# SPDX-License-Identifier: MIT
"""Every public function of the kernel package says in which context it may be called, truly."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import udriver.kernel

CONTEXTS = {
    "Any context.",
    "Process context.",
    "Process context. May sleep.",
    "Hardirq context.",
}
FOLDER = Path(udriver.kernel.__file__).parent
MODULES = {path.stem: ast.parse(path.read_text()) for path in sorted(FOLDER.glob("[!_]*.py"))}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def public_names(module: ast.Module) -> list[str]:
    for node in module.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def functions(module: ast.Module) -> Iterator[tuple[str, Function, ast.ClassDef | None]]:
    """Each function of a module, with its qualified name and its class, if it has one."""
    for node in module.body:
        if isinstance(node, Function):
            yield node.name, node, None
        elif isinstance(node, ast.ClassDef):
            for member in node.body:
                if isinstance(member, Function):
                    yield f"{node.name}.{member.name}", member, node


def context(node: Function | ast.ClassDef | None) -> str | None:
    """What the last paragraph of a docstring says of the context."""
    last = ((node and ast.get_docstring(node)) or "").split("\n\n")[-1]
    label, _, text = " ".join(last.split()).partition("Context: ")
    return text if not label and text else None


def is_setter(node: Function) -> bool:
    return any(ast.unparse(decorator).endswith(".setter") for decorator in node.decorator_list)


def is_public(qualname: str, module: ast.Module) -> bool:
    head, _, method = qualname.partition(".")
    return head in public_names(module) and not method.startswith("_")


PUBLIC = [
    pytest.param(node, owner, id=f"{name}.{qualname}")
    for name, module in MODULES.items()
    for qualname, node, owner in functions(module)
    if is_public(qualname, module) and not is_setter(node)
]


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_is_public(name: str) -> None:
    assert public_names(MODULES[name])


@pytest.mark.parametrize(("node", "owner"), PUBLIC)
def test_a_public_function_ends_its_docstring_with_its_context(
    node: Function, owner: ast.ClassDef | None
) -> None:
    assert (context(node) or context(owner)) in CONTEXTS


@pytest.mark.parametrize("name", MODULES)
def test_whatever_context_is_written_is_one_of_four(name: str) -> None:
    written = [
        node for node in ast.walk(MODULES[name]) if isinstance(node, Function | ast.ClassDef)
    ]
    assert {context(node) for node in written} <= CONTEXTS | {None}


# who calls whom, as far as names tell

DEFINED = {
    (name, qualname): (node, owner)
    for name, module in MODULES.items()
    for qualname, node, owner in functions(module)
}
Key = tuple[str, str]


def imports(name: str) -> dict[str, Key | str]:
    """What the names that a module imports from the package are: functions, or modules."""
    found: dict[str, Key | str] = {}
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("udriver.kernel"):
            source = (node.module or "").rpartition(".")[2]
            for alias in node.names:
                here = alias.asname or alias.name
                found[here] = alias.name if source == "kernel" else (source, alias.name)
    return found


def callees(key: Key) -> Iterator[Key]:
    """The functions of the package that a function calls by a name we can resolve."""
    name, _ = key
    node, owner = DEFINED[key]
    imported = imports(name)
    for call in ast.walk(node):
        if not isinstance(call, ast.Call):
            continue
        match call.func:
            case ast.Name(id=target):
                here = imported.get(target, (name, target))
                candidates = [here] if isinstance(here, tuple) else []
                candidates += [(m, f"{f}.__init__") for m, f in candidates]
            case ast.Attribute(value=ast.Name(id="self"), attr=attr) if owner is not None:
                candidates = [(name, f"{owner.name}.{attr}")]
            case ast.Attribute(value=ast.Name(id=module), attr=attr):
                source = imported.get(module)
                candidates = [(source, attr)] if isinstance(source, str) else []
            case _:
                candidates = []
        yield from (candidate for candidate in candidates if candidate in DEFINED)


def sleeper(key: Key, seen: set[Key]) -> list[str]:
    """A chain of calls from here to a function that may sleep; empty if there is none."""
    if key in seen:
        return []
    seen.add(key)
    for callee in callees(key):
        if (context(DEFINED[callee][0]) or "").endswith("May sleep."):
            return [".".join(callee)]
        if chain := sleeper(callee, seen):
            return [".".join(callee), *chain]
    return []


ANY_CONTEXT = [key for key, (node, _) in DEFINED.items() if context(node) == "Any context."]


@pytest.mark.parametrize("key", ANY_CONTEXT, ids=".".join)
def test_any_context_never_calls_what_may_sleep(key: Key) -> None:
    assert sleeper(key, set()) == []


def test_the_search_for_sleepers_finds_one() -> None:
    assert sleeper(("completion", "Completion.wait"), set())[-1:] != []
    assert context(DEFINED["completion", "wait_for_completion"][0]) == "Process context. May sleep."
