"""Trains and evaluates one cell: the process that ``dense-kd study`` starts for it."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from .. import allocation, noise
from ..benchmark.machine import circumstances, load_average
from ..checkpoint import FINAL_CHECKPOINT, read_weights
from ..engine.building import count_parameters
from ..engine.checks import check_run
from ..engine.command import set_up
from ..engine.fingerprint import result_settings
from ..engine.processes import read_metrics
from ..engine.run import train
from ..engine.stopping import ends_as_preempted
from ..errors import DenseKDError
from ..json_files import read_json, write_json
from ..methods.balance import SCALARS
from ..random_state import kept_random_state
from .cells import Cell
from .errors import StudyError
from .measuring import measure
from .watching import Watch, peak_memory, read_watched, tensors_digest

__all__ = ["FORMAT", "RESULT", "file_weights_digest", "main", "run_cell"]

FORMAT = 1
"""Of a result; it changes when an entry changes its meaning or goes."""

RESULT = "result.json"
_SHARE = "diag/share_"
_FACTOR = SCALARS["factor"]
_BALANCED = SCALARS["share"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the cell of a file; its teacher's weights are named beside it.

    Args:
        argv: the file of :func:`run_cell`'s arguments, a folder, and maybe ``--resume``.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("order", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args(argv)
    noise.silence()
    allocation.keep_freed_memory()
    order = read_json(args.order)
    try:
        cell = Cell.of_json(order.get("cell"), str(args.order))
        with ends_as_preempted():
            run_cell(
                cell,
                args.folder,
                order.get("teacher"),
                teacher_options=order.get("teacher_options"),
                resume=args.resume,
            )
    except DenseKDError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def run_cell(
    cell: Cell,
    folder: Path,
    teacher_weights: str | None = None,
    *,
    teacher_options: Mapping[str, Any] | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """Train and evaluate a cell.

    Args:
        cell: to train.
        folder: of the run; its result is written to :data:`RESULT` there.
        teacher_weights: the file that the teacher's cell ended with.
        teacher_options: of :class:`dense_kd.Teacher`, that change no number, as those of a cache.
        resume: go on with what is in the folder.

    Returns:
        what is in the file.

    Raises:
        StudyError: a cell with a teacher is given no weights of it.
        RunError: something is wrong with the config.
        Preempted: it was told to stop, and can go on.
    """
    if cell.teacher is not None and teacher_weights is None:
        raise StudyError(f"{cell.name} has a teacher; expected a file of its weights")
    cfg = cell.lazy_config(teacher_weights)
    cfg.train.output_dir = str(folder)
    if teacher_options:
        cfg.model.teacher.update(teacher_options)
    words = argparse.Namespace(config_file=cell.config, resume=resume, opts=[])
    words.eval_only = words.eval_teacher = False
    before = load_average()
    check_run(cfg, "train", resume=resume)
    set_up(cfg, words)
    train(words, cfg, more_hooks=[Watch(folder)])
    device = torch.device(str(cfg.train.device))
    memory = peak_memory(device)
    with kept_random_state():
        result = {
            "format": FORMAT,
            "cell": cell.as_json(),
            "config": config_digest(cell),
            "teacher": file_weights_digest(Path(teacher_weights)) if teacher_weights else None,
            **read_watched(folder, cfg.train.max_iter, cell.diagnostics),
            "weights": file_weights_digest(folder / FINAL_CHECKPOINT),
            "iterations": cfg.train.max_iter,
            "parameters": count_parameters(cell.bare_config().model),
            **measure(cell, folder / FINAL_CHECKPOINT, folder / "found"),
            **_logged(cfg, folder),
            "peak_memory": memory,
            "threads": torch.get_num_threads(),
            "load": {"before": before, "after": load_average()},
            "code": result_settings(cfg)["code"],
            **circumstances(device),
        }
    write_json(folder / RESULT, result)
    return result


def config_digest(cell: Cell) -> str:
    """Of the config as a text, with all that it names, but for folders."""
    cfg = cell.lazy_config()
    cfg.train.output_dir = ""
    if cell.teacher is not None:
        cfg.model.teacher.weights = ""
    return hashlib.sha256(result_settings(cfg)["config"].encode()).hexdigest()


def file_weights_digest(file: Path) -> str:
    """Of the tensors of a detector in a checkpoint, whatever else the file holds."""
    return tensors_digest(read_weights(str(file)))


def _logged(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """The curve, the mean share of the gradient of each method, and of Balance the last factors and
    the mean of its shares in the second half, where they have settled."""
    curve: dict[int, list[Any]] = {}
    factors: dict[str, float] = {}
    shares: dict[str, dict[int, float]] = {}
    balanced: dict[str, dict[int, float]] = {}
    for record in read_metrics(folder):
        done = min(record.get("iteration", 0) + 1, cfg.train.max_iter)
        if record.get("bbox/AP") is not None:
            curve[done] = [record["bbox/AP"], record.get("bbox/AP50")]
        for key, value in record.items():
            if key.startswith(_SHARE) and value is not None:
                shares.setdefault(key.removeprefix(_SHARE), {})[done] = value
            if key.startswith(_BALANCED) and value is not None and done > cfg.train.max_iter / 2:
                balanced.setdefault(key.removeprefix(_BALANCED), {})[done] = value
            if key.startswith(_FACTOR) and value is not None:
                factors[key.removeprefix(_FACTOR)] = value
    return {
        "curve": [[done, *values] for done, values in sorted(curve.items())],
        "shares": _means(shares),
        "balance_shares": _means(balanced),
        "factors": factors,
    }


def _means(values: Mapping[str, Mapping[int, float]]) -> dict[str, float]:
    return {name: sum(of.values()) / len(of) for name, of in sorted(values.items())}


if __name__ == "__main__":
    sys.exit(main())
