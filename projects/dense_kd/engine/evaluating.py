"""What ``dense-kd eval`` does: find the weights, evaluate them, and set the metrics out."""

from __future__ import annotations

import argparse
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
from ..evaluation.side_by_side import as_text, side_by_side
from ..evaluation.text import shown
from ..json_files import check_json, without_nan, write_json
from ..recipes import PUBLISHED
from . import command
from .checks import RunError, load_config
from .checks.files import last_checkpoint
from .checks.overrides import gives
from .checks.tree import is_call_of, select

_KEY = "train.init_checkpoint"
_OF_A_CLASS = re.compile(r"AP-(.+)")


def start(args: argparse.Namespace) -> None:
    """Evaluate as the arguments say, and print the tables of :func:`tables`.

    Args:
        args: those of :func:`.command.start`, ``weights``, a file or None, ``errors``, whether to
            analyse the detections, too, and ``json``, a file to write or None.

    Raises:
        RunError: something is wrong with the options, the config or its overrides, or weights are
            given twice.
        MissingExtraError: ``errors`` needs hotcoco, which is not installed.
        SaveError: ``json`` cannot be written, or is a file of somebody else.
    """
    check_json(args.json, "metrics")
    key = "model.teacher.weights" if args.eval_teacher else _KEY
    weights = args.weights
    overridden = _overridden(key, args.opts, weights)
    if weights is None and not overridden and not args.eval_teacher:
        weights = weights_of(args.config_file, args.opts)
    if weights is not None:
        quoted = weights.replace("\\", "\\\\").replace('"', '\\"')
        args.opts.append(f'{key}="{quoted}"')
    if args.errors:
        _keep_detections(args)
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
            content |= _errors(args.detections, args.dataset)
        if args.json:
            write_json(Path(args.json), without_nan(content))
    return results


def _keep_detections(args: argparse.Namespace) -> None:
    """Have the evaluator write ``args.detections``, of ``args.dataset``; what is there is removed.

    Raises:
        RunError: it is not COCO's evaluator, which writes them.
        MissingExtraError: hotcoco, which analyses them, is not installed.
    """
    require_hotcoco()
    cfg = load_config(args.config_file, args.opts)
    evaluator = select(cfg, "dataloader.evaluator")
    if not is_call_of(evaluator, COCOEvaluator):
        found = select(cfg, "dataloader.evaluator._target_")
        raise RunError(
            [
                f"--errors: the evaluator of {args.config_file} is {found!r}, and what it finds "
                "cannot be analysed; expected a COCOEvaluator, or no --errors"
            ]
        )
    folder = Path(str(evaluator.get("output_dir") or Path(str(cfg.train.output_dir)) / "inference"))
    args.detections, args.dataset = folder / DETECTIONS, evaluator.dataset_name
    args.detections.unlink(missing_ok=True)
    args.opts.append(f'dataloader.evaluator.output_dir="{folder.as_posix()}"')


def _errors(detections: Path, dataset: str) -> dict[str, Any]:
    """Print what :func:`side_by_side` finds of the evaluation that ran."""
    if not detections.exists() or not read_results(str(detections)):
        print("\nnothing was detected, so there are no errors to analyse", flush=True)
        return {}
    annotations = MetadataCatalog.get(dataset).json_file
    found = side_by_side(annotations, {"evaluated": str(detections)})
    print(f"\n{as_text(found)}", flush=True)
    (run,) = found["runs"].values()
    return {"annotations": annotations, "run": run}


def weights_of(config: str, overrides: list[str], given: str | None = None) -> str:
    """The weights that belong to a config.

    Args:
        config: its name or path.
        overrides: of it.
        given: beside it.

    Returns:
        Those that are given, or what an override names (``train.init_checkpoint=FILE``; in the
        config itself these are weights to start from); or else the last checkpoint of its own run
        if there is one, beside the config if that is the ``config.yaml`` of a run's folder; or else
        what is published.

    Raises:
        RunError: there is none of these, there are both of the first two, or the config cannot be
            loaded.
    """
    cfg = load_config(config, overrides)
    overridden = _overridden(_KEY, overrides, given)
    if given is not None:
        return given
    named = select(cfg, _KEY)
    if named and overridden:
        return str(named)
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


def _overridden(key: str, overrides: list[str], given: str | None) -> bool:
    """Whether an override names weights.

    Raises:
        RunError: it does so beside those that are given.
    """
    found = gives(overrides, key)
    if found and given is not None:
        raise RunError(
            [
                f"weights are given twice, as {given} and by an override of {key}; expected one of "
                "the two"
            ]
        )
    return found


def tables(results: Mapping[str, Mapping[str, float]]) -> str:
    """Metrics as text: a table with a line for each task, and one with the AP of each class.

    Args:
        results: {task: metrics}, as evaluators return it.
    """
    found = []
    for task, metrics in results.items():
        numbers = {name: value for name, value in metrics.items() if not _OF_A_CLASS.match(name)}
        found.append(
            _table([task, *numbers], [["", *(shown(value, "-") for value in numbers.values())]])
        )
        of_classes = [
            [match[1], shown(value, "-")]
            for name, value in metrics.items()
            if (match := _OF_A_CLASS.match(name))
        ]
        if of_classes:
            found.append(_table(["class", "AP"], of_classes))
    return "\n\n".join(found)


def _table(header: list[str], rows: list[list[str]]) -> str:
    align = ["left", *["right"] * (len(header) - 1)]
    return tabulate(rows, header, tablefmt="simple", disable_numparse=True, colalign=align)
