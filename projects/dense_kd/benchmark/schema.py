"""What a file of results holds, and whether one holds it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..json_files import read_json
from .errors import BenchmarkError

FORMAT = 1
"""Of the files; it changes when an entry changes its meaning, goes, or comes and is needed."""


class Maybe:
    """What may be null."""

    def __init__(self, kind: Any):
        """
        Args:
            kind: what it is otherwise.
        """
        self.kind = kind


class Added(Maybe):
    """What files from before it was there do not have."""


class Named:
    """An object whose keys are names."""

    def __init__(self, kind: Any):
        """
        Args:
            kind: of its values.
        """
        self.kind = kind


SPREAD = {"median": float, "low": float, "high": float, "values": [float]}
"""Median, quartiles, and the value of each round in their order."""

COUNTS = {"forward": int, "backward": int, "stops": int, "uploads": int}

RUN = {
    "title": str,
    "config": str,
    "overrides": [str],
    "student": str,
    "teacher": Maybe(str),  # of several all; null: no detector is it, and all numbers are 0
    "methods": Named(str),  # the class of each
    "unlabelled": Added(int),  # images beside those of "batch", which are labelled
    "amp": Maybe(str),
    "weights": {"student": int, "teacher": int},  # bytes, with buffers
    "teacher_pass": int,  # bytes that it keeps while the student's pass runs
    "parts": Named({"seconds": Maybe(SPREAD), "memory": Maybe(int), "flops": Maybe(int)}),
    "overhead": Maybe(SPREAD),
    "price": Maybe(SPREAD),
    "memory": Maybe(float),  # of a step, in units of what the contract says
    "kernels": Maybe(Named(COUNTS)),
}

RESULTS = {
    "format": int,
    "date": str,
    "commit": Maybe(str),
    "changed": Maybe(bool),  # whether files differ from the commit
    "versions": Named(str),
    "machine": {"system": str, "cpu": str, "cores": int, "gpu": Maybe(str)},
    "device": str,
    "threads": int,
    "load_before": Maybe([float]),
    "load_after": Maybe([float]),
    "data": str,  # "drawn" or "loaded"
    "batch": {"images": int, "height": int, "width": int, "boxes": float},
    "rounds": int,
    "warmup": int,
    "memory_of": Maybe(str),
    "runs": [RUN],
}
"""A type, a list of one kind, an object with fixed keys, :class:`Named` or :class:`Maybe`."""


def problems(content: Any) -> list[str]:
    """How ``content`` differs from :data:`RESULTS`; [] if it does not."""
    found = [*_problems(content, RESULTS, "")]
    if not found and content["format"] != FORMAT:
        found.append(f"format is {content['format']}, expected {FORMAT}")
    return found


def read_results(file: Path) -> dict[str, Any]:
    """A file of ``dense-kd benchmark --json``.

    Raises:
        BenchmarkError: it is none; the message says where.
    """
    content = read_json(file)
    wrong = problems(content) if content else ["it is no JSON object, or is not there"]
    if wrong:
        raise BenchmarkError(f"{file} is no result of `dense-kd benchmark`: {'; '.join(wrong)}")
    return content


def _problems(value: Any, kind: Any, place: str) -> Iterator[str]:
    if isinstance(kind, Maybe):
        if value is not None:
            yield from _problems(value, kind.kind, place)
    elif isinstance(kind, type):
        if not _is(value, kind):
            yield f"{place} is {value!r}, expected {kind.__name__}"
    elif isinstance(kind, list):
        if not isinstance(value, list):
            yield f"{place} is {value!r}, expected a list"
            return
        for index, item in enumerate(value):
            yield from _problems(item, kind[0], f"{place}[{index}]")
    elif not isinstance(value, dict):
        yield f"{place or 'the file'} is {value!r}, expected an object"
    else:
        kinds = dict.fromkeys(value, kind.kind) if isinstance(kind, Named) else kind
        needed = [key for key, inner in kinds.items() if not isinstance(inner, Added)]
        for key in [key for key in needed if key not in value]:
            yield f"{place}.{key} is missing".lstrip(".")
        for key in value:
            inner = f"{place}.{key}".lstrip(".")
            if key in kinds:
                yield from _problems(value[key], kinds[key], inner)
            else:
                yield f"{inner} is no entry; there is {', '.join(kinds)}"


def _is(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float)) if kind is float else isinstance(value, kind)
