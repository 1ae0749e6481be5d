"""What 8-bit integers cost students, from benchmarks/results, for tools/docs_pages.py."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from docstring_markdown import table

from dense_kd.json_files import read_json
from dense_kd.study.evidence.statistics import gain

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results" / "int8_student.json"


def int8_students() -> str:
    """AP in floats and in integers of each way to train, and what the integers cost."""
    content = read_json(RESULTS)
    teacher = _ap(content["teacher"])
    about = (
        "GFL on BCCD: AP on the images for validation and for testing, the mean of both. The "
        f"teacher has {teacher:.1f}; students were trained for {content['iterations']} iterations, "
        f"those that learnt with integers for {content['more']} more. The last column is integers "
        "minus floats of the same weights, with its 95 % t interval over seeds (`python "
        "benchmarks/int8_student.py`, `benchmarks/results/int8_student.json`, "
        f"{content['commit'][:10]}, {content['machine']['cpu']})."
    )
    rows = [[title, *_row(seeds)] for title, seeds in content["runs"].items()]
    header = ["trained", "seeds", "float32", "int8", "what integers cost"]
    return f"{about}\n\n{table(header, rows)}\n\n{_size_and_time(content['runs'])}"


def _row(seeds: Mapping[str, Any]) -> list[str]:
    floats, integers = (
        [_ap(run[precision]) for run in seeds.values()] for precision in ("float32", "int8")
    )
    lost = gain(b - a for a, b in zip(floats, integers))
    shown = f"{lost.mean:+.2f}"
    if lost.low is not None:
        shown += f" ({lost.low:+.2f} to {lost.high:+.2f})"
    means = [f"{statistics.mean(values):.1f}" for values in (floats, integers)]
    return [str(len(seeds)), *means, shown]


def _size_and_time(runs: Mapping[str, Any]) -> str:
    every = [run for seeds in runs.values() for run in seeds.values()]
    ratio = statistics.median(run["int8"]["seconds"] / run["float32"]["seconds"] for run in every)
    before, after = (every[0][precision]["bytes"] / 1e6 for precision in ("float32", "int8"))
    return (
        f"A file of {before:.1f} MB becomes one of {after:.1f} MB, and an image takes {ratio:.2f} "
        "of the time (the median of all runs; other work went on on the machine)."
    )


def _ap(found: Mapping[str, Any]) -> float:
    return statistics.mean(found[part]["AP"] for part in ("val", "test"))
