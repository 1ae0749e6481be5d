"""What ``dense-kd maps`` does: load a distillation, run it on images, and write its maps."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from omegaconf import DictConfig

from ..checkpoint import load_strictly
from ..detectors import DenseDetector
from ..detectors.base.images import as_rgb
from ..diagnostics.errors import DiagnosticsError
from ..diagnostics.figures import (
    MapFigure,
    bckd_figure,
    crosskd_figure,
    pgd_figure,
    tid_figure,
)
from ..diagnostics.methods_of_pair import method_of
from ..diagnostics.passes import evaluating, run_passes
from ..distiller import Distiller
from ..methods import CrossKD
from ..outputs import DensePass
from ..prediction.errors import ImageError
from ..prediction.folder import find_images, free_places
from ..prediction.images import pixels_of
from .annotated import AnnotatedImages
from .building import build
from .checks import RunError, check_run, load_config
from .checks.data import dataset_names
from .checks.errors import choice
from .checks.tree import select, target_of
from .distilled import load_distilled
from .evaluating import last_checkpoint, weights_of

__all__ = ["FIGURES", "Written", "write_maps"]

logger = logging.getLogger(__name__)

FIGURES = ("bckd", "crosskd", "pgd", "tid")
SUFFIXES = (".png", ".svg", ".pdf")
ARRAYS = ".npz"


@dataclass
class Written:
    """What was made of some images.

    Attributes:
        files: pictures and arrays, in order.
        left_out: {image: {figure: why}} of those that were not made, or not whole.
        unreadable: {image: why}.
    """

    files: list[Path] = field(default_factory=list)
    left_out: dict[Path, dict[str, str]] = field(default_factory=dict)
    unreadable: dict[Path, str] = field(default_factory=dict)


def write_maps(
    config: str,
    overrides: Sequence[str],
    images: Sequence[str],
    *,
    weights: str | None = None,
    what: Sequence[str] = FIGURES,
    against: str | None = None,
    category: str | None = None,
    index: int | None = None,
    output: str = "maps",
    suffix: str = ".png",
    arrays: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Written:
    """Write figures of images, each in a folder of the image's name below ``output``.

    Args:
        config: of a distillation, a name or path.
        overrides: of it; ``train.init_checkpoint=FILE`` are the student's weights.
        images: files and folders.
        weights: of the student; None: the override's, or the last checkpoint of the run.
        what: some of :data:`FIGURES`.
        against: a checkpoint of another student of the same detector, or the folder of its run,
            for BCKD's figure.
        category: name or number of a class of the student, for CrossKD's figure.
        index: of the object of PGD's figure; None: the largest.
        output: a folder.
        suffix: of the pictures, one of :data:`SUFFIXES`.
        arrays: write each figure's arrays beside it, too.
        progress: is told how many images are done, of how many.

    Raises:
        RunError: something is wrong with the config, or it is of no distillation.
        DiagnosticsError: an argument cannot be, or no figure could be made.
        PredictionError: there is no image.
        CheckpointError: weights cannot be loaded.
    """
    _check_arguments(what, against, category, index, suffix)
    found = find_images(images, leave_out=output)
    places = free_places(found, Path(output))
    cfg = _distillation(config, overrides)
    given = any(override.startswith("train.init_checkpoint=") for override in overrides)
    if weights is None and not given:
        weights = weights_of(config, [*overrides])
    if weights is not None:
        cfg.train.init_checkpoint = weights
    test_images = AnnotatedImages(cfg, _checked(cfg))
    maker = _Maker(cfg, what, against, category, index)
    written = Written()
    for done, (image, place) in enumerate(places.items(), start=1):
        try:
            pixels_of(str(image), test_images.image_format, "BGR")
        except ImageError as error:
            written.unreadable[image] = str(error)
            continue
        inputs = test_images.inputs(image)
        figures, left_out = maker.figures(inputs, test_images.why_not(image))
        pixels = as_rgb(inputs["image"], maker.model.student.input_format)
        for name, figure in figures.items():
            written.files += _save(place / f"{name}{suffix}", pixels, figure, arrays)
        if left_out:
            written.left_out[image] = left_out
        if progress is not None:
            progress(done, len(places))
    if not written.files:
        raise DiagnosticsError(_nothing(written))
    return written


class _Maker:
    """The detectors, and the figures of an image."""

    def __init__(
        self,
        cfg: DictConfig,
        what: Sequence[str],
        against: str | None,
        category: str | None,
        index: int | None,
    ):
        self.what, self.index = what, index
        self.model: Distiller = build(cfg.model, "model").to(cfg.train.device)
        untrained = load_distilled(self.model, cfg.train.init_checkpoint)
        self.model.load_teacher()
        student = self.model.student
        self.category = None if category is None else class_number(cfg, student, category)
        self.category_name = category
        self.other: DenseDetector | None = None
        if against is not None:
            self.other = copy.deepcopy(student)
            load_strictly(self.other, last_checkpoint(against) or against)
        self.crosskd: CrossKD | None = None
        self.no_cross = ""
        if "crosskd" in what:
            self._find_crosskd(untrained, cfg.train.init_checkpoint)

    def _find_crosskd(self, untrained: set[str], weights: str) -> None:
        try:
            found = method_of(self.model, CrossKD)
        except DiagnosticsError as error:
            self.no_cross = f"it is without the cross-head prediction: {error}"
            return
        names = [name for name, method in self.model.kd.named_children() if method is found]
        if untrained & set(names):
            self.no_cross = (
                f"it is without the cross-head prediction: {weights} does not have the "
                f"convolutions that {names[0]} trains; give a checkpoint of its run"
            )
            return
        self.crosskd = found

    def figures(
        self, inputs: dict[str, Any], no_truth: str
    ) -> tuple[dict[str, MapFigure], dict[str, str]]:
        """{name: figure} of an image, and {name: why it is not, or not whole}."""
        passes = run_passes(self.model, [inputs], self.crosskd)
        other: DensePass | None = None
        if self.other is not None:
            with torch.no_grad(), evaluating(self.other):
                other = self.other.run(self.other.preprocess_image([inputs]))
        makers: Mapping[str, Callable[[], MapFigure]] = {
            "bckd": lambda: bckd_figure(self.model, passes, other),
            "crosskd": lambda: crosskd_figure(
                self.model, passes, self.category, self.category_name
            ),
            "pgd": lambda: pgd_figure(self.model, passes, self.index),
            "tid": lambda: tid_figure(self.model, passes),
        }
        found, left_out = {}, {}
        for name in self.what:
            if name in ("pgd", "tid") and no_truth:
                left_out[name] = no_truth
                continue
            try:
                found[name] = makers[name]()
            except DiagnosticsError as error:
                left_out[name] = str(error)
        if self.no_cross and "crosskd" in found:
            left_out["crosskd"] = self.no_cross
        return found, left_out


def class_number(cfg: DictConfig, student: DenseDetector, category: str) -> int:
    """The class of a name, that of the student's model or of the test dataset, or of its number.

    Raises:
        DiagnosticsError: the student has none of them.
    """
    count, datasets = student.num_classes, dataset_names(cfg, "test")
    of_dataset = MetadataCatalog.get(datasets[0]).get("thing_classes") if datasets else None
    names = [*(student.class_names or of_dataset or ())]
    if category in names:
        return names.index(category)
    if category.isdecimal() and int(category) < count:
        return int(category)
    known = choice(category, names) if names else "which neither model nor dataset have"
    raise DiagnosticsError(
        f"the student has no class {category!r}: expected a number from 0 to {count - 1}, or a "
        f"name ({known})"
    )


def _check_arguments(
    what: Sequence[str], against: str | None, category: str | None, index: int | None, suffix: str
) -> None:
    unknown = [name for name in what if name not in FIGURES]
    if unknown or not what or len(set(what)) < len(what):
        raise DiagnosticsError(
            f"figures {','.join(what)!r}: expected one or more of {', '.join(FIGURES)}, each once"
        )
    if suffix not in SUFFIXES:
        raise DiagnosticsError(f"pictures of the kind {suffix!r}: expected one of {SUFFIXES}")
    for option, value, name in (
        ("the other student", against, "bckd"),
        ("the class", category, "crosskd"),
        ("the object", index, "pgd"),
    ):
        if value is not None and name not in what:
            raise DiagnosticsError(
                f"{option} ({value}) has no effect, since it is for the figure {name} and only "
                f"{', '.join(what)} are made; add {name}, or leave it out"
            )


def _distillation(config: str, overrides: Sequence[str]) -> DictConfig:
    cfg = load_config(config, overrides)
    model = cfg.get("model")
    target = target_of(model) if isinstance(model, DictConfig) else None
    if not (isinstance(target, type) and issubclass(target, Distiller)):
        raise RunError(
            [
                f"{config} is of no distillation; expected a config whose model is a Distiller, "
                "with student, teacher and methods, as quickstart/distill"
            ]
        )
    return cfg


def _checked(cfg: DictConfig) -> str:
    """Raise RunError for all that is wrong but the dataset; of that say what is, or ""."""
    try:
        check_run(cfg, "evaluate")
    except RunError as error:
        others = [text for text in error.problems if not text.startswith("dataloader")]
        if others or select(cfg, "dataloader.test.mapper") is None:
            raise RunError(others or error.problems) from None
        return "; ".join(error.problems)
    return ""


def _save(file: Path, pixels: np.ndarray, figure: MapFigure, arrays: bool) -> list[Path]:
    from ..visualize.maps import save_maps  # matplotlib

    save_maps(str(file), pixels, figure)
    if not arrays:
        return [file]
    beside = file.with_suffix(ARRAYS)
    with open(beside, "wb") as stream:
        np.savez_compressed(stream, **figure.arrays())  # type: ignore[arg-type]
    return [file, beside]


def _nothing(written: Written) -> str:
    reasons = dict.fromkeys(
        f"{name}: {why}" for of_image in written.left_out.values() for name, why in of_image.items()
    )
    lines = [*written.unreadable.values(), *reasons]
    return "no figure could be made:\n" + "\n".join(f"    {line}" for line in lines)
