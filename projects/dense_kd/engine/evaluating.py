"""What ``dense-kd eval`` does: find the weights, evaluate them, and set the metrics out."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.utils import comm
from tabulate import tabulate

from .. import config as project
from ..evaluation.analysis import read_results
from ..evaluation.coco import DETECTIONS, require_hotcoco
from ..evaluation.side_by_side import as_text, side_by_side, without_nan
from ..json_files import write_json
from ..recipes import PUBLISHED
from . import command
from .checks import RunError, load_config
from .checks.tree import select

_OF_A_CLASS = re.compile(r"AP-(.+)")


def start(args: argparse.Namespace) -> None:
    """Evaluate as the arguments say, and print the tables of :func:`tables`.

    Args:
        args: those of :func:`.command.start`, ``weights``, a file or None, ``errors``, whether to
            analyse the detections, too, and ``json``, a file to write or None.

    Raises:
        RunError: something is wrong with the options, the config or its overrides.
        MissingExtraError: ``errors`` needs hotcoco, which is not installed.
    """
    key = "model.teacher.weights" if args.eval_teacher else "train.init_checkpoint"
    weights = args.weights
    given = weights is not None or any(override.startswith(f"{key}=") for override in args.opts)
    if not given and not args.eval_teacher:
        weights = weights_of(args.config_file, args.opts)
    if weights is not None:
        quoted = weights.replace("\\", "\\\\").replace('"', '\\"')
        args.opts.append(f'{key}="{quoted}"')
    if args.errors:
        args.opts.append(f'dataloader.evaluator.output_dir="{_folder_of_detections(args)}"')
    command.start(args, evaluate_and_print)


def evaluate_and_print(args: argparse.Namespace) -> dict[str, Any]:
    """Evaluate, as one of the processes of a run; the first one prints.

    Args:
        args: of :func:`.command.run_process`.
    """
    results = command.run_process(args)
    if comm.is_main_process():
        print(f"\n{tables(results)}", flush=True)
        content: dict[str, Any] = {"metrics": dict(results)}
        if args.errors:
            content |= _errors(args)
        if args.json:
            write_json(Path(args.json), without_nan(content))
    return results


def _folder_of_detections(args: argparse.Namespace) -> str:
    """Where the evaluator of a config is to write them; those of another evaluation are removed.

    Raises:
        RunError: it is not COCO's evaluator, which writes them.
        MissingExtraError: hotcoco, which analyses them, is not installed.
    """
    require_hotcoco()
    cfg = load_config(args.config_file, args.opts)
    target = select(cfg, "dataloader.evaluator._target_")
    if not (isinstance(target, type) and issubclass(target, COCOEvaluator)):
        raise RunError(
            [
                f"--errors: the evaluator of {args.config_file} is {target!r}, and what it finds "
                "cannot be analysed; expected a COCOEvaluator, or no --errors"
            ]
        )
    given = select(cfg, "dataloader.evaluator.output_dir")
    folder = Path(str(given or Path(str(cfg.train.output_dir)) / "inference"))
    (folder / DETECTIONS).unlink(missing_ok=True)
    return folder.as_posix()


def _errors(args: argparse.Namespace) -> dict[str, Any]:
    """Print what :func:`side_by_side` finds of the evaluation that ran."""
    evaluator = load_config(args.config_file, args.opts).dataloader.evaluator
    file = Path(evaluator.output_dir) / DETECTIONS
    if not file.exists() or not read_results(str(file)):
        print("\nnothing was detected, so there are no errors to analyse", flush=True)
        return {}
    annotations = MetadataCatalog.get(evaluator.dataset_name).json_file
    found = side_by_side(annotations, {"evaluated": str(file)})
    print(f"\n{as_text(found)}", flush=True)
    (run,) = found["runs"].values()
    return {"annotations": annotations, "run": run}


def weights_of(config: str, overrides: list[str]) -> str:
    """The weights that belong to a config.

    Args:
        config: its name or path.
        overrides: of it.

    Returns:
        The last checkpoint of its own run if there is one, beside the config if that is the
        ``config.yaml`` of a run's folder; or else what is published for it.

    Raises:
        RunError: there is neither, or the config cannot be loaded.
    """
    cfg = load_config(config, overrides)
    folder = Path(str(select(cfg, "train.output_dir", "")))
    file = Path(str(project.find_config(config))).resolve()
    for place in (*([file.parent] if file.name == "config.yaml" else []), folder):
        last = last_checkpoint(place)
        if last is not None:
            return last
    for name, weights in PUBLISHED.items():
        if file == (project.config_folder() / name).resolve():
            return weights
    raise RunError(
        [
            f"there are no weights to evaluate: {folder} holds no checkpoint of a run, and "
            f"none are published for {config}; give a file after the config, or train it first"
        ]
    )


def last_checkpoint(folder: str | Path) -> str | None:
    """The last checkpoint of the run in a folder, None if there is none."""
    record = Path(folder) / "last_checkpoint"
    return str(Path(folder) / record.read_text().strip()) if record.is_file() else None


def tables(results: Mapping[str, Mapping[str, float]]) -> str:
    """Metrics as text: a table with a line for each task, and one with the AP of each class.

    Args:
        results: {task: metrics}, as evaluators return it.
    """
    found = []
    for task, metrics in results.items():
        numbers = {name: value for name, value in metrics.items() if not _OF_A_CLASS.match(name)}
        found.append(_table([task, *numbers], [["", *map(_number, numbers.values())]]))
        of_classes = [
            [match[1], _number(value)]
            for name, value in metrics.items()
            if (match := _OF_A_CLASS.match(name))
        ]
        if of_classes:
            found.append(_table(["class", "AP"], of_classes))
    return "\n\n".join(found)


def _number(value: float) -> str:
    # What COCO does not define, as the AP of a size that no object has.
    return "-" if math.isnan(value) else f"{value:.1f}"


def _table(header: list[str], rows: list[list[str]]) -> str:
    align = ["left", *["right"] * (len(header) - 1)]
    return tabulate(rows, header, tablefmt="simple", disable_numparse=True, colalign=align)
