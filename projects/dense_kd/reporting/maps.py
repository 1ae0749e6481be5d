"""Maps of the distillations of a report, level by level, as ``dense-kd maps`` draws them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from ..detectors.base.images import as_rgb
from ..engine.annotated import AnnotatedImages
from ..engine.distilled import distillation_config
from ..engine.mapping import load_maker
from ..engine.state.stored_config import at
from ..errors import DenseKDError
from ..visualize.drawing import ComparedImage, Panel, choose_images
from ..visualize.maps import maps_as_array
from ..visualize.page import Folded, Note, Part, Pictures
from .errors import ReportError
from .groups import RunGroup
from .pictures import images_of
from .runs import CONFIG, TrainedRun

__all__ = ["maps"]


def maps(groups: Sequence[RunGroup], figures: Sequence[str], count: int) -> list[Part]:
    """Figures of each distillation, or why there are none.

    Args:
        groups: of the report; of each the first run that counts is shown.
        figures: some of :data:`dense_kd.diagnostics.making.FIGURES`.
        count: of images, 1 or more.
    """
    parts: list[Part] = []
    for group in groups:
        run = group.counted[0]
        if at(run.config, "model.student") is None:
            continue
        try:
            rows, left_out = _drawn(group, run, figures, count)
        except DenseKDError as error:
            parts.append(Note(f"{group.title} has no maps: {error}.", "warning"))
            continue
        notes = [Note(text, "warning") for text in left_out]
        parts.append(Folded(f"Maps of {group.title_of(run)}", [*notes, Pictures(rows, wide=True)]))
    return parts or [Note("No run is a distillation, so there is no teacher to draw maps of.")]


def _drawn(
    group: RunGroup, run: TrainedRun, figures: Sequence[str], count: int
) -> tuple[list[ComparedImage], list[str]]:
    """A row for each image, and which figures it does not have."""
    if at(run.config, "model.teacher") is None:
        raise ReportError("no detector is its teacher")
    if run.weights is None:
        raise ReportError("it has no weights")
    images = choose_images(images_of(group.data)[0], count)
    if not images:
        raise ReportError(f"{group.data} has no images")
    cfg = distillation_config(str(run.folder / CONFIG), [])
    cfg.train.init_checkpoint = str(run.weights)
    cfg.train.device = "cuda" if torch.cuda.is_available() else "cpu"
    mapper = AnnotatedImages(cfg, "the images are those of the report").annotating
    maker = load_maker(cfg, figures)
    rows, left_out = [], []
    for image in images:
        name = Path(image["file_name"]).name
        if not Path(image["file_name"]).is_file():
            raise ReportError(f"the image {image['file_name']} is not there")
        inputs = mapper(copy.deepcopy(dict(image)))
        found, why_not = maker.figures(inputs)
        left_out += [f"{name}, {figure}: {why}." for figure, why in why_not.items()]
        pixels = as_rgb(inputs["image"], maker.model.student.input_format)
        panels = [
            Panel(figure.title, Image.fromarray(maps_as_array(pixels, figure)), f"({name})")
            for figure in found.values()
        ]
        rows.append(ComparedImage(name, panels))
    return rows, left_out
