"""The page of results, and its figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..cells import TEACHER
from ..results import read_study_folder
from ..study_file import Study, read_study
from .drawing import COLORS, Axis, Interval, Line, Point, chart
from .statistics import Gain, mean_ranks
from .tables import (
    ALONE,
    LONGER,
    MAIN_ERRORS,
    Number,
    PairResults,
    ap,
    ece,
    error,
    of_class,
)

__all__ = ["evidence", "headline", "write_evidence"]

IMAGES = "images"
_SIZES = {"APs": "small", "APm": "medium", "APl": "large"}
_CURVES = len(COLORS)
_FOUR = {LONGER: "longer", "bckd": "BCKD", "crosskd": "CrossKD", "pgd": "PGD", "tid": "TID"}
_BY_CHANCE = 0.025  # above a 95 % interval


def write_evidence(results: Path, folder: Path, check: bool = False) -> list[Path]:
    """Write the page and the figures, or see whether they are what the results give.

    Args:
        results: a folder of a study each, as :func:`dense_kd.study.results.keep` writes them.
        folder: of ``results.md`` and ``images``; figures of no study are removed.
        check: write nothing.

    Returns:
        the files that are, or were, others.

    Raises:
        StudyError: a result, or a study, cannot be used.
    """
    wanted = {folder / name: text for name, text in evidence(results).items()}
    there = {*folder.glob(f"{IMAGES}/*.svg")}
    stale = [
        file
        for file, text in wanted.items()
        if not file.exists() or file.read_text(encoding="utf-8") != text
    ]
    gone = sorted(there - set(wanted))
    if not check:
        for file in stale:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(wanted[file], encoding="utf-8")
        for file in gone:
            file.unlink()
    return [*stale, *gone]


def evidence(results: Path) -> dict[str, str]:
    """{name of a file: its text}, of all studies that have results."""
    parts = [_HEAD]
    files: dict[str, str] = {}
    for study, pairs in _studies(results):
        parts += [*_study(study, pairs, files)]
    if len(parts) == 1:
        parts.append("No cell has been trained yet.")
    return {"results.md": "\n\n".join(parts) + "\n", **files}


def headline(results: Path) -> str:
    """A table of the pairs of two detectors whose student alone has two seeds or more, with the
    methods of the four papers and the best one.

    Args:
        results: a folder of a study each.

    Raises:
        StudyError: a result, or a study, cannot be used.
    """
    columns = {
        f"{study.title}: {pair.title}": _headline(pair)
        for study, pairs in _studies(results)
        for pair in pairs
        if pair.teachers and len(pair.seeds_of(ALONE)) > 1
    }
    if not columns:
        return "No pair has two seeds yet."
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    rows = [[name, *(column.get(name, "") for column in columns.values())] for name in names]
    return _table(["", *columns], rows)


def _headline(pair: PairResults) -> dict[str, str]:
    """{name of a row: its text}."""
    alone = pair.cells[ALONE]
    first = next(iter(alone.values()))
    found = {
        "seeds": ", ".join(map(str, sorted(alone))),
        "iterations": f"{first['iterations']:,}",
        "parameters": f"{first['parameters'] / 1e6:.2f} M",
        "teacher": "; ".join(f"{ap()(each):.1f}" for each in pair.teachers.values()),
        "student alone": _shown(pair.mean(ALONE, ap())),
    }
    several = {m: gain for m, gain in pair.gains().items() if len(gain.differences) > 1}

    def told(method: str) -> str:
        seeds = pair.seeds_of(method)
        which = "" if seeds == sorted(alone) else f", seeds {', '.join(map(str, seeds))}"
        return f"{_shown(pair.mean(method, ap()))}, {_with_interval(several[method])}{which}"

    found |= {name: told(method) for method, name in _FOUR.items() if method in several}
    if several:
        best = max(several, key=lambda method: several[method].mean)
        found["best of all"] = f"`{best}` {told(best)}"
    return found


def _studies(results: Path) -> Iterator[tuple[Study, list[PairResults]]]:
    for folder in sorted(path for path in results.glob("*") if any(path.rglob("*.json"))):
        study = read_study(folder.name)
        found = read_study_folder(study, folder)
        yield study, [PairResults.of(study, pair, found) for pair in study.pair_titles]


_HEAD = """# What the studies found

<!-- written by make evidence: change the results, or what writes them -->

Everything here is written from the files in `benchmarks/results/study` by `make evidence`, and
`make evidence-check` fails where it is not what they say. [The rule](protocol.md) was there first:
what is compared, what counts as a gain, and what is reported in any case. A cell that was not
trained is missing. One is trained again, and compared, by

    dense-kd study --cell benchmarks/results/study/quickstart/fcos-none-1.json"""


def _study(study: Study, pairs: Sequence[PairResults], files: dict[str, str]) -> Iterator[str]:
    yield f"## {study.title}"
    found = sum(len(pair.seeds_of(method)) for pair in pairs for method in pair.methods)
    planned = sum(1 for _ in study.cells())
    failed = sum(len(seeds) for pair in pairs for seeds in pair.failed.values())
    noted = f", and {failed} trainings that failed" if failed else ""
    trained_by = f" ({_trained_by(pairs)})" if found else ""
    yield f"{found} of {planned} cells{trained_by}{noted}."
    ranked = _ranks(pairs)
    if ranked:
        yield ranked
    for pair in pairs:
        if pair.cells or pair.failed:
            yield from _pair(study, pair, files)
        else:
            yield f"### {study.title}: {pair.title}\n\nNo cell yet."


def _trained_by(pairs: Sequence[PairResults]) -> str:
    cells = [cell for pair in pairs for of in pair.cells.values() for cell in of.values()]
    commits = sorted({(cell["commit"] or "unknown")[:10] for cell in cells})
    machines = sorted({f"{c['machine']['cpu']}, threads: {c['threads']}" for c in cells})
    versions = sorted({", ".join(f"{k} {v}" for k, v in c["versions"].items()) for c in cells})
    changed = sum(bool(cell["changed"]) for cell in cells)
    noted = f"; {changed} with files that were not committed" if changed else ""
    return "; ".join([", ".join(commits), *machines, *versions]) + noted


def _pair(study: Study, pair: PairResults, files: dict[str, str]) -> Iterator[str]:
    yield f"### {study.title}: {pair.title}"
    teachers = [f"{ap()(each):.1f}" for each in pair.teachers.values()]
    if teachers:
        yield f"AP of the teacher: {', '.join(teachers)}."
    if TEACHER in pair.failed:
        yield "The training of the teacher failed."
    yield _main_table(pair)
    if not pair.cells:
        return
    yield (
        "*against alone*, *against longer*: mean difference to the student alone, and to the one "
        "trained longer, over the seeds that both have, with its 95 % interval; **bold** is a gain "
        "or a harm by the rule. *share*: of the gradient that the method had. *time*: of the "
        "processor in training proper, in that of the student alone with the same seed, by the "
        "same machine."
    )
    compared = [m for m, of in pair.gains().items() if m != LONGER and len(of.differences) > 1]
    if compared:
        yield (
            f"Methods with an interval: {len(compared)}. Were all without any effect, "
            f"{len(compared) * _BY_CHANCE:.1f} of them would be called a gain by chance."
        )
    yield "What differs from the student alone (mean of paired differences):"
    yield _differences(pair)
    collapsed = pair.collapsed()
    if collapsed:
        yield f"Without these seeds, which found nothing in any image: {_listed(collapsed)}."
    if any(pair.seeds_of(method) for method in pair.balanced):
        yield "Weights that set themselves, against those that are published:"
        yield _balanced(pair)
        yield (
            "*share of L1 norms*: in the gradient at the pyramid, as Balance measures it, mean "
            "over the second half of the training. *factor*: what the weights were multiplied "
            "with at the end."
        )
    for name, title, drawn in _figures(pair):
        file = f"{IMAGES}/{study.name}_{pair.name}_{name}.svg"
        files[file] = drawn
        yield f"![{title}]({file})"


def _main_table(pair: PairResults) -> str:
    header = [
        *("method", "seeds", "AP", "AP50", "against alone", "", "against longer", "share"),
        "time",
    ]
    rows = []
    for method in pair.methods:
        seeds, failed = pair.seeds_of(method), pair.failed.get(method, [])
        trained = ", ".join(map(str, seeds))
        if failed:
            trained += f"{'; ' if seeds else ''}failed: {_seeds(failed)}"
        if not seeds:
            rows.append([method, trained or "missing", *[""] * (len(header) - 2)])
            continue
        against = None if method == ALONE else pair.paired(method, ALONE, ap())
        longer = None if method in (ALONE, LONGER) else pair.paired(method, LONGER, ap())
        rows.append(
            [
                method,
                trained,
                _shown(pair.mean(method, ap())),
                _shown(pair.mean(method, ap("AP50"))),
                _with_interval(against),
                against.verdict if against else "",
                _with_interval(longer),
                _shown(pair.share(method), 2),
                _shown(pair.time(method), 2),
            ]
        )
    return _table(header, rows)


def _balanced(pair: PairResults) -> str:
    header = [
        *("method", "seeds", "AP as published", "AP balanced", "difference", ""),
        *("share of L1 norms", "factor"),
    ]
    rows = []
    for method, other in pair.balanced.items():
        if not pair.seeds_of(method):
            continue
        found = pair.paired(method, other, ap())
        share, factor = pair.balance(method)
        rows.append(
            [
                method,
                ", ".join(map(str, pair.seeds_of(method))),
                _shown(pair.mean(other, ap(), like=method)),
                _shown(pair.mean(method, ap())),
                _with_interval(found),
                found.verdict if found else "",
                _shown(share, 2),
                "" if factor is None else f"{factor:.2g}",
            ]
        )
    return _table(header, rows)


def _differences(pair: PairResults) -> str:
    results = [cell for of in pair.cells.values() for cell in of.values()]
    classes = next((list(r["per_class"]) for r in results if r["per_class"]), [])
    columns: dict[str, Number] = {f"{kind} errors": error(kind) for kind in MAIN_ERRORS}
    columns["ECE"] = ece
    columns |= {title: ap(key) for key, title in _SIZES.items()}
    columns |= {name: of_class(name) for name in classes}
    rows = []
    for method in pair.methods:
        if method == ALONE or not pair.seeds_of(method):
            continue
        found = [pair.paired(method, ALONE, number) for number in columns.values()]
        rows.append([method, *("" if each is None else f"{each.mean:+.1f}" for each in found)])
    alone = [_shown(pair.mean(ALONE, number)) for number in columns.values()]
    return _table(["", *columns], [[f"{ALONE} (itself)", *alone], *rows])


def _ranks(pairs: Sequence[PairResults]) -> str:
    known = filter(None, (pair.gains() for pair in pairs))
    gains = [{method: gain.mean for method, gain in of.items()} for of in known]
    if len(gains) < 2:
        return ""
    ordered = sorted(mean_ranks(gains).items(), key=lambda item: (item[1], item[0]))
    if not ordered:
        return ""
    listed = ", ".join(f"{method} {rank:g}" for method, rank in ordered)
    return f"Mean rank by gain, over {len(gains)} pairs with all of these methods: {listed}."


def _figures(pair: PairResults) -> Iterator[tuple[str, str, str]]:
    """(name, title, SVG) of each."""
    known = pair.gains()
    if known:
        ordered = sorted(known, key=lambda method: -known[method].mean)
        marks = [
            Interval(row, known[m].mean, known[m].low, known[m].high, known[m].differences)
            for row, m in enumerate(ordered)
        ]
        title = f"Gains of {pair.title}"
        axes = Axis("AP more than the student alone"), Axis("", tuple(ordered))
        yield "gains", title, chart(title, *axes, marks)
    times = {method: pair.time(method) for method in pair.methods}
    points = [
        Point(method, time, pair.mean(method, ap()) or 0.0)
        for method, time in times.items()
        if time is not None
    ]
    title = f"AP over time of {pair.title}"
    axes = Axis("time of the processor, in that of the student alone"), Axis("AP")
    yield "time", title, chart(title, *axes, points)
    best = sorted(known, key=lambda method: -known[method].mean)
    shown = [ALONE, LONGER, *(method for method in best if method != LONGER)]
    curves = {m: pair.curve(m) for m in shown if pair.curve(m)}
    lines = [
        Line(method, tuple(curve), color, dashed=method in (ALONE, LONGER))
        for (method, curve), color in zip(curves.items(), COLORS[:_CURVES])
    ]
    if lines:
        title = f"Learning curves of {pair.title}"
        yield "curves", title, chart(title, Axis("iterations"), Axis("AP"), lines)
    shares = {m: pair.share(m) for m in known}
    points = [
        Point(method, share, known[method].mean)
        for method, share in shares.items()
        if share is not None
    ]
    if points:
        title = f"Gain against the share of the gradient, {pair.title}"
        axes = Axis("share of the gradient"), Axis("AP more than alone")
        yield "shares", title, chart(title, *axes, points)


def _with_interval(found: Gain | None) -> str:
    if found is None:
        return ""
    if found.low is None or found.high is None:
        return f"{found.mean:+.1f}"
    text = f"{found.mean:+.1f} ({found.low:+.1f} to {found.high:+.1f})"
    return text if found.verdict == "not shown" else f"**{text}**"


def _listed(seeds: Mapping[str, Sequence[int]]) -> str:
    return ", ".join(f"{method} ({_seeds(of)})" for method, of in seeds.items())


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def _shown(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
