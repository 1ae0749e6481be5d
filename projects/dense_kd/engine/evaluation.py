"""The test loader and the evaluator of a config, built once and before they are needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from detectron2.config import instantiate
from detectron2.data import MetadataCatalog
from detectron2.data.datasets.coco import convert_to_coco_json
from detectron2.evaluation import (
    COCOEvaluator,
    DatasetEvaluators,
    inference_on_dataset,
    print_csv_format,
)
from detectron2.utils import comm
from omegaconf import DictConfig

from .. import compat
from ..evaluation.metrics import lower_is_better, metric_names
from .building import cannot_be_built
from .checks import RunError
from .checks.data import converted_name, is_converted
from .checks.tree import calls, calls_of, select
from .loaders import load_evaluation
from .preemption import InterruptibleEvaluator
from .state.stored_config import at


def rounding_remark(cfg: DictConfig, saved: Mapping[str, Any] | None) -> str:
    """What to say beside metrics of weights that learnt as if in 8-bit integers; "" of others.

    A training evaluates what it trains, which rounds. The weights that it saves are those before
    rounding, and without the ranges of the maps, so that elsewhere they are evaluated in floats.

    Args:
        cfg: that they are evaluated by.
        saved: the plain config of their run, from the checkpoint; None if it has none.
    """
    name = "train.quantization_aware"
    if not (select(cfg, name, False) or at(saved, name) is True):
        return ""
    return (
        f"These metrics are of the weights in floats, as they are saved. With {name}=True the "
        "training evaluates the student as it computes there, as if in 8-bit integers: in "
        "metrics.json, train.checkpointer.best and reports. dense-kd export RUN --to onnx --int8 "
        "evaluates both"
    )


class Evaluation:
    """What evaluates a model as often as wanted; its dataset is loaded once."""

    def __init__(self, cfg: DictConfig, mode: str = "evaluate"):
        """
        Args:
            cfg: with ``dataloader.test`` and ``dataloader.evaluator``.
            mode: see :func:`.checks.check_run`.

        Raises:
            RunError: one of the two cannot be built.
        """
        self.loader = load_evaluation(cfg, mode).loader
        self.evaluator = build_evaluator(cfg)

    @property
    def metrics(self) -> set[str] | None:
        """task/name of all that :meth:`run` will give; None if only the evaluators know."""
        return metrics_of(self.evaluator)

    @property
    def lower_is_better(self) -> set[str]:
        """Those of the metrics of which the lowest is the best, as far as evaluators say so."""
        return set().union(*map(lower_is_better, each_evaluator(self.evaluator)))

    def run(
        self,
        model: Callable[[list[dict[str, Any]]], list[dict[str, Any]]],
        leaves: Callable[[], bool] | None = None,
    ) -> dict[str, Any]:
        """Evaluate ``model`` and print the metrics; {task: metrics}.

        Args:
            model: or a function that does as a detector does.
            leaves: whether to leave the evaluation before its end, asked for each batch.

        Raises:
            LeftEvaluation: it did so, in any process.
        """
        evaluator = InterruptibleEvaluator(self.evaluator, leaves) if leaves else self.evaluator
        results = inference_on_dataset(model, self.loader, evaluator)
        if comm.is_main_process():
            print_csv_format(results)
        return results


_CLASSES = "thing_classes"
_METHODS = ("reset", "process", "evaluate")


def _datasets(node: Any) -> list[str]:
    """Those that the evaluators of a config are for."""
    names = (select(call, "dataset_name") for _, call in calls(node, ""))
    return [name for name in names if isinstance(name, str)]


def _without_classes(place: str, name: str) -> str:
    return (
        f"{place}: the dataset {name} is registered without the names of its classes; give them "
        f"where it is registered, MetadataCatalog.get({name!r}).{_CLASSES} = [...], one for each "
        "category_id from 0"
    )


def each_evaluator(evaluator: Any) -> list[Any]:
    """The evaluators of one that asks several, or of a list, which may hold such."""
    several = getattr(evaluator, "_evaluators", evaluator)
    if isinstance(several, Sequence) and not isinstance(several, str):
        return [each for one in several for each in each_evaluator(one)]
    return [several]


def _equal_results(place: str, evaluators: Sequence[Any]) -> Iterator[str]:
    """Evaluators that are known to give a result of the same name."""
    giving: dict[str, list[str]] = {}
    for each in evaluators:
        for task in {name.partition("/")[0] for name in metric_names(each) or ()}:
            giving.setdefault(task, []).append(type(each).__name__)
    for task, names in giving.items():
        if len(names) > 1:
            yield (
                f"{place} has {' and '.join(names)}, which all give {task!r}, and detectron2 keeps "
                "one result of a name; expected one of them beside others"
            )


def metrics_of(evaluator: Any) -> set[str] | None:
    """task/name of all that an evaluator, or several, will give; None if only they know."""
    names: set[str] = set()
    for each in each_evaluator(evaluator):
        own = metric_names(each)
        if own is None:
            return None
        names |= own
    return names


def build_evaluator(cfg: DictConfig) -> Any:
    """``dataloader.evaluator``; of several in a list, one that asks them all.

    A dataset that is registered with a function is written as a json of COCO's format for COCO's
    evaluators, each time unless ``allow_cached_coco`` is given: detectron2 would take the one that
    an earlier run has left in the folder, of what the dataset was then.

    Raises:
        RunError: it cannot be built, or is no evaluator, or several give a result of one name.
    """
    node, place = cfg.dataloader.evaluator, "dataloader.evaluator"
    functions: dict[str, str] = {}
    for where, call in calls_of(node, place, COCOEvaluator):
        name = select(call, "dataset_name")
        if not isinstance(name, str):
            continue
        json_file, folder = MetadataCatalog.get(name).get("json_file"), select(call, "output_dir")
        if json_file is None and folder is None:
            raise RunError(
                [
                    f"{where}: the dataset {name} is not in a json of COCO's format, so the "
                    f"evaluator writes one; give it a folder, as in {where}.output_dir="
                    f"{select(cfg, 'train.output_dir', 'output')}"
                ]
            )
        asked_for = select(call, "allow_cached_coco") is True  # of detectron2 main
        if not asked_for and (json_file is None or is_converted(name, json_file)):
            functions[name] = json_file or os.path.join(folder, converted_name(name))
    try:
        for name, file in functions.items():
            convert_to_coco_json(name, file, allow_cached=False)
            MetadataCatalog.get(name).json_file = file
        evaluator = instantiate(node)
    except Exception as error:  # of any evaluator
        unnamed = [name for name in _datasets(node) if not MetadataCatalog.get(name).get(_CLASSES)]
        if unnamed and isinstance(error, AttributeError):
            raise RunError([_without_classes(place, name) for name in unnamed]) from error
        raise cannot_be_built(place, error) from error
    several = each_evaluator(evaluator)
    strange = [each for each in several if not all(hasattr(each, name) for name in _METHODS)]
    if strange or not several:
        found = f"a {type(strange[0]).__name__}" if strange else "a list of none"
        raise RunError(
            [
                f"{place} is built as {found}; expected what has {', '.join(_METHODS)}, as "
                "L(COCOEvaluator)(dataset_name=...), or several in a list"
            ]
        )
    problems = [*_equal_results(place, several)]
    if problems:
        raise RunError(problems)
    for each in several:
        compat.use_available_coco_evaluation(each)
    return DatasetEvaluators(several) if isinstance(evaluator, Sequence) else evaluator
