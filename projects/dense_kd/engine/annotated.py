"""Images as the test loader of a config gives them, with the objects that it leaves out."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import instantiate
from detectron2.data import DatasetMapper
from omegaconf import DictConfig

from .checks import RunError
from .loaders import load_evaluation


class AnnotatedImages:
    """Any image as the network would get it in an evaluation; those of the test set annotated."""

    def __init__(self, cfg: DictConfig, no_dataset: str = ""):
        """
        Args:
            cfg: with ``dataloader.test``.
            no_dataset: why its dataset is not to be loaded; "": it is, and that it cannot be is
                kept for :meth:`why_not`.

        Raises:
            RunError: its mapper is none of detectron2's.
        """
        mapper = instantiate(cfg.dataloader.test.mapper)
        if not isinstance(mapper, DatasetMapper):
            raise RunError(
                [
                    f"dataloader.test.mapper is a {type(mapper).__name__}; expected detectron2's "
                    "DatasetMapper, which also reads images without a dataset"
                ]
            )
        self.mapper = mapper
        self.annotating = copy.copy(mapper)
        self.annotating.is_train = True  # otherwise it drops the objects
        self.no_dataset = no_dataset
        self.records: dict[str, dict[str, Any]] = {}
        if not no_dataset:
            self._load(cfg)

    def _load(self, cfg: DictConfig) -> None:
        try:
            images = load_evaluation(cfg, "evaluate").images
        except RunError as error:
            self.no_dataset = "; ".join(error.problems)
            return
        if not isinstance(images, Sequence):
            self.no_dataset = "dataloader.test has no list of images"
            return
        for image in images:
            if isinstance(image, Mapping) and "annotations" in image:
                self.records[os.path.realpath(image["file_name"])] = dict(image)

    @property
    def image_format(self) -> str:
        """Of the images, as "BGR"."""
        return self.mapper.image_format

    def inputs(self, image: str | Path) -> dict[str, Any]:
        """What a detector takes; with "instances" if the image is in the test set."""
        record = self.records.get(os.path.realpath(image))
        if record is None:
            return self.mapper({"file_name": str(image)})
        return self.annotating(copy.deepcopy(record))

    def why_not(self, image: str | Path) -> str:
        """Why an image has no objects; "" if it has, or is known to have none."""
        if os.path.realpath(image) in self.records:
            return ""
        if self.no_dataset:
            return f"it needs objects, and there is no test set to have them: {self.no_dataset}"
        return (
            "it needs objects, and the image is not in the annotated test set of the config "
            "(dataloader.test.dataset)"
        )
