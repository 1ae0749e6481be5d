#!/usr/bin/env python
"""Write the tables of docs/performance.md from the files in benchmarks/results.

Those in folders <date>_<machine> are what `dense-kd benchmark --json FILE` wrote; precision.json,
allocation.json, int8_teacher.json, scaling.json and, in these folders, soak.json what the scripts
of these names in benchmarks did. With --check nothing is written, and it ends with 1 if the page is
another one.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matrix_results import insert_table
from tabulate import tabulate

from dense_kd.benchmark.schema import read_results
from dense_kd.benchmark.text import PAGE, described, tables, versions_of
from dense_kd.json_files import read_json

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
DOCUMENT = ROOT / "docs" / "performance.md"
BEGIN = "<!-- written by make bench-pages -->\n"
END = "<!-- end of what make bench-pages wrote -->\n"
NOTHING = "Nothing has been measured and kept yet.\n"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    args = parser.parse_args(argv)
    before = DOCUMENT.read_text(encoding="utf-8")
    after = insert_table(before, sections(RESULTS), BEGIN, END)
    if args.check:
        if before != after:
            print(f"{DOCUMENT} is not what its results give; run `make bench-pages`")
        return int(before != after)
    DOCUMENT.write_text(after, encoding="utf-8")
    print(f"wrote {DOCUMENT}")
    return 0


def sections(folder: Path) -> str:
    """Of each file of results: those of the scripts, then the newest folder first."""
    files = sorted(folder.glob("*/*.json"), key=lambda f: f.name)
    files.sort(key=lambda f: f.parent.name, reverse=True)
    of_scripts = [(folder / name, write) for name, write in SCRIPTS.items()]
    parts = [_titled(file, write(read_json(file))) for file, write in of_scripts if file.exists()]
    return "\n".join([*parts, *map(section, files)]) or NOTHING


def precision(content: dict[str, Any]) -> str:
    """AP of each seed, and what was computed in float32 and in bfloat16."""
    rows = []
    for title, seeds in content["AP"].items():
        values = [seeds[seed] for seed in sorted(seeds, key=int)]
        rows.append(
            [title, f"{statistics.mean(values):.1f}", ", ".join(f"{v:.1f}" for v in values)]
        )
    text = (
        "AP on the 500 generated validation images, mean and seeds, of `python "
        f"benchmarks/precision.py` ({versions_of(content)}): the detectors of the demo, 1,000 "
        "iterations; the teacher was trained in float32."
    )
    return f"{_wrapped(text)}\n\n{_table(['', 'AP', 'seeds'], rows)}"


def allocation(content: dict[str, Any]) -> str:
    """Time, pages and memory with and without what is kept."""
    rows = []
    for sizes, runs in content["runs"].items():
        floor = next(iter(runs.values()))["seconds"]
        rows += [
            [
                sizes,
                memory,
                f"{run['seconds']:.2f} s",
                f"{run['seconds'] / floor:.2f}",
                f"{run['pages']:,.0f}",
                f"{run['peak_bytes'] / 1e9:.2f} GB",
            ]
            for memory, run in runs.items()
        ]
    text = (
        "What it costs that memory is given back, in `python benchmarks/allocation.py` "
        f"({_circumstances(content)}): forward and backward pass of {content['config']}, means of "
        f"{content['steps']} steps; time of the processor, pages that the system cleared, memory "
        "at the peak."
    )
    header = ["images", "memory", "time", "ratio", "pages", "peak"]
    return f"{_wrapped(text)}\n\n{_table(header, rows)}"


def int8_teacher(content: dict[str, Any]) -> str:
    """Times and differences of a teacher's pass."""
    runs = content["runs"]
    floor = next(iter(runs.values()))["seconds"]["median"]
    rows = [
        [
            name,
            f"{run['seconds']['median'] / floor:.2f}",
            *(f"{100 * run['difference'][part]:.1f} %" for part in ("logits", "distributions")),
        ]
        for name, run in runs.items()
    ]
    text = (
        "The pass of a teacher, GFL with a ResNet-101, in `python benchmarks/int8_teacher.py` "
        f"({_circumstances(content)}): time, and mean absolute difference from float32."
    )
    header = ["", "time", "class logits", "box distributions"]
    return f"{_wrapped(text)}\n\n{_table(header, rows)}"


def scaling(content: dict[str, Any]) -> str:
    """The figure."""
    base = content["base"]
    text = (
        f"What the methods cost in `python benchmarks/scaling.py` ({_circumstances(content)}), "
        f"when one number varies and the others are {base['images']} image of {base['side']} x "
        f"{base['side']} with {base['boxes']} boxes and {base['classes']} classes:"
    )
    return f"{_wrapped(text)}\n\n![cost against pixels, images, boxes, classes](images/scaling.png)"


def soak(content: dict[str, Any]) -> str:
    """What grew in a long training, and the lines of Python that did."""
    last = content["processes"][-1]
    samples = last["samples"]
    first, end = samples[0], samples[-1]
    since = samples[SOAKED] if len(samples) > SOAKED + 1 else None
    rows = []
    for name in last["per_1000_iterations"]:
        numbers = [each[name] for each in (first, end)]
        if None in numbers:
            continue
        if since is not None:
            thousands = (end["iteration"] - since["iteration"]) / 1000
            numbers.append((end[name] - since[name]) / thousands)
        if name in ("descriptors", "objects", "threads"):
            shown = [f"{number:,.1f}".removesuffix(".0") for number in numbers]
        else:
            shown = [f"{number / 1e6:,.2f} MB" for number in numbers]
        rows.append([f"`{name}`", *shown])
    text = (
        f"A distillation of {end['iteration']:,} iterations ({end['seconds'] / 60:.0f} minutes in "
        f"{len(content['processes'])} process{'es' * (len(content['processes']) > 1)}) in `python "
        f"benchmarks/soak.py` ({_circumstances(content)}), images of {content['side']} "
        f"x {content['side']}: the first sample, the last, and what it grows by once all that is "
        "made once has been made (`rss` is what is resident, `malloc` what the C library has given "
        "out, `python` what tracemalloc sees, `objects` what the garbage collector sees)."
    )
    header = ["", f"after {first['iteration']:,}", "at the end"]
    if since is not None:
        header.append(f"per 1,000 iterations since {since['iteration']:,}")
    return f"{_wrapped(text)}\n\n{_table(header, rows)}"


SCRIPTS = {
    "precision.json": precision,
    "allocation.json": allocation,
    "int8_teacher.json": int8_teacher,
    "scaling.json": scaling,
}
"""{file: what writes its section}."""

SOAKED = 6
"""The first sample of a soak that counts: the maps of an earlier one load matplotlib."""

DATED_SCRIPTS = {"soak.json": soak}
"""The same of those in folders of dates."""


def _circumstances(content: dict[str, Any]) -> str:
    return (
        f"{content['commit'][:10]}, {versions_of(content)}, {content['machine']['cpu']}, threads: "
        f"{content['threads']}"
    )


def _titled(file: Path, text: str) -> str:
    return f"### {file.name}\n\n{text}\n"


def _table(header: list[str], rows: list[list[str]]) -> str:
    return tabulate(rows, header, tablefmt=PAGE, disable_numparse=True)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 130, break_long_words=False, break_on_hyphens=False)


def section(file: Path) -> str:
    title = f"{file.parent.name}/{file.name}"
    if file.name in DATED_SCRIPTS:
        return f"### {title}\n\n{DATED_SCRIPTS[file.name](read_json(file))}\n"
    results = read_results(file)
    facts = "\n".join(f"- {line}" for line in described(results).splitlines())
    parts = [f"### {title}", facts, *tables(results, PAGE)]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(main())
