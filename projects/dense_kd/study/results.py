"""Results of cells as files of a folder: which belong together, and which do not."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..json_files import read_json, write_json
from .cells import TEACHER, Cell
from .errors import StudyError
from .study_file import Study
from .worker import FORMAT

__all__ = [
    "SAME",
    "StudyResults",
    "check_block",
    "check_here",
    "differences",
    "keep",
    "keep_failure",
    "read_cell",
    "read_failures",
    "read_folder",
    "read_study_folder",
    "read_teachers",
    "surroundings",
]

SAME = ("weights", "seen", "initial", "metrics", "curve", "error_types", "per_class", "calibration")
"""Entries that a cell has again when it is recomputed with the same code on the same machine."""

_ENTRIES = (
    *("format", "cell", "config", "teacher", "initial", "seen", "processes", "seconds"),
    *("cpu_seconds", "weights", "iterations", "parameters", "metrics", "per_class"),
    *(
        "error_types",
        "calibration",
        "curve",
        "shares",
        "factors",
        "peak_memory",
        "threads",
        "load",
        "code",
    ),
    *("date", "commit", "changed", "versions", "machine"),
)


_FAILED = "failed"
"""The folder, in that of the results, of trainings that failed."""

_FAILURE = ("format", "cell", "error", "date", "commit", "machine")


@dataclasses.dataclass(frozen=True)
class StudyResults:
    """What a folder has of a study.

    Attributes:
        students: {name of the cell: result}.
        teachers: results; there may be several of a pair, a machine each.
        failed: {name of the cell: what :func:`keep_failure` wrote}.
    """

    students: dict[str, dict[str, Any]]
    teachers: list[dict[str, Any]]
    failed: dict[str, dict[str, Any]]


def read_study_folder(study: Study, folder: Path) -> StudyResults:
    """The results of a study, all of them of cells that it has now.

    Raises:
        StudyError: a file is no result, is of no cell of the study, or of one that was another.
    """
    found = StudyResults(read_folder(folder), read_teachers(folder), read_failures(folder))
    blocks = study.blocks
    planned = {
        cell.name: cell for block in blocks for cell in (block.teacher, *block.cells) if cell
    }
    results = [*found.students.values(), *found.teachers]
    files = [folder / _file_name(result) for result in results]
    results += found.failed.values()
    files += [folder / _FAILED / _file_name(result) for result in found.failed.values()]
    for file, result in zip(files, results):
        cell = Cell.of_json(result["cell"], str(file))
        if cell.name not in planned:
            raise StudyError(
                f"{file} is of {cell.name}, which is no cell of {study.name}; keep the file in "
                "another folder, or put the cell into the study"
            )
        before, now = result["cell"], planned[cell.name].as_json()
        changed = [key for key in now if now[key] != before[key]]
        if changed:
            raise StudyError(
                f"{file} is of a cell with other {', '.join(changed)} than {study.name} has now; "
                "give another folder (--results), or remove the file"
            )
    return found


def read_cell(file: Path) -> tuple[Cell, dict[str, Any]]:
    """The cell of a result, and the result.

    Raises:
        StudyError: the file is none.
    """
    return _read(file, _ENTRIES, "result of a study's cell")


def _read(file: Path, entries: Iterable[str], what: str) -> tuple[Cell, dict[str, Any]]:
    """The cell that a file is of, and its content, which must have the entries."""
    content = read_json(file)
    missing = [entry for entry in entries if entry not in content]
    if missing:
        raise StudyError(f"{file} is no {what}: {', '.join(missing)} is missing")
    if content["format"] != FORMAT:
        raise StudyError(f"{file} has the format {content['format']!r}; expected {FORMAT}")
    return Cell.of_json(content["cell"], str(file)), content


def read_folder(folder: Path) -> dict[str, dict[str, Any]]:
    """{name of the cell: result} of the students in a folder.

    Raises:
        StudyError: a file in it is no result, or has another name than its cell.
    """
    found = {}
    for file in sorted(folder.glob("*.json")):
        cell, content = read_cell(file)
        if cell.method == TEACHER:
            continue
        if file.name != cell.file_name:
            raise StudyError(f"{file} is the result of {cell.name}; expected {cell.file_name}")
        found[cell.name] = content
    return found


def read_teachers(folder: Path) -> list[dict[str, Any]]:
    """The results of the teachers in a folder.

    Raises:
        StudyError: a file in it is no result.
    """
    found = [read_cell(file) for file in sorted(folder.glob("*.json"))]
    return [content for cell, content in found if cell.method == TEACHER]


def read_failures(folder: Path) -> dict[str, dict[str, Any]]:
    """{name of the cell: what :func:`keep_failure` wrote} of the trainings that failed.

    Raises:
        StudyError: a file among them is another one.
    """
    found = {}
    for file in sorted((folder / _FAILED).glob("*.json")):
        cell, content = _read(file, _FAILURE, "failure of a cell")
        if file.name != cell.file_name:
            raise StudyError(f"{file} is the failure of {cell.name}; expected {cell.file_name}")
        found[cell.name] = content
    return found


def keep(folder: Path, result: Mapping[str, Any]) -> Path:
    """Write a result; that of a teacher is named by its weights, as there may be one a machine, and
    stays as it is if they come out again. It has failed no more."""
    cell, file = Cell.of_json(result["cell"], "the result"), folder / _file_name(result)
    if cell.method != TEACHER or not file.exists():
        write_json(file, dict(result))
    (folder / _FAILED / cell.file_name).unlink(missing_ok=True)
    return file


def keep_failure(folder: Path, cell: Cell, error: str, about: Mapping[str, Any]) -> Path:
    """Write that a training failed, beside the results, so that it is not only missing there.

    Args:
        folder: of the results.
        cell: that was to be trained.
        error: why.
        about: of :func:`dense_kd.benchmark.machine.circumstances`.
    """
    file = folder / _FAILED / cell.file_name
    write_json(file, {"format": FORMAT, "cell": cell.as_json(), "error": error, **about})
    return file


def _file_name(result: Mapping[str, Any]) -> str:
    """Of a result or a failure."""
    cell = Cell.of_json(result["cell"], "the result")
    if cell.method == TEACHER and "weights" in result:
        return f"{cell.pair}-{TEACHER}-{result['weights'][:8]}.json"
    return cell.file_name


def surroundings(result: Mapping[str, Any]) -> dict[str, Any]:
    """What has to be equal in all cells of a block but their methods: else they differ by more."""
    return {
        "code": result["code"],
        "versions": result["versions"],
        "cpu": result["machine"]["cpu"],
        "gpu": result["machine"]["gpu"],
        "threads": result["threads"],
    }


def check_here(
    results: Mapping[str, Mapping[str, Any]], here: Mapping[str, Any], teacher: str | None = None
) -> None:
    """That a block which has ``results`` can be gone on with, before a cell of it is trained.

    Args:
        results: as of :func:`check_block`.
        here: :func:`surroundings` of what would be trained.
        teacher: the digest of the weights that there are for it.

    Raises:
        StudyError: they differ in something.
    """
    for name, result in results.items():
        for what, value in surroundings(result).items():
            _check_equal(name, "a cell that is trained here", what, value, here[what])
        if teacher is not None and result["teacher"] is not None:
            _check_equal(name, "a cell that is trained here", "teacher", result["teacher"], teacher)


def check_block(results: Mapping[str, Mapping[str, Any]]) -> None:
    """That the results of one block can be compared.

    Args:
        results: {name of the cell: result} of one pair and seed.

    Raises:
        StudyError: two of them have other code, versions or machines, another teacher, initial
            weights, or other images.
    """
    first: tuple[str, Mapping[str, Any]] | None = None
    teacher: tuple[str, str] | None = None
    plain: tuple[str, str] | None = None
    seen: dict[int, tuple[str, str]] = {}
    for name, result in results.items():
        if first is None:
            first = name, result
        other = surroundings(first[1])
        for what, value in surroundings(result).items():
            _check_equal(first[0], name, what, other[what], value)
        _check_equal(
            first[0], name, "initial backbone",
            first[1]["initial"]["backbone"], result["initial"]["backbone"],
        )  # fmt: skip
        plain = _check_or_take(plain, name, "initial weights", result["initial"]["all"],
                               not result["cell"]["init_student"])  # fmt: skip
        teacher = _check_or_take(teacher, name, "teacher", result["teacher"],
                                 result["teacher"] is not None)  # fmt: skip
        length = result["iterations"]
        known = _check_or_take(seen.get(length), name, "images", result["seen"], True)
        if known is not None:
            seen[length] = known


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Which of :data:`SAME` two results of one cell do not have in common."""
    return [entry for entry in SAME if before[entry] != after[entry]]


def _check_or_take(
    known: tuple[str, str] | None, name: str, what: str, value: str, counts: bool
) -> tuple[str, str] | None:
    if not counts:
        return known
    if known is None:
        return name, value
    _check_equal(known[0], name, what, known[1], value)
    return known


def _check_equal(first: str, second: str, what: str, before: Any, now: Any) -> None:
    if before != now:
        raise StudyError(
            f"{first} and {second} are of one block, but differ in {what}: {before!r} and {now!r}. "
            "Cells of a block are compared, so they are trained with the same code on the same "
            "kind of machine: remove the files of the block and train all of it, or leave it to "
            "where it was begun"
        )
