"""``dense-kd list``."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import shutil
import textwrap
from collections.abc import Callable
from typing import Any

HELP = "list methods, detectors, public teachers, or configs"
EXAMPLES = [
    "dense-kd list  # how many there are of each",
    "dense-kd list methods",
    "dense-kd list detectors",
    "dense-kd list teachers gfl",
    "dense-kd list configs 'bckd/*r50*'",
    "dense-kd list configs bckd crosskd --json",
]
KINDS = ("methods", "detectors", "teachers", "configs")

_WIDEST = 120


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A kind and patterns."""
    parser.add_argument("kind", nargs="?", choices=KINDS, help="what to list; none: what there is")
    parser.add_argument(
        "patterns",
        nargs="*",
        metavar="PATTERN",
        help="part of a name, or with * and ? a whole one; all that one of them meets is listed",
    )
    parser.add_argument("--json", action="store_true", help="for programs: a list of objects")


def run(args: argparse.Namespace) -> None:
    """Print the entries of a kind, or how many there are of each."""
    if args.kind is None:
        counts = {kind: len(_module(kind).names()) for kind in KINDS}
        rows = [[f"dense-kd list {kind}", str(count)] for kind, count in counts.items()]
        print(json.dumps(counts, indent=2) if args.json else "\n".join(table(rows, _WIDEST)))
        return
    entries = getattr(_module(args.kind), args.kind)(args.patterns)
    if args.json:
        print(json.dumps([dataclasses.asdict(entry) for entry in entries], indent=2))
        return
    heading, row = _TABLES[args.kind]
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    print("\n".join(table([*heading, *map(row, entries)], width)))


def _module(kind: str) -> Any:
    return importlib.import_module(f"dense_kd.listing.{kind}")


def table(rows: list[list[str]], width: int) -> list[str]:
    """Lines of columns, of which the last is wrapped.

    Args:
        rows: of each, the cells of the columns. A line of the last one begins a line, and one that
            is a word too long for its column goes below the others.
        width: of the lines, in characters.
    """
    sizes = [max(map(len, column)) for column in list(zip(*rows))[:-1]]
    lines: list[str] = []
    for *cells, text in rows:
        head = "".join(f"{cell:{size}}  " for cell, size in zip(cells, sizes))
        room = max(width - len(head), 24)
        if " " not in text and len(text) > room:
            lines += [head.rstrip(), f"    {text}"]
            continue
        paragraphs = [
            textwrap.wrap(line, room, break_long_words=False, break_on_hyphens=False) or [""]
            for line in text.splitlines() or [""]
        ]
        wrapped = [line for paragraph in paragraphs for line in paragraph]
        lines += [f"{head if i == 0 else ' ' * len(head)}{line}" for i, line in enumerate(wrapped)]
    return lines


def _method(entry: Any) -> list[str]:
    return [entry.name, f"{entry.summary}\nneeds: {', '.join(entry.needs) or 'nothing'}"]


def _detector(entry: Any) -> list[str]:
    return [entry.name, _millions(entry.parameters), entry.config, entry.summary]


def _teacher(entry: Any) -> list[str]:
    ap = "-" if entry.ap is None else f"{entry.ap:.1f}"
    return [entry.config, ap, _millions(entry.parameters), entry.weights]


def _config(entry: Any) -> list[str]:
    return [entry.name, entry.summary]


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M"


_TABLES: dict[str, tuple[list[list[str]], Callable[[Any], list[str]]]] = {
    "methods": ([], _method),
    "detectors": ([["detector", "size", "config", "what it is"]], _detector),
    "teachers": ([["config", "AP", "size", "weights"]], _teacher),
    "configs": ([], _config),
}
