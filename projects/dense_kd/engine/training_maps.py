"""The papers' figures of a few fixed images, drawn again and again while a run trains."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.engine import HookBase
from detectron2.utils import comm
from omegaconf import DictConfig
from PIL import Image
from torch import nn

from ..data.build import objects_of
from ..detectors.base.images import as_rgb
from ..diagnostics.making import FigureMaker
from ..diagnostics.methods_of_pair import distiller_of
from .annotated import AnnotatedImages
from .checks import RunError
from .checks.tree import select
from .drawn_maps import save_drawn

__all__ = ["TrainingMaps", "fixed_images"]

logger = logging.getLogger(__name__)


class TrainingMaps(HookBase):
    """Figures every ``period`` iterations, for TensorBoard and for ``dense-kd report``.

    In the trainer's storage they are called ``maps/<image>/<figure>``; as files they are where
    :mod:`.drawn_maps` says. The run is what it is without them. Figures that an image or the pair
    does not allow are left out, which is logged once.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: dict[str, dict[str, Any]],
        *,
        folder: str,
        period: int,
        images: int,
        figures: list[str],
    ):
        """
        Args:
            model: of the trainer, a Distiller or one in DDP.
            inputs: of :func:`fixed_images`.
            folder: of the run, into which pictures are written.
            period: in iterations.
            images: how many of the inputs are drawn.
            figures: some of :data:`dense_kd.diagnostics.making.FIGURES`.

        Raises:
            DiagnosticsError: the model is no Distiller, or there is no such figure.
        """
        self._maker = FigureMaker(distiller_of(model, "train.maps"), figures)
        self._inputs = dict([*inputs.items()][:images])
        self._folder = Path(folder)
        self._period = period
        self._said: set[str] = set()

    def after_step(self) -> None:
        """Draw, if it is one of those iterations."""
        if (self.trainer.iter + 1) % self._period != 0:
            return
        from ..visualize.maps import maps_as_array  # matplotlib

        student = self._maker.model.student
        for name, inputs in self._inputs.items():
            # In all processes: some targets are normalised over them.
            figures, left_out = self._maker.figures(inputs)
            if not comm.is_main_process():
                continue
            pixels = as_rgb(inputs["image"], student.input_format)
            for kind, figure in figures.items():
                drawn = maps_as_array(pixels, figure)
                self.trainer.storage.put_image(f"maps/{name}/{kind}", drawn.transpose(2, 0, 1))
                picture = Image.fromarray(drawn)
                save_drawn(self._folder, self.trainer.iter, name, kind, picture)
            for kind, why in left_out.items():
                if kind not in self._said:
                    self._said.add(kind)
                    logger.warning(f"train.maps: {kind} of {name}: {why}")


def fixed_images(cfg: DictConfig) -> dict[str, dict[str, Any]]:
    """The images of ``train.maps``, spread evenly over those of the test set that have objects.

    Args:
        cfg: of the run.

    Returns:
        {name of the file: what the test loader would give of it, with "instances"}.

    Raises:
        RunError: the test set has no image with objects, or cannot be loaded.
    """
    test = AnnotatedImages(cfg)
    known = [path for path, record in test.records.items() if objects_of(record)]
    if not known:
        reason = test.no_dataset or "none of its images has objects"
        raise RunError(
            [
                f"train.maps.period={select(cfg, 'train.maps.period')}: there is no image of "
                f"dataloader.test to draw maps of ({reason}); leave it at 0"
            ]
        )
    count = min(select(cfg, "train.maps.images"), len(known))
    chosen = np.linspace(0, len(known) - 1, count).round().astype(int)
    found: dict[str, dict[str, Any]] = {}
    for index in chosen:
        name = known[index].rsplit("/", 1)[-1]
        found[name if name not in found else known[index]] = test.inputs(known[index])
    return found
