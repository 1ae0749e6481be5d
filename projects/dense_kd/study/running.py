"""``dense-kd study``: what is left of a study is trained, cell by cell, and written."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..benchmark.machine import circumstances
from ..checkpoint import FINAL_CHECKPOINT
from ..data.shapes import DEFAULT_SIZES, default_shapes_root, generate_shapes
from ..engine.building import build
from ..engine.fingerprint import environment, result_settings
from ..engine.processes import Run, TrainingError, clock, say, train_together
from ..evaluation.coco import require_hotcoco
from ..json_files import read_json, write_json
from ..methods import DistillationError
from .cells import Cell
from .errors import StudyError
from .results import (
    check_block,
    check_here,
    differences,
    keep,
    read_cell,
    read_folder,
    surroundings,
)
from .study_file import Block, Study, read_study
from .worker import RESULT, file_weights_digest

__all__ = ["Settings", "recompute", "run_study"]

_SHAPES = "shapes_"


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a study is run.

    Attributes:
        output: folder of the trainings.
        results: of the files that are kept; None is ``results`` in ``output``.
        jobs: cells at a time.
        threads: of each.
        teacher_gb: gigabytes that the passes of a block's teacher may take in ``output`` until its
            cells are done, which all see the same batches; 0 runs the teacher for each cell.
        only: names of cells, see :meth:`.study_file.Study.chosen`.
        dry_run: print what would be trained, and train nothing.
    """

    output: Path
    results: Path | None = None
    jobs: int = 1
    threads: int = 1
    teacher_gb: float = 0.0
    only: Sequence[str] = ()
    dry_run: bool = False


def run_study(name: str, settings: Settings) -> dict[str, dict[str, Any]]:
    """Train the cells of a study that have no result yet.

    It can be stopped or killed at any time, and the same call goes on. A cell that fails is named
    at the end; the others are trained.

    Args:
        name: of :func:`.study_file.find_study`.
        settings: see there.

    Returns:
        {name of the cell: result}, of all that are there.

    Raises:
        StudyError: the study is wrong, a method does not go with a pair, results belong to another
            study, or cells failed.
        RunError: an override is wrong.
        MissingExtraError: hotcoco is not installed.
        Preempted: a signal came; what was trained is kept.
    """
    study = read_study(name)
    for option in ("jobs", "threads"):
        if getattr(settings, option) < 1:
            raise StudyError(f"{option} is {getattr(settings, option)}; expected 1 or more")
    if not settings.teacher_gb >= 0:
        raise StudyError(f"teacher_gb is {settings.teacher_gb}; expected gigabytes, or 0")
    require_hotcoco()
    blocks = study.chosen(settings.only)
    _check_buildable(blocks)
    folder = settings.results or settings.output / "results"
    known = _known_results(study, folder)
    left = {cell.name for block in blocks for cell in block.cells} - set(known)
    total = sum(len(block.cells) for block in blocks)
    say(f"{study.name}: {total - len(left)} of {total} cells are there, in {folder}")
    if settings.dry_run:
        for block in blocks:
            for cell in block.cells:
                if cell.name in left:
                    print(f"    {cell.name}", flush=True)
        return known
    _make_data(study)
    progress = _Progress(
        {
            cell.name: cell.lazy_config().train.max_iter
            for block in blocks
            for cell in block.cells
            if cell.name in left
        },
        settings.jobs,
    )
    failed: dict[str, str] = {}
    for block in blocks:
        cells = [cell for cell in block.cells if cell.name in left]
        if cells:
            _run_block(block, cells, settings, folder, known, progress, failed)
    if failed:
        raise StudyError(
            "\n".join([f"{len(failed)} cells failed, the others are done:", *failed.values()])
        )
    return known


def recompute(file: Path, output: Path, threads: int | None = None) -> list[str]:
    """Train the cell of a result again, and its teacher, if that is not there.

    Args:
        file: the result.
        output: folder of the trainings.
        threads: of each; None is as many as the result had.

    Returns:
        the entries of :data:`.results.SAME` that have come out otherwise.

    Raises:
        StudyError: the file is no result.
        TrainingError: a training failed.
    """
    cell, before = read_cell(file)
    require_hotcoco()
    threads = threads or before["threads"]
    weights = None
    if cell.teacher is not None:
        teacher = _run_of(cell.teacher, output, threads)
        train_together([teacher])
        weights = teacher.folder / FINAL_CHECKPOINT
        digest = file_weights_digest(weights)
        if digest != before["teacher"]:
            say(
                f"the teacher has come out as {digest[:8]}, and was {before['teacher'][:8]}: "
                "another machine, or other code"
            )
    run = _run_of(cell, output, threads, weights)
    train_together([run])
    return differences(before, read_json(run.folder / RESULT))


def _check_buildable(blocks: Sequence[Block]) -> None:
    """Errors of the last cell are found before the first is trained."""
    checked = set()
    for block in blocks:
        for cell in filter(None, (block.teacher, *block.cells)):
            same_but_seed = dataclasses.replace(cell, seed=0).digest
            if same_but_seed not in checked:
                checked.add(same_but_seed)
                try:
                    build(cell.lazy_config().model, f"{cell.name}: model")
                except DistillationError as error:
                    raise StudyError(f"{cell.name}: {error}") from error


def _known_results(study: Study, folder: Path) -> dict[str, dict[str, Any]]:
    known = read_folder(folder)
    planned = {cell.name: cell for cell in study.cells()}
    for name, result in known.items():
        if name in planned and result["cell"] != planned[name].as_json():
            now = planned[name].as_json()
            changed = [key for key in now if now[key] != result["cell"].get(key)]
            raise StudyError(
                f"{folder / planned[name].file_name} is of a cell with other {', '.join(changed)} "
                f"than {study.name} has now; give another folder (--results), or remove the file"
            )
    return {name: result for name, result in known.items() if name in planned}


def _make_data(study: Study) -> None:
    splits = {name.removeprefix(_SHAPES) for name in study.evaluate if name.startswith(_SHAPES)}
    for split in ({"train"} | splits) & set(DEFAULT_SIZES) if splits else ():
        generate_shapes(default_shapes_root(), split, DEFAULT_SIZES[split])


def _run_block(
    block: Block,
    cells: Sequence[Cell],
    settings: Settings,
    folder: Path,
    known: dict[str, dict[str, Any]],
    progress: _Progress,
    failed: dict[str, str],
) -> None:
    begun = {cell.name: known[cell.name] for cell in block.cells if cell.name in known}
    here = _surroundings_here(cells[0], settings.threads)
    check_here(begun, here)
    taught = [cell for cell in cells if cell.teacher]
    runs = [_run_of(cell, settings.output, settings.threads) for cell in cells if not cell.teacher]
    if block.teacher and taught:
        runs = [_run_of(block.teacher, settings.output, settings.threads), *runs]
    teacher_title = block.teacher.name if block.teacher else None
    passes = settings.output.absolute() / "passes" / block.pair / str(block.seed)
    options: dict[str, Any] = {}
    if settings.teacher_gb:
        options = {"cache": str(passes), "cache_by": "batch", "cache_gb": settings.teacher_gb}

    def finished(run: Run) -> None:
        result = read_json(run.folder / RESULT)
        if run.title == teacher_title:
            check_here(begun, here, result["weights"])
            keep(folder, result)
            return
        name = Cell.of_json(result.get("cell"), str(run.folder / RESULT)).name
        block_results = {
            cell.name: known[cell.name]
            for cell in block.cells
            if cell.name in known and cell.name != name
        }
        check_block({**block_results, name: result})
        keep(folder, result)
        known[name] = result
        say(progress.after(run))

    def students_of(run: Run) -> list[Run]:
        """Those that the teacher has to be there for."""
        if run.title != teacher_title:
            return []
        weights = run.folder / FINAL_CHECKPOINT
        return [
            _run_of(cell, settings.output, settings.threads, weights, options) for cell in taught
        ]

    def fails(run: Run, error: TrainingError) -> None:
        failed[run.title] = str(error)
        if run.title != teacher_title:
            say(f"{run.title} failed; the others go on")
            say(progress.after(run))
            return
        for cell in taught:
            failed[cell.name] = f"{cell.name} was not trained, since its teacher failed"
            progress.drop(cell.name)
        say(f"{run.title} failed, so none of its students is trained; the others go on")

    train_together(runs, at_once=settings.jobs, finished=finished, failed=fails, then=students_of)
    shutil.rmtree(passes, ignore_errors=True)


def _surroundings_here(cell: Cell, threads: int) -> dict[str, Any]:
    cfg = cell.lazy_config()
    about = circumstances(torch.device(str(cfg.train.device)))
    return surroundings({**about, "code": result_settings(cfg)["code"], "threads": threads})


def _run_of(
    cell: Cell,
    output: Path,
    threads: int,
    teacher: Path | None = None,
    teacher_options: Mapping[str, Any] | None = None,
) -> Run:
    """The training of a cell; what it starts from has to be there. One without a teacher has no use
    for the weights and options of one."""
    if cell.teacher is None:
        teacher, teacher_options = None, None
    cfg = cell.lazy_config(str(teacher.absolute()) if teacher else None)
    folder = output / cell.name
    order = output / "orders" / cell.file_name
    content = {
        "cell": cell.as_json(),
        "teacher": str(teacher.absolute()) if teacher else None,
        "teacher_options": teacher_options,
    }
    write_json(order, content)
    if cell.teacher is not None:
        cfg.model.teacher.weights = ""  # a place; its digest is what counts
    return Run(
        title=cell.name,
        folder=folder,
        command=["-m", "dense_kd.study.worker", str(order.absolute()), str(folder.absolute())],
        iterations=cfg.train.max_iter,
        settings={
            **result_settings(cfg),
            "cell": cell.as_json(),
            "teacher": file_weights_digest(teacher) if teacher else None,
            "threads": threads,
        },
        environment={**environment(threads), **_inherited("DETECTRON2_DATASETS")},
    )


def _inherited(name: str) -> dict[str, str]:
    return {name: os.environ[name]} if name in os.environ else {}


class _Progress:
    """How many cells are left, and for how long, by the iterations of those that were trained."""

    def __init__(self, left: Mapping[str, int], jobs: int):
        """
        Args:
            left: {name of a cell: its iterations}.
            jobs: cells at a time.
        """
        self._left = dict(left)
        self._jobs = jobs
        self._total = len(left)
        self._trained = (0.0, 0)  # seconds, iterations
        self._begin = time.monotonic()

    def drop(self, name: str) -> None:
        """A cell that will not be trained."""
        self._left.pop(name, None)

    def after(self, run: Run) -> str:
        """A line, once ``run`` is done, or has failed."""
        self.drop(run.title)
        if run.seconds:
            seconds, iterations = self._trained
            self._trained = seconds + run.seconds, iterations + run.iterations
        line = f"{self._total - len(self._left)} of {self._total} cells done"
        seconds, iterations = self._trained
        if self._left and iterations:
            rest = seconds / iterations * sum(self._left.values()) / self._jobs
            line += f", about {clock(rest)} left"
        return f"{line} ({clock(time.monotonic() - self._begin)} so far)"
