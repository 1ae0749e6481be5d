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
from detectron2.data import DatasetCatalog, MetadataCatalog

from ..benchmark.machine import circumstances
from ..checkpoint import FINAL_CHECKPOINT
from ..checkpoint.places import check_folder
from ..data.shapes import DEFAULT_SIZES, default_shapes_root, generate_shapes
from ..engine.building import build
from ..engine.checks import RunError, data
from ..engine.checks.errors import choice
from ..engine.fingerprint import environment, result_settings
from ..engine.processes import Run, TrainingError, clock, say, train_together
from ..evaluation.coco import read_annotations, require_hotcoco
from ..json_files import read_json, write_json
from ..methods import DistillationError
from .cells import Cell
from .errors import StudyError
from .measuring import check_classes
from .results import (
    check_block,
    check_here,
    differences,
    keep,
    keep_failure,
    read_cell,
    read_study_folder,
    surroundings,
)
from .study_file import Block, read_study
from .worker import RESULT, config_digest, file_weights_digest

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
    at the end, and kept among the results as one that failed; the others are trained.

    Args:
        name: of :func:`.study_file.find_study`.
        settings: see there.

    Returns:
        {name of the cell: result}, of all that are there.

    Raises:
        StudyError: the study is wrong, a method does not go with a pair, results belong to another
            study, a block was begun with another config, or cells failed.
        RunError: an override is wrong, or a dataset is not there.
        MissingExtraError: hotcoco is not installed.
        SaveError: nothing can be written to the folders of ``settings``.
        Preempted: a signal came; what was trained is kept.
    """
    study = read_study(name)
    for option in ("jobs", "threads"):
        _check_count(option, getattr(settings, option))
    if not settings.teacher_gb >= 0:
        raise StudyError(f"teacher_gb is {settings.teacher_gb}; expected gigabytes, or 0")
    require_hotcoco()
    folder = settings.results or settings.output / "results"
    for place in (settings.output, folder):
        check_folder(place)
    blocks = study.chosen(settings.only)
    _check_buildable(blocks)
    known = read_study_folder(study, folder).students
    total = sum(len(block.cells) for block in blocks)
    left = [cell for block in blocks for cell in block.cells if cell.name not in known]
    say(f"{study.name}: {total - len(left)} of {total} cells are there, in {folder}")
    # Whole blocks, of which a part may be asked for: what is there already is compared with it.
    waiting = [(block, [cell for cell in block.cells if cell in left]) for block in study.blocks]
    waiting = [(block, cells) for block, cells in waiting if cells]
    _check_configs([block for block, _ in waiting], known, folder)
    if settings.dry_run:
        for cell in left:
            print(f"    {cell.name}", flush=True)
        return known
    if left:
        _make_data(study.evaluate)
    _check_data([*(block.teacher for block, _ in waiting if block.teacher), *left])
    progress = _Progress(
        {cell.name: cell.lazy_config().train.max_iter for cell in left}, settings.jobs
    )
    failed: dict[str, str] = {}
    for block, cells in waiting:
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
        RunError: a dataset is not there.
        SaveError: nothing can be written to ``output``.
        TrainingError: a training failed.
    """
    cell, before = read_cell(file)
    _check_count("threads", threads)
    require_hotcoco()
    check_folder(output)
    if config_digest(cell) != before["config"]:
        say(
            f"{cell.name} had another config: {cell.config}, or what it is made of, has changed "
            f"since commit {_short(before['commit'])}, so it will come out otherwise"
        )
    _make_data(cell.evaluate)
    _check_data([*filter(None, (cell.teacher, cell))])
    threads = before["threads"] if threads is None else threads
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
                for name in cell.evaluate:  # its config has registered them
                    if name not in DatasetCatalog:
                        raise StudyError(
                            f"evaluate: no dataset {name!r} is registered, also not by "
                            f"{cell.config}; {choice(name, DatasetCatalog)}"
                        )


def _check_configs(
    blocks: Sequence[Block], known: Mapping[str, Mapping[str, Any]], folder: Path
) -> None:
    """What these blocks have was trained by the configs that the rest will be trained by."""
    for block in blocks:
        for cell in block.cells:
            before = known.get(cell.name)
            if before is not None and before["config"] != config_digest(cell):
                raise StudyError(
                    f"{folder / cell.file_name} was trained with another config: {cell.config}, or "
                    f"what it is made of, has changed since (commit {_short(before['commit'])}). "
                    "Cells of a block are compared, so they are trained by the same: put it back, "
                    "or remove the files of the block and train all of it"
                )


def _check_data(cells: Sequence[Cell]) -> None:
    """All datasets of a cell are there and of the same classes, before it is trained."""
    checked = set()
    found: list[str] = []
    for cell in cells:
        key = cell.config, cell.overrides, cell.evaluate
        if key in checked:
            continue
        checked.add(key)
        cfg = cell.bare_config()
        for name in cell.evaluate:
            cfg.dataloader.test.dataset.names = name
            found += data.problems(cfg, "train")
    if found:
        raise RunError(found)
    for evaluate in dict.fromkeys(cell.evaluate for cell in cells):
        files = {name: MetadataCatalog.get(name).get("json_file") for name in evaluate}
        check_classes({name: read_annotations(file) for name, file in files.items() if file})


def _check_count(option: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise StudyError(f"{option} is {value}; expected 1 or more")


def _make_data(evaluate: Sequence[str]) -> None:
    splits = {name.removeprefix(_SHAPES) for name in evaluate if name.startswith(_SHAPES)}
    for split in ({"train"} | splits) & set(DEFAULT_SIZES) if splits else ():
        generate_shapes(default_shapes_root(), split, DEFAULT_SIZES[split])


def _short(commit: str | None) -> str:
    return (commit or "unknown")[:10]


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
    if block.teacher and block.teacher.name in failed:  # in the block of another seed
        _drop(block.teacher, taught, progress, failed)
        taught = []
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
        (cell,) = (c for c in (block.teacher, *block.cells) if c and c.name == run.title)
        device = torch.device(str(cell.lazy_config().train.device))
        keep_failure(folder, cell, str(error), circumstances(device))
        if run.title != teacher_title:
            say(f"{run.title} failed; the others go on")
            say(progress.after(run))
            return
        _drop(cell, taught, progress, failed)

    train_together(runs, at_once=settings.jobs, finished=finished, failed=fails, then=students_of)
    shutil.rmtree(passes, ignore_errors=True)


def _drop(
    teacher: Cell, students: Sequence[Cell], progress: _Progress, failed: dict[str, str]
) -> None:
    """None of them can be trained."""
    for cell in students:
        failed[cell.name] = f"{cell.name} was not trained, since its teacher failed"
        progress.drop(cell.name)
    if students:
        say(f"{teacher.name} failed, so none of its students is trained; the others go on")


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
