"""What comes out of a distillation: metrics of every detector, bare weights and the report."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.config import instantiate

from .. import compat
from ..checkpoint import FINAL_CHECKPOINT, convert_file, load_strictly
from ..checkpoint.digests import weights_digest
from ..engine import evaluate, load_config
from ..engine.building import count_parameters
from ..engine.processes import Run, read_metrics
from ..json_files import read_json, write_json
from .plan import Plan

__all__ = ["METRICS_FILE", "evaluate_detector", "save_bare_student", "summarize", "write_page"]

METRICS_FILE = "metrics.json"
NUM_PICTURES = 8
SCORE_THRESHOLD = 0.5
_PICTURE_EDGE = 480  # pixels


def save_bare_student(plan: Plan) -> Path:
    """Write the distilled student without what the method trained beside it.

    Returns:
        ``distilled.pth`` in the output folder: a checkpoint of the plain detector.
    """
    target = plan.output / "distilled.pth"
    convert_file(str(plan.output / "distilled" / FINAL_CHECKPOINT), str(target), "student")
    return target


def evaluate_detector(
    plan: Plan, name: str, part: str, config: Path, weights: str
) -> dict[str, Any]:
    """COCO's AP of a detector; what ``metrics.json`` has of the same weights is not done again.

    Args:
        plan: of the distillation.
        name: "teacher", "student" or "distilled".
        part: "val" or "test".
        config: of the bare detector.
        weights: its file or public name.
    """
    digest = weights_digest(weights)
    known = read_json(plan.output / METRICS_FILE).get("detectors", {}).get(name, {})
    if part in known and known.get("weights") == digest:
        return known[part]
    cfg = load_config(str(config))
    cfg.train.init_checkpoint = weights
    cfg.dataloader.test.dataset.names = f"{plan.name}_{part}"
    with contextlib.redirect_stdout(io.StringIO()):  # tables of pycocotools
        return metrics_of(evaluate(cfg)["bbox"])


def metrics_of(found: Mapping[str, Any]) -> dict[str, float | None]:
    """Those of one evaluation, without the task's name; None is what COCO does not define."""
    return {
        key.removeprefix("bbox/"): None if value is None or not math.isfinite(value) else value
        for key, value in found.items()
    }


def summarize(plan: Plan, results: dict[str, Any], runs: Mapping[str, Run]) -> dict[str, Any]:
    """Write ``metrics.json`` and return what it holds.

    Args:
        plan: of the distillation.
        results: {"teacher", "student", "distilled": {"val", "test": metrics, "weights": file}}.
        runs: the finished trainings.
    """
    detectors = {}
    for name, result in results.items():
        weights = result["weights"]
        cfg = load_config(str(plan.output / f"{'teacher' if name == 'teacher' else 'student'}.py"))
        detectors[name] = {
            **result,
            "weights": weights_digest(weights),
            "file": weights,
            "parameters": count_parameters(cfg.model),
            "iterations": runs[name].iterations if name in runs else 0,
            "seconds": round(runs[name].seconds, 1) if name in runs else 0.0,
        }
    summary: dict[str, Any] = {"detectors": detectors}
    if "student" in detectors:
        after, before = (detectors[name]["val"].get("AP") for name in ("distilled", "student"))
        summary["gain_AP"] = None if after is None or before is None else after - before
    summary["settings"] = {
        "data": str(plan.data.root),
        "training images": len(plan.data.train),
        "validation images": len(plan.data.val),
        "classes": ", ".join(plan.data.classes),
        "teacher": plan.teacher.found.name,
        "student": plan.student.found.name,
        "method": plan.options.method,
        **{name: f"{number.value:g}" for name, number in plan.numbers.items()},
        "devices": str(plan.devices),
        **compat.versions(),
    }
    write_json(plan.output / METRICS_FILE, summary)
    return summary


def write_page(plan: Plan, summary: dict[str, Any], runs: Mapping[str, Run]) -> Path:
    """Write ``report.html``: tables, curves and pictures of validation images."""
    from ..visualize.report import write_report

    of_report = {"teacher": "teacher", "student": "baseline", "distilled": "distilled"}
    detectors = summary["detectors"]
    shown = {
        of_report[name]: {**d["val"], **{k: d[k] for k in ("parameters", "iterations", "seconds")}}
        for name, d in detectors.items()
    }
    tested = {of_report[n]: d["test"] for n, d in detectors.items() if d.get("test") is not None}
    page = {**shown, "seeds": {}, "settings": summary["settings"], "test": tested}
    curves = {of_report[name]: [read_metrics(run.folder)] for name, run in runs.items()}
    report = plan.output / "report.html"
    write_report(
        str(report), page, curves, _pictures(plan, detectors), score_threshold=SCORE_THRESHOLD
    )
    return report


def _pictures(plan: Plan, detectors: Mapping[str, Any]) -> Any:
    from ..visualize.drawing import choose_images, compare

    models, resize = {}, None
    for name, detector in detectors.items():
        cfg = load_config(str(plan.output / f"{'teacher' if name == 'teacher' else 'student'}.py"))
        models[name] = instantiate(cfg.model).to(plan.devices.kind)
        load_strictly(models[name], detector["file"])
        resize = instantiate(cfg.dataloader.test.mapper.augmentations)
    return compare(
        choose_images(plan.data.val, NUM_PICTURES),
        models,
        plan.data.classes,
        score_threshold=SCORE_THRESHOLD,
        augmentations=resize or (),
        longest_edge=_PICTURE_EDGE,
    )
