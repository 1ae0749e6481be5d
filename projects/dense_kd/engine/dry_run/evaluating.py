"""One evaluation on a few images, by the evaluators of a config."""

from __future__ import annotations

import contextlib
import inspect
import io
import math
import os
import time
from typing import Any

import numpy as np
import torch
from detectron2.evaluation import PascalVOCDetectionEvaluator
from omegaconf import DictConfig
from torch import nn

from ..checks.tree import calls, select
from ..evaluation import build_evaluator, each_evaluator, metrics_of
from ..state.keeping import check_best
from .attempts import described
from .data import Batch
from .results import EvaluationFacts


def evaluator_in(cfg: DictConfig, folder: str) -> Any:
    """The evaluator of a config, which writes to ``folder`` if it writes to one at all.

    Raises:
        RunError: it cannot be built, or does not give the metric of ``train.checkpointer.best``.
    """
    for _, node in calls(cfg.dataloader.evaluator, "dataloader.evaluator"):
        if node.get("output_dir") is not None:
            node.output_dir = folder
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = build_evaluator(cfg)
    best, metrics = select(cfg, "train.checkpointer.best"), metrics_of(evaluator)
    if best and metrics is not None:
        check_best(best, metrics)
    return evaluator


def evaluate_part(
    evaluator: Any, model: nn.Module, batches: list[Batch], folder: str, all_images: bool
) -> tuple[EvaluationFacts, list[str]]:
    """One evaluation of ``model``.

    Args:
        evaluator: one, or several.
        model: as it is.
        batches: what it is evaluated on.
        folder: for temporary files.
        all_images: whether these are all images of the test set.

    Returns:
        the facts, and warnings of evaluators that may not be able to judge a part.
    """
    model.eval()
    evaluators = each_evaluator(evaluator)
    ids = [image.get("image_id") for batch in batches for image in batch]
    for each in evaluators:
        each.reset()
    start = time.perf_counter()
    with torch.no_grad():
        for batch in batches:
            outputs = model(batch)
            for each in evaluators:
                each.process(batch, outputs)
    metrics: dict[str, float | None] = {}
    how, warnings = [], []
    for each in evaluators:
        name = type(each).__name__
        with contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
            if all_images:
                metrics.update(_numbers(each.evaluate()))
                how.append(f"{name} on all images")
            elif "img_ids" in inspect.signature(each.evaluate).parameters:
                metrics.update(_numbers(each.evaluate(img_ids=ids)))
                how.append(f"{name} on these images only")
            elif isinstance(each, PascalVOCDetectionEvaluator):
                each._image_set_path = _written(ids, folder)
                each.evaluate()
                how.append(
                    f"{name} on these images only; its numbers, in which classes that are "
                    "not in them count as 0, are left out"
                )
            else:
                how.append(f"{name}, whose numbers are left out: other images count as missed")
                try:
                    each.evaluate()
                except Exception as error:  # of any evaluator
                    warnings.append(
                        f"{name} could not evaluate {len(ids)} images of the test set, and may "
                        f"need all of them: {described(error)}"
                    )
    facts = EvaluationFacts(
        evaluators=[type(each).__name__ for each in evaluators],
        num_images=len(ids),
        how="; ".join(how),
        metrics=metrics,
        seconds_per_image=(time.perf_counter() - start) / len(ids),
    )
    return facts, warnings


def _written(ids: list[Any], folder: str) -> str:
    """A list of images as Pascal VOC has them."""
    path = os.path.join(folder, "images.txt")
    with open(path, "w") as file:
        file.writelines(f"{name}\n" for name in ids)
    return path


def _numbers(results: Any) -> dict[str, float | None]:
    """{"bbox/AP": 41.2}; what is not defined is None."""
    found: dict[str, float | None] = {}
    for task, metrics in (results or {}).items():
        for name, value in metrics.items() if hasattr(metrics, "items") else ():
            if not name.startswith("AP-"):  # of single classes
                found[f"{task}/{name}"] = float(value) if math.isfinite(value) else None
    return found
