"""What ``dense-kd diagnose`` does: load a distillation and more teachers, and measure them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..checkpoint import load_strictly
from ..detectors import DenseDetector
from ..diagnostics.errors import DiagnosticsError
from ..diagnostics.locations import compared_classes, corresponding_classes
from ..distiller import Distiller
from ..json_files import without_nan
from ..methods.base.teachers import check_same_images
from ..pairs import teacher_for
from ..prediction.predictor import Predictor
from ..teacher import Teacher
from .building import build
from .checks import check_run, load_config
from .checks.data import detector_of
from .distilled import distillation_config
from .evaluating import weights_of
from .measuring import Pair, Progress, TestImages, count_conflicts, masked_precision
from .processes import read_metrics

__all__ = ["OWN", "WHAT", "diagnose", "distances_of_run"]

WHAT = ("conflicts", "masking", "distances")
"""CrossKD's Figure 3, PGD's Figure 3, and CrossKD's Figure 6."""

OWN = "teacher"
"""The title of the config's own teacher."""

_CHECKPOINTS = (".pth", ".pkl", ".pt", ".bin", ".safetensors")


def diagnose(
    config: str,
    overrides: Sequence[str] = (),
    *,
    what: Sequence[str] = ("conflicts",),
    teachers: Mapping[str, str] | None = None,
    runs: Mapping[str, str] | None = None,
    num_images: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a distillation on its test set, or read what its and other runs have measured.

    Args:
        config: of a distillation, a name or path.
        overrides: of it.
        what: some of :data:`WHAT`. "conflicts" of each teacher with the student's labels,
            "masking" of the best predictions of each teacher, "distances" and AP of the
            evaluations of the config's own run, which has had ``train.diagnostics.images``.
        teachers: {title: config or checkpoint}, beside the config's own.
        runs: {title: folder of a run}, whose distances stand beside those of the config's own.
        num_images: the first of the test set; None is all.
        progress: is told how many images are done, of how many, for each of ``what``.

    Returns:
        {"images": their number, "conflicts": {title: counts, ratios and shares}, "masking":
        {title: :func:`.measuring.masked_precision`}, "distances": {title, that of the config's own
        run being the config: :func:`distances_of_run`}}, as far as asked for, in types of JSON.

    Raises:
        RunError: something is wrong with a config, or its test set has no labels.
        DiagnosticsError: an argument cannot be, or a teacher cannot be compared.
        CheckpointError: weights cannot be loaded.
    """
    teachers, runs = dict(teachers or {}), dict(runs or {})
    _check_arguments(config, what, teachers, runs, num_images)
    cfg = distillation_config(config, overrides, of_teacher=" and ".join(what))
    content: dict[str, Any] = {}
    if "distances" in what:
        folders = {config: cfg.train.output_dir, **runs}
        content["distances"] = {title: distances_of_run(each) for title, each in folders.items()}
    if set(what) == {"distances"}:
        return content
    check_run(cfg, "evaluate_teacher")
    model: Distiller = build(cfg.model, "model").to(cfg.train.device)
    if model.student.assigns_by_predictions and "conflicts" in what:
        load_strictly(model.student, weights_of(config, [*overrides]))
    own = teacher_for(" and ".join(what), model.teacher)
    pairs = {OWN: Pair(model, own, compared_classes(model))}
    model.load_teacher()
    for title, source in teachers.items():
        teacher = _named_teacher(title, source, cfg.train.device)
        check_same_images(model.student, teacher.model)
        pairs[title] = Pair(model, teacher, corresponding_classes(model.student, teacher.model))
    for pair in pairs.values():
        pair.teacher.model.to(cfg.train.device)
    images = TestImages(cfg, num_images)
    content["images"] = len(images.records)
    if "conflicts" in what:
        found = count_conflicts(pairs, images, progress)
        content["conflicts"] = {
            title: {
                **dataclasses.asdict(each),
                "ratios": each.ratios,
                "shares": each.shares,
            }
            for title, each in found.items()
        }
    if "masking" in what:
        content["masking"] = masked_precision(pairs, images, progress)
    return without_nan(content)


def distances_of_run(folder: str) -> dict[str, list[float | None]]:
    """{"iteration", "teacher", "truth", "ap"} of the evaluations of a run, as it has written them.

    Args:
        folder: of the run, with ``metrics.json``.

    Raises:
        DiagnosticsError: the run has measured no distances.
    """
    rows = [row for row in read_metrics(Path(folder)) if "diag/distance_teacher" in row]
    if not rows:
        raise DiagnosticsError(
            f"{Path(folder) / 'metrics.json'} has no distances; train with "
            "train.diagnostics.images=100, which measures them on so many images of the test set "
            "at each evaluation"
        )
    return {
        "iteration": [row["iteration"] for row in rows],
        "teacher": [row["diag/distance_teacher"] for row in rows],
        "truth": [row["diag/distance_truth"] for row in rows],
        "ap": [row.get("bbox/AP") for row in rows],
    }


def _check_arguments(
    config: str,
    what: Sequence[str],
    teachers: Mapping[str, str],
    runs: Mapping[str, str],
    num_images: int | None,
) -> None:
    if not what or set(what) - set(WHAT) or len(set(what)) < len(what):
        raise DiagnosticsError(
            f"what {','.join(what)!r}: expected one or more of {', '.join(WHAT)}, each once"
        )
    if num_images is not None and num_images < 1:
        raise DiagnosticsError(f"{num_images} images: expected 1 or more")
    if OWN in teachers:
        raise DiagnosticsError(
            f"{OWN!r} is the title of the config's own teacher; give {teachers[OWN]} another one"
        )
    if config in runs:
        raise DiagnosticsError(
            f"{config!r} is the title of the config's own run; give {runs[config]} another one"
        )
    if runs and "distances" not in what:
        raise DiagnosticsError(
            f"further runs ({', '.join(runs)}) have no effect, since they are for distances; add "
            "distances, or leave them out"
        )
    if set(what) == {"distances"} and (teachers or num_images):
        raise DiagnosticsError(
            "distances are read from what the run has written, so neither images nor further "
            "teachers count; leave them out, or add conflicts or masking"
        )


def _named_teacher(title: str, source: str, device: str) -> Teacher:
    """The detector of a checkpoint that describes it, or of a config with its last weights."""
    if "://" in source or source.endswith(_CHECKPOINTS):
        model: Any = Predictor(source, device=torch.device(device)).model
    else:
        model = build(detector_of(load_config(source), "evaluate")[1], f"the model of {source}")
        load_strictly(model, weights_of(source, []))
    if not isinstance(model, DenseDetector):
        raise DiagnosticsError(
            f"teacher {title!r} ({source}) is a {type(model).__name__}; expected a detector of "
            "dense_kd.detectors"
        )
    return Teacher(model, None)
