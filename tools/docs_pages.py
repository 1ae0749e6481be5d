#!/usr/bin/env python
"""Write what pages of docs/ say of methods, detectors, configs and papers.

It comes from signatures, docstrings, configs and benchmarks/results, and stands between two lines
of each page; what is above and below them is written by hand. With --check nothing is written,
and it ends with 1 if a page is another one.
"""

from __future__ import annotations

import argparse
import ast
import functools
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

from docs_configs import (
    all_configs,
    config_table,
    configs_with,
    facts_of,
    others,
    rows_of,
    table_of_papers,
    weights_table,
)
from docs_costs import RESULTS, cost, costs_side_by_side
from docs_int8 import int8_students
from docstring_markdown import arguments_of, as_markdown, body_of, inline, table
from matrix_results import insert_table

from dense_kd import cli, public
from dense_kd.arguments import parameters_of
from dense_kd.json_files import read_json
from dense_kd.listing import detectors, methods, teachers
from dense_kd.listing.texts import first_sentence
from dense_kd.methods import method_classes
from dense_kd.recipes import PUBLISHED

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
BEGIN = "<!-- written by make docs-pages -->\n"
END = "<!-- end of what make docs-pages wrote -->\n"
ARMS = ("labelled", "all")
"""Of benchmarks/unlabelled.py."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    args = parser.parse_args(argv)
    stale = []
    for name, write in pages().items():
        page = DOCS / name
        before = page.read_text(encoding="utf-8")
        after = insert_table(before, f"\n{write()}\n\n", BEGIN, END)
        if before != after:
            stale.append(str(page))
            if not args.check:
                page.write_text(after, encoding="utf-8")
    if args.check and stale:
        print(f"not what the code gives, run `make docs-pages`: {', '.join(stale)}")
    elif not args.check:
        print(f"wrote {', '.join(stale) or 'nothing: all pages were right'}")
    return int(args.check and bool(stale))


def pages() -> dict[str, Callable[[], str]]:
    """{page in docs/: what gives the text between its two lines}."""
    found: dict[str, Callable[[], str]] = {
        "methods/index.md": method_index,
        "detectors/index.md": detector_index,
        "papers/weights.md": weights,
        "measured.md": blood_cells,
        "weights.md": shares,
        "unlabelled.md": unlabelled,
        "commands.md": commands,
        "choosing_a_method.md": costs_side_by_side,
        "papers/others.md": others,
        "export.md": int8_students,
    }
    for name in method_classes():
        found[f"methods/{name.lower()}.md"] = functools.partial(method, name)
    for name in detectors.names():
        found[f"detectors/{name.lower()}.md"] = functools.partial(detector, name)
    for name in table_of_papers():
        found[f"papers/{name.lower()}.md"] = functools.partial(rows_of, name)
    return found


def blood_cells() -> str:
    """AP of the detectors of configs/bccd: a teacher, and below each student those it taught."""
    results = read_json(RESULTS / "bccd.json")

    def place(config: str) -> tuple[bool, int, int]:
        names = Path(config).stem.split("_")
        return "gfl" not in names, ("lite2", "r18", "lite0").index(names[-1]), len(names)

    rows = []
    for config in sorted(results, key=place):
        scores = [f"{results[config][part]['AP']:.1f}" for part in ("val", "test")]
        rows.append([f"`{config}`", *scores, f"{results[config]['parameters'] / 1e6:.1f} M"])
    return table(["config", "AP, validation", "AP, test", "parameters"], rows)


def shares() -> str:
    """What weights by gradient share have found, of the cells of benchmarks/balance.py."""
    results = read_json(RESULTS / "balance.json")
    settings, cells = results["settings"], results["cells"]
    rows = []
    for name in method_classes():
        found = cells.get(f"{name.lower()}, balance")
        if found is None:
            continue
        after = [p for i, p in found["share"].items() if int(i) >= found["iterations"] / 2]
        factors = [*found["factor"].values()]
        rows.append(
            [
                f"[{name}](methods/{name.lower()}.md)",
                f"{100 * next(iter(found['share'].values())):.1f} %",
                f"{factors[-1]:.2g}",
                f"{100 * fmean(after):.1f} %",
                f"{100 * min(after):.1f} to {100 * max(after):.1f} %",
            ]
        )
    said = (
        f"FCOS on generated images of {settings['side']} pixels, {settings['iterations']} "
        f"iterations of {settings['batch_size']} images, one seed, target "
        f"{100 * settings['target']:g} %. Shares are of single batches, those of the last two "
        "columns from the middle of the run to its end:"
    )
    head = ["method", "share at first", "factor at the end", "mean share", "least to greatest"]
    return f"{said}\n\n{table(head, rows)}"


def unlabelled() -> str:
    """What images without labels have brought, of benchmarks/unlabelled.py."""
    rows, iterations = [], set()
    for config, found in read_json(RESULTS / "unlabelled.json").items():
        iterations |= {run["iterations"] for arm in ARMS for run in found.get(arm, {}).values()}
        for part, name in (("val", "validation"), ("test", "test")):
            difference = found[f"difference on {part}"]
            if not difference["AP"]:
                continue
            arms = [[found[arm][s][part]["AP"] for s in difference["AP"]] for arm in ARMS]
            low, high = difference["low"], difference["high"]
            bounds = "" if low is None else f" ({low:+.1f} to {high:+.1f})"
            rows.append(
                [
                    f"`{config}`, {name}",
                    *(", ".join(f"{ap:.1f}" for ap in arm) for arm in arms),
                    f"{difference['mean']:+.1f}{bounds}",
                ]
            )
    if not rows:
        return "Nothing has been measured yet."
    head = ["config, images", "labelled alone", "and the others", "mean of differences"]
    lengths = " or ".join(map(str, sorted(iterations)))
    return f"AP of each seed, {lengths} iterations:\n\n{table(head, rows)}"


def commands() -> str:
    """What each command does, and its examples."""
    parts = []
    for name in cli.COMMANDS:
        command = cli.load_command(name)
        examples = "\n".join(f"    {example}" for example in command.EXAMPLES)
        parts += [f"## {name}", f"{command.HELP[0].upper()}{command.HELP[1:]}.", examples]
    return "\n\n".join(parts)


# Of a method


def method_index() -> str:
    """All methods, with what they ask for."""
    rows = [
        [
            f"[{entry.name}]({entry.name.lower()}.md)",
            entry.summary,
            ", ".join(entry.needs) or "nothing",
        ]
        for entry in methods.methods()
    ]
    return table(["method", "what it compares", "needs"], rows)


def method(name: str) -> str:
    """Docstring, options, needs, cost and configs of a method."""
    kind = method_classes()[name]
    entry = methods.methods([name])
    needs = next(each for each in entry if each.name == name).needs
    return "\n\n".join(
        [
            "## Formulas",
            inline(first_sentence(sys.modules[kind.__module__].__doc__)) + ".",
            as_markdown(body_of(kind.__doc__)),
            "## Options",
            f"Of `{name}(...)`, and in a config `model.methods.{name.lower()}.OPTION=VALUE`.",
            options(kind),
            "## What it needs",
            f"With its default options: {', '.join(needs)}." if needs else "Nothing in common.",
            "## What it costs",
            cost(name),
            "## Configs",
            config_table(sorted(configs_with(name))),
        ]
    )


def options(kind: type) -> str:
    """A table of what a class can be given; a row has all that share an entry."""
    rows: dict[tuple[str, str], tuple[list[str], list[str]]] = {}
    own = _set_by_classes(kind)
    for name, parameter in (parameters_of(kind) or {}).items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        default: str | None = "needed" if parameter.default is ... else _default(parameter)
        if name not in inspect.signature(kind).parameters:
            default = own.get(name, default)
        if default is not None:
            owner, text = _description(kind, name)
            names, defaults = rows.setdefault((owner, text), ([], []))
            names.append(f"`{name}`")
            defaults.append(default)
    cells = [[", ".join(n), ", ".join(d), text] for (_, text), (n, d) in rows.items()]
    return table(["option", "default", "what it is"], cells)


def _set_by_classes(kind: type) -> dict[str, str | None]:
    """What classes hand to those above them: defaults, and None for what cannot be given."""
    found: dict[str, str | None] = {}
    for base in kind.__mro__:
        if not base.__module__.startswith("dense_kd.") or "__init__" not in vars(base):
            continue
        function = ast.parse(textwrap.dedent(inspect.getsource(vars(base)["__init__"])))
        for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
            called = ast.unparse(call.func)
            if called.endswith(".setdefault"):
                found.setdefault(ast.literal_eval(call.args[0]), f"`{ast.unparse(call.args[1])}`")
            elif called == "super().__init__":
                for word in call.keywords:
                    if word.arg and not isinstance(word.value, ast.Name):
                        found.setdefault(word.arg, None)
    return found


def _description(kind: type, name: str) -> tuple[str, str]:
    """Of an argument, from the first class that says more than where to look."""
    for base in kind.__mro__:
        text = arguments_of(getattr(vars(base).get("__init__"), "__doc__", None)).get(name)
        if text and not (re.match(r"see :\w+:`\.?(?:dense_kd\.)?\w+`", text) and _said(base, name)):
            return base.__name__, inline(text)
    return "", ""


def _said(kind: type, name: str) -> bool:
    """Whether a class above says something of an argument."""
    docs = (getattr(vars(base).get("__init__"), "__doc__", None) for base in kind.__mro__[1:])
    return any(name in arguments_of(doc) for doc in docs)


def _default(parameter: inspect.Parameter) -> str:
    if parameter.default is parameter.empty:
        return "needed"
    value = parameter.default
    return f'`"{value}"`' if isinstance(value, str) else f"`{value!r}`"


# Of a detector


def detector_index() -> str:
    """All detectors, with how many public weights there are."""
    rows = []
    for name in detectors.names():
        folder = f"{name.lower()}/"
        count = sum(config.startswith(folder) for config in PUBLISHED)
        rows.append([f"[{name}]({name.lower()}.md)", _about(name), str(count)])
    return table(["detector", "from", "public weights"], rows)


def _about(name: str) -> str:
    return first_sentence(sys.modules[getattr(public, name).__module__].__doc__)


def detector(name: str) -> str:
    """Docstring, options, weights and configs of a detector."""
    kind = getattr(public, name)
    folder = f"{name.lower()}/"
    return "\n\n".join(
        [
            "## What it is",
            f"{_about(name)}.",
            as_markdown(body_of(kind.__doc__)),
            "## Options",
            options(kind),
            "## Public weights",
            weights_table([config for config in sorted(PUBLISHED) if config.startswith(folder)]),
            "## Configs",
            "By itself: teachers, and students without one.",
            config_table([c.name for c in all_configs() if c.name.startswith(folder)]),
            "As the student of a distillation, `METHOD/CONFIG`:",
            _students(name),
        ]
    )


def weights() -> str:
    """All public weights."""
    return weights_table(teachers.names())


def _students(name: str) -> str:
    """Configs that distil into a detector, by method."""
    rows: dict[str, list[str]] = {}
    for config in all_configs():
        facts = facts_of(config.name)
        if facts.student and facts.student.startswith(f"{name.lower()}/"):
            folder, _, file = config.name.partition("/")
            rows.setdefault(folder, []).append(f"`{file.removesuffix('.py')}`")
    return table(["method", "configs"], [[f"`{f}`", ", ".join(c)] for f, c in rows.items()])


if __name__ == "__main__":
    sys.exit(main())
