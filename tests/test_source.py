"""The source is in order: docstrings refer to what exists, imports go one way, files are short."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import statistics
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest

import dense_kd

ROOT = Path(dense_kd.__file__).parent
TESTS = Path(__file__).parent
FILES = {
    ".".join(("dense_kd", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in sorted(ROOT.rglob("*.py"))
}
KINDS = {
    "mod": inspect.ismodule,
    "class": inspect.isclass,
    "func": inspect.isroutine,
    "meth": inspect.isroutine,
    "data": lambda _: True,
}
ARGUMENTS = re.compile(r"^Args:\n((?:(?: .*)?(?:\n|$))+)", re.MULTILINE)
ENTRY = re.compile(r"^    (\**\w+(?:,\s+\**\w+)*):", re.MULTILINE)
REFERENCE = re.compile(rf":({'|'.join(KINDS)}|\w+):`([^`]+)`")


def package_of(module: str) -> str:
    return module if FILES[module].name == "__init__.py" else module.rpartition(".")[0]


def class_at(module: str, line: int) -> list[str]:
    """The names of the classes that the line is inside of, outermost first."""
    names, node = [], ast.parse(FILES[module].read_text())
    while node is not None:
        inside = (n for n in ast.iter_child_nodes(node) if getattr(n, "lineno", line + 1) <= line)
        node = next((n for n in inside if n.end_lineno >= line), None)
        names += [node.name] if isinstance(node, ast.ClassDef) else []
    return names


def look_up(name: str) -> Any:
    """What an absolute dotted name stands for."""
    if name in FILES:
        return importlib.import_module(name)
    owner, _, attribute = name.rpartition(".")
    return getattr(look_up(owner), attribute)


def resolve(module: str, line: int, name: str) -> Any:
    """What a reference means there: an absolute name, one of the package, module or class."""
    if name.startswith("."):
        return look_up(package_of(module) + name)
    if name.startswith("dense_kd."):
        return look_up(name)
    for owner in (module, ".".join([module, *class_at(module, line)])):
        try:
            return look_up(f"{owner}.{name}")
        except AttributeError as error:
            missing = error
    raise missing


def references(module: str) -> Iterator[tuple[int, str, str]]:
    text = FILES[module].read_text()
    for match in REFERENCE.finditer(text):
        yield text.count("\n", 0, match.start()) + 1, match[1], match[2].lstrip("~")


def test_every_reference_in_a_docstring_leads_to_a_thing_of_its_kind():
    found, wrong = 0, []
    for module in FILES:
        for line, kind, name in references(module):
            found += 1
            try:
                right = KINDS[kind](resolve(module, line, name))
            except (AttributeError, KeyError):
                right = False
            if not right:
                wrong.append(f"{module}, line {line}: :{kind}:`{name}`")
    assert wrong == []
    assert found > 100


@pytest.mark.parametrize(
    "name", ["Nothing", "DenseDetector.nothing", ".nothing", "dense_kd.nothing", "loss_normalizer"]
)
def test_a_reference_to_nothing_is_found(name):
    with pytest.raises(AttributeError):
        resolve("dense_kd.detectors.base.dense", 1, name)


def argument_problems(function: ast.FunctionDef, docstring: str) -> set[str]:
    """Arguments that ``Args:`` leaves out, and its entries that are none.

    An entry is for one or several of them, and may name further ones as ``name``.
    """
    every = function.args
    variable = [argument for argument in (every.vararg, every.kwarg) if argument]
    names = [a.arg for a in (*every.posonlyargs, *every.args, *every.kwonlyargs, *variable)]
    section = ARGUMENTS.search(docstring)
    if section is None:
        return set()
    entries = ", ".join(ENTRY.findall(section[1]))
    documented = set(re.findall(r"\w+", entries))
    mentioned = set(re.findall(r"``(\w+)``", section[1]))
    of_class = "classmethod" in map(ast.unparse, function.decorator_list)
    own = set(names[1:] if of_class or names[:1] == ["self"] else names)
    return (own - documented - mentioned) | (documented - own)


def test_every_list_of_arguments_is_that_of_its_function():
    found, wrong = 0, {}
    for module, path in FILES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                docstring = ast.get_docstring(node) or ""
                found += "Args:" in docstring
                wrong[f"{module}, line {node.lineno}: {node.name}"] = argument_problems(
                    node, docstring
                )
    assert {place: names for place, names in wrong.items() if names} == {}
    assert found > 100


@pytest.mark.parametrize(
    "entries, problems",
    [
        (["a, b: two.", "c,", "    d: two."], set()),
        (["a: one, as ``b``.", "c: of ``kwargs``.", "d: last."], set()),
        (["a, b: two.", "c: and d: one."], {"d"}),
        (["a, b, c, d, e: five."], {"e"}),
    ],
)
def test_arguments_that_are_left_out_or_made_up_are_found(entries, problems):
    (function,) = ast.parse("def f(self, a, *b, c, **d): pass").body
    docstring = "\n    ".join(["Args:", *entries])
    assert argument_problems(function, f"Summary.\n\n{docstring}\n\nReturns:\n    e: f") == problems


def imports(module: str) -> set[str]:
    """The modules of the package that a module imports, also inside of functions."""
    names, nodes = set(), [ast.parse(FILES[module].read_text())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            levels = package_of(module).split(".")
            base = levels[: len(levels) + 1 - node.level] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            inside = [f"{source}.{alias.name}" for alias in node.names]
            names |= {name if name in FILES else source for name in inside}
    return names & FILES.keys() - {module}


def test_no_module_imports_itself_by_way_of_others():
    graph = {module: imports(module) for module in FILES}
    assert "dense_kd.detectors.base.dense" in graph["dense_kd.detectors.fcos"]
    list(TopologicalSorter(graph).static_order())  # raises CycleError, with the cycle


def test_texts_are_written_by_the_function_that_takes_names_that_are_no_unicode():
    encoded = re.compile(r"write\(.*\.encode\(\)")  # which fails at surrogates
    own = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in FILES.values()
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if encoded.search(line) and "ascii" not in line
    ]
    assert not own, f"expected checkpoint.write_text in {', '.join(own)}"


def test_files_are_short():
    lines = {module: len(path.read_text().splitlines()) for module, path in FILES.items()}
    assert {module: count for module, count in lines.items() if count >= 450} == {}
    assert statistics.median(lines.values()) < 130
    tests = {path: len(path.read_text().splitlines()) for path in TESTS.rglob("*.py")}
    assert {path: count for path, count in tests.items() if count >= 450} == {}
