"""Results as tables, for a terminal or a page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tabulate import tabulate

from .work import STEP, STUDENT, TEACHER, backward_of, forward_of, teacher_of

TERMINAL, PAGE = "simple", "github"
"""How :func:`as_text` and :func:`tables` draw a table."""

_UNITS = ((2**30, "GB"), (2**20, "MB"), (2**10, "kB"))
_ADDED = "added"
_NONE = "-"


def as_text(results: Mapping[str, Any]) -> str:
    """All that was found.

    Args:
        results: as :data:`.schema.RESULTS`.
    """
    return "\n\n".join([described(results), *tables(results, TERMINAL)])


def described(results: Mapping[str, Any]) -> str:
    """On what, and how, in a few lines."""
    machine, batch = results["machine"], results["batch"]
    where = f"{machine['gpu']}, " if machine["gpu"] else ""
    commit = results["commit"][:10] if results["commit"] else "no checkout"
    changed = ", with changes" if results["changed"] else ""
    loads = (results["load_before"] or [None])[0], (results["load_after"] or [None])[0]
    load = f"; load {loads[0]} before, {loads[1]} after" if None not in loads else ""
    rounds = f"; rounds: {results['rounds']}, after {results['warmup']} to warm up"
    lines = [
        f"{results['date']}, {where}{machine['cpu']}, cores: {machine['cores']}; on "
        f"{results['device']}, threads: {results['threads']}{load}",
        f"{commit}{changed}; {versions_of(results)}",
        f"batch: {batch['images']} x {batch['height']} x {batch['width']}, {results['data']}; "
        f"boxes an image: {batch['boxes']:g}" + (rounds if results["rounds"] else ""),
    ]
    if results["memory_of"]:
        lines.append(f"memory: {results['memory_of']}")
    return "\n".join(lines)


def versions_of(results: Mapping[str, Any]) -> str:
    """Of what the numbers depend on, in words.

    Args:
        results: with "versions".
    """
    return ", ".join(f"{name} {version}" for name, version in results["versions"].items())


def tables(results: Mapping[str, Any], style: str) -> Iterator[str]:
    """A table of the parts of each distillation, and one of all ratios.

    Args:
        results: as :data:`.schema.RESULTS`.
        style: :data:`TERMINAL` or :data:`PAGE`.
    """
    for run in results["runs"]:
        header, rows = _parts(run)
        yield f"{_heading(run)}\n\n{_table(header, rows, style)}"
    if results["rounds"] or results["memory_of"]:
        yield _table(*_ratios(results), style)
    notes = []
    if results["rounds"]:
        notes.append("methods = 1 + what they take by themselves / (student + teacher)")
        notes.append("overhead = step / (student + teacher), price = step / student")
    if results["memory_of"]:
        notes.append("memory of a step / (that of the student + the teacher's pass), with weights")
    if any(run["kernels"] for run in results["runs"]):
        notes.append("added = step - student - teacher")
    if notes:
        yield "; ".join(notes)


def _ratios(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    columns: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {}
    if results["rounds"]:
        columns["methods"] = lambda run: [f"{_by_methods(run):.3f}"]
        columns["overhead"] = lambda run: _ratio(run["overhead"])
        columns["price"] = lambda run: _ratio(run["price"])
    if results["memory_of"]:
        columns["memory"] = lambda run: [f"{run['memory']:.3f}"]
    heads = {"overhead": ["overhead", "quartiles"], "price": ["price", "quartiles"]}
    header = ["", *(head for name in columns for head in heads.get(name, [name]))]
    rows = [
        [run["title"], *(cell for cells in columns.values() for cell in cells(run))]
        for run in results["runs"]
    ]
    return header, rows


def costs_of(run: Mapping[str, Any], name: str) -> list[str]:
    """What a distillation with one method costs: methods, price, memory and the method's kernels.

    Args:
        run: of "runs" of :data:`.schema.RESULTS`.
        name: of the method in it.
    """
    timed = run["price"] is not None
    kernels = (run["kernels"] or {}).get(name)
    return [
        f"{_by_methods(run):.3f}" if timed else _NONE,
        f"{run['price']['median']:.3f}" if timed else _NONE,
        _NONE if run["memory"] is None else f"{run['memory']:.3f}",
        f"{kernels['forward']} + {kernels['backward']}" if kernels else _NONE,
    ]


def _by_methods(run: Mapping[str, Any]) -> float:
    """What the overhead would be if a step were its parts: of the medians, so it varies less."""
    seconds = {name: part["seconds"]["median"] for name, part in run["parts"].items()}
    own = sum(seconds[of(name)] for name in run["methods"] for of in (forward_of, backward_of))
    return 1 + own / (seconds[STUDENT] + sum(seconds[name] for name in _teachers(run, seconds)))


def _teachers(run: Mapping[str, Any], parts: Mapping[str, Any]) -> list[str]:
    """The parts that are passes of teachers."""
    names = (TEACHER, *map(teacher_of, run["methods"]))
    return [name for name in names if name in parts]


def _heading(run: Mapping[str, Any]) -> str:
    amp = f", {run['amp']}" if run["amp"] else ""
    methods = ", ".join(run["methods"].values())
    weights = run["weights"]
    teacher = f"from {run['teacher']} ({_bytes(weights['teacher'])}) " if run["teacher"] else ""
    number = run.get("unlabelled", 0)
    unlabelled = f"; images without labels beside the others: {number}" if number else ""
    return (
        f"{run['title']}: {run['student']} ({_bytes(weights['student'])}) {teacher}with "
        f"{methods}{amp}{unlabelled}"
    )


def _parts(run: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    columns = {
        "time": lambda name, part: _time(part["seconds"]),
        "quartiles": lambda name, part: _quartiles(part["seconds"]),
        "memory": lambda name, part: _NONE if part["memory"] is None else _bytes(part["memory"]),
        "GFLOPs": lambda name, part: _NONE if part["flops"] is None else _giga(part["flops"]),
        "kernels": lambda name, part: _kernels(run, name, "kernels"),
        "stops": lambda name, part: _kernels(run, name, "stops"),
    }
    rows = [
        [name, *(cell(name, part) for cell in columns.values())]
        for name, part in run["parts"].items()
    ]
    if run["kernels"]:
        added = _added(run)
        kernels = f"{added['forward']} + {added['backward']}"
        rows.append([_ADDED, *[_NONE] * 4, kernels, str(added["stops"])])
    kept = [0, *(i for i in range(1, 7) if any(row[i] != _NONE for row in rows))]
    header = ["", *columns]
    return [header[i] for i in kept], [[row[i] for i in kept] for row in rows]


def _kernels(run: Mapping[str, Any], name: str, what: str) -> str:
    counts = run["kernels"] or {}
    if name in counts:
        found = counts[name]
        if what == "stops":
            return str(found["stops"])
        return f"{found['forward']} + {found['backward']}"
    for method in run["methods"]:
        if method in counts and name == forward_of(method):
            return str(counts[method]["forward" if what == "kernels" else what])
        if method in counts and name == backward_of(method) and what == "kernels":
            return str(counts[method]["backward"])
    return _NONE


def _added(run: Mapping[str, Any]) -> dict[str, int]:
    """What a step has beside the passes of student and teachers."""
    kernels = run["kernels"]
    step, passes = kernels[STEP], [kernels[n] for n in (STUDENT, *_teachers(run, kernels))]
    return {key: step[key] - sum(each[key] for each in passes) for key in step}


def _table(header: list[str], rows: list[list[str]], style: str) -> str:
    align = ["left", *["right"] * (len(header) - 1)]
    return tabulate(rows, header, tablefmt=style, disable_numparse=True, colalign=align)


def _ratio(spread: Mapping[str, Any]) -> list[str]:
    return [f"{spread['median']:.3f}", f"{spread['low']:.3f} to {spread['high']:.3f}"]


def _time(spread: Mapping[str, Any] | None) -> str:
    return _NONE if spread is None else f"{_milliseconds(spread['median'])} ms"


def _quartiles(spread: Mapping[str, Any] | None) -> str:
    if spread is None:
        return _NONE
    return f"{_milliseconds(spread['low'])} to {_milliseconds(spread['high'])}"


def _milliseconds(seconds: float) -> str:
    value = 1000 * seconds
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _giga(flops: int) -> str:
    value = flops / 1e9
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _bytes(number: int) -> str:
    for size, unit in _UNITS:
        if number >= size:
            value = number / size
            return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    return f"{number} B"
