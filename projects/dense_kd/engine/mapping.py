"""What ``dense-kd maps`` does: load a distillation, run it on images, and write its maps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from omegaconf import DictConfig

from ..checkpoint import load_strictly, replace_atomically
from ..checkpoint.places import check_folder
from ..detectors import DenseDetector
from ..detectors.base.images import as_rgb
from ..diagnostics.errors import DiagnosticsError
from ..diagnostics.figures import MapFigure
from ..diagnostics.making import FIGURES, FigureMaker, check_figures
from ..distiller import Distiller
from ..prediction.errors import ImageError
from ..prediction.folder import find_images, free_places
from ..prediction.images import pixels_of
from .annotated import AnnotatedImages
from .building import build
from .checks import RunError, check_run
from .checks.data import dataset_names
from .checks.errors import choice
from .checks.files import last_checkpoint
from .checks.tree import select
from .distilled import distillation_config, load_distilled
from .evaluating import weights_of

__all__ = ["Written", "load_maker", "write_maps"]

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
        what: some of :data:`dense_kd.diagnostics.making.FIGURES`.
        against: a checkpoint of another student of the same detector, or the folder of its run,
            for BCKD's figure.
        category: name or number of a class of the student, for CrossKD's figure.
        index: of the object of PGD's figure; None: the largest.
        output: a folder.
        suffix: of the pictures, one of :data:`dense_kd.visualize.panels.SUFFIXES`.
        arrays: write each figure's arrays beside it, too.
        progress: is told how many images are done, of how many.

    Raises:
        RunError: something is wrong with the config, or it is of no distillation.
        DiagnosticsError: an argument cannot be, or no figure could be made.
        PredictionError: there is no image.
        CheckpointError: weights cannot be loaded.
        SaveError: nothing can be written to ``output``.
    """
    _check_arguments(what, against, category, index, suffix)
    check_folder(output)
    found = find_images(images, leave_out=output)
    places = free_places(found, Path(output))
    cfg = distillation_config(config, overrides, of_teacher="maps")
    cfg.train.init_checkpoint = weights_of(config, [*overrides], weights)
    test_images = AnnotatedImages(cfg, _checked(cfg))
    maker = load_maker(cfg, what, against=against, category=category, index=index)
    written = Written()
    for done, (image, place) in enumerate(places.items(), start=1):
        try:
            pixels_of(str(image), test_images.image_format, "BGR")
        except ImageError as error:
            written.unreadable[image] = str(error)
        else:
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


def load_maker(
    cfg: DictConfig,
    what: Sequence[str],
    *,
    against: str | None = None,
    category: str | None = None,
    index: int | None = None,
) -> FigureMaker:
    """What makes figures of a distillation with trained weights.

    Args:
        cfg: of it, with ``train.init_checkpoint`` of its student.
        what, against, category, index: see :func:`write_maps`.

    Raises:
        DiagnosticsError: the student has no such class.
        CheckpointError: weights cannot be loaded.
    """
    model: Distiller = build(cfg.model, "model").to(cfg.train.device)
    untrained = load_distilled(model, cfg.train.init_checkpoint)
    model.load_teacher()
    other: DenseDetector | None = None
    if against is not None:
        other = copy.deepcopy(model.student)
        load_strictly(other, last_checkpoint(against) or against)
    return FigureMaker(
        model,
        what,
        untrained=untrained,
        other=other,
        category=None if category is None else class_number(cfg, model.student, category),
        category_name=category,
        index=index,
    )


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
    from ..visualize.panels import SUFFIXES  # matplotlib

    check_figures(what)
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
    arrays_of: dict[str, Any] = figure.arrays()
    replace_atomically(str(beside), lambda stream: np.savez_compressed(stream, **arrays_of))
    return [file, beside]


def _nothing(written: Written) -> str:
    reasons = dict.fromkeys(
        f"{name}: {why}" for of_image in written.left_out.values() for name, why in of_image.items()
    )
    lines = [*written.unreadable.values(), *reasons]
    return "no figure could be made:\n" + "\n".join(f"    {line}" for line in lines)
