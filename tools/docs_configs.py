"""What configs say of themselves, as tables for tools/docs_pages.py."""

from __future__ import annotations

import ast
import dataclasses
import functools
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from docstring_markdown import table

from dense_kd import get_config
from dense_kd.config import config_folder
from dense_kd.engine.checks.tree import calls, select, target_of
from dense_kd.listing import configs
from dense_kd.recipes import PUBLISHED

TABLE_OF_PAPERS = Path(__file__).resolve().parent.parent / "docs" / "papers" / "index.md"
"""Which configs are rows of which paper's tables."""

_AP = re.compile(r":? (\d\d\.\d) -> (\d\d\.\d) (m?AP)")
_STATED_AP = re.compile(r"\((?:zoo:\s+)?(\d\d\.\d)\s+AP\b")
_ONE_AP = re.compile(r": (\d\d\.\d) (m?AP)")


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a config's source names.

    Attributes:
        student, teacher: their configs, None of a config that has none.
        docstring: all of it.
    """

    student: str | None
    teacher: str | None
    docstring: str


@functools.cache
def all_configs() -> list[configs.ConfigEntry]:
    """Read once."""
    return configs.configs()


@functools.cache
def facts_of(name: str) -> Facts:
    """Of a config of ``configs/``, also by way of the config that it changes."""
    source = (config_folder() / name).read_text(encoding="utf-8")
    student = re.search(r'^student = get_config\("([^"]+)"\)', source, re.MULTILINE)
    teacher = re.search(r'known_teacher\("([^"]+)"\)', source)
    base = re.search(r"^from \.(?:\.(\w+))?\.?(\w+) import .*\bmodel\b", source, re.MULTILINE)
    docstring = ast.get_docstring(ast.parse(source)) or ""
    if teacher is None and base and base[1] != "common":
        folder = base[1] or name.partition("/")[0]
        if (config_folder() / folder / f"{base[2]}.py").is_file():
            above = facts_of(f"{folder}/{base[2]}.py")
            return Facts(above.student, above.teacher, docstring)
    return Facts(student and student[1], teacher and teacher[1], docstring)


@functools.cache
def _methods_of(name: str) -> frozenset[str]:
    """The classes that a config's model calls for its methods, those inside others too."""
    methods = select(get_config(name), "model.methods")
    called = (target_of(call) for _, call in calls(methods, "model.methods"))
    return frozenset(target.__name__ for target in called if isinstance(target, type))


def configs_with(method: str) -> Iterator[str]:
    """Those that distil with a method, also beside others."""
    for config in all_configs():
        folder = config.name.partition("/")[0]
        if folder in ("quickstart", "bccd"):
            if method in _methods_of(config.name):
                yield config.name
        elif method.lower() in folder.split("_"):
            yield config.name


def config_table(names: Sequence[str]) -> str:
    """Each with its row of a table and the AP there."""
    chosen = set(names)
    rows = [[f"`{c.name}`", *_row_and_ap(c)] for c in all_configs() if c.name in chosen]
    return table(["config", "what it is", "published AP"], rows)


def _row_and_ap(config: configs.ConfigEntry) -> list[str]:
    """What a config is, and the AP that was published; without and with a method, if it has one."""
    summary, facts = config.summary, facts_of(config.name)
    if facts.teacher is None:
        return [summary, _stated_ap(facts)]
    found = _AP.search(summary)
    if found:
        unit = " mAP" if found[3] == "mAP" else ""
        return [_without(summary, found), f"{found[1]} → {found[2]}{unit}"]
    alone = _ONE_AP.search(summary)
    return [_without(summary, alone), f"→ {alone[1]}"] if alone else [summary, "-"]


def _stated_ap(facts: Facts) -> str:
    """Of a detector that is no student, as its docstring has it."""
    found = _STATED_AP.search(facts.docstring)
    return found[1] if found else "-"


def _without(summary: str, found: re.Match[str]) -> str:
    return f"{summary[: found.start()]}{summary[found.end() :]}".strip(" :,")


def rows_of(paper: str) -> str:
    """The configs of a paper's tables, a table each, as docs/papers/index.md names them."""
    rows = table_of_papers()[paper]
    parts = _teachers([config for _, cell in rows for config in configs_in(cell)])
    for number, cell in rows:
        parts.append(f"### Table{'s' if ',' in number else ''} {number}")
        parts += ["Overrides of these, which their docstrings name."] * cell.startswith("overrides")
        parts.append(_with_teachers(configs_in(cell)))
    return "\n\n".join(parts)


def others() -> str:
    """Distillations that are in no table of these papers."""
    rows = [row for table_rows in table_of_papers().values() for row in table_rows]
    named = {config for _, cell in rows for config in configs_in(cell)}
    left = [
        config.name
        for config in all_configs()
        if facts_of(config.name).teacher
        and config.name not in named
        and not config.name.startswith(("quickstart/", "bccd/"))
    ]
    return "\n\n".join([*_teachers(left), "### Configs", _with_teachers(left)])


def weights_table(names: Sequence[str]) -> str:
    """The weights that stand for configs, and the AP that is published for them."""
    rows = []
    for name in names:
        weights = f"`{PUBLISHED[name]}`" if name in PUBLISHED else "train the config first"
        rows.append([f"`{name}`", _stated_ap(facts_of(name)), weights])
    return table(["config", "AP", "weights"], rows)


def _teachers(names: Sequence[str]) -> list[str]:
    """A heading and a table of the teachers of distillations."""
    of_all = {facts_of(name).teacher for name in names} - {None}
    return ["### Teachers", weights_table(sorted(t for t in of_all if t))]


def table_of_papers() -> dict[str, list[tuple[str, str]]]:
    """{paper: number of each table, and the cell with its configs} of docs/papers/index.md."""
    lines = TABLE_OF_PAPERS.read_text(encoding="utf-8").partition("| of | table | configs |\n")[2]
    found: dict[str, list[tuple[str, str]]] = {}
    paper = ""
    for line in lines.partition("\n\n")[0].splitlines()[1:]:
        name, number, cell = (part.strip() for part in line.strip("|").split("|"))
        paper = name or paper
        found.setdefault(paper, []).append((number, cell))
    return found


def configs_in(cell: str) -> list[str]:
    """The configs that a cell names, its braces expanded as a shell does."""
    found = []
    for pattern in re.findall(r"`([\w{},]+/[\w{},]+\.py)`", cell):
        parts = re.split(r"\{([^}]*)\}", pattern)
        choices = [part.split(",") if i % 2 else [part] for i, part in enumerate(parts)]
        found += ["".join(words) for words in itertools.product(*choices)]
    return found


def _with_teachers(names: Sequence[str]) -> str:
    by_name = {config.name: config for config in all_configs()}
    rows = [
        [f"`{name}`", *_row_and_ap(by_name[name]), f"`{facts_of(name).teacher}`"] for name in names
    ]
    return table(["config", "what it is", "published AP", "teacher"], rows)
