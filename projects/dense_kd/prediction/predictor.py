"""A trained detector as a function of images."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Optional

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.data.detection_utils import convert_image_to_rgb
from torch import nn

from ..arguments import is_integer, is_number
from ..checkpoint import CheckpointError, class_names, load_strictly, read_content
from ..checkpoint.classes import check_class_names
from ..checkpoint.reading.weights import weights_of
from ..checkpoint.zoo import published_file
from ..description import build_described
from ..description.allowed import names_of
from ..engine.building import build
from .errors import ImageError, PredictionError
from .images import ARRAY_FORMATS, ImageInput, as_input, file_name_of, pixels_of
from .results import Prediction
from .settings import (
    Config,
    augmentations_of,
    checked_format,
    chosen_device,
    classes_of,
    described_by,
)

_Prepared = tuple[Optional[str], np.ndarray, dict[str, Any]]
"""(file name, RGB (H, W, 3), what the model takes) of an image."""


class Predictor:
    """Detects objects in images with the weights of a run, which need no config.

    As in::

        predictor = Predictor("output/student/model_final.pth", score_threshold=0.3)
        prediction = predictor("street.jpg")
        prediction.labels, prediction.instances.scores, prediction.instances.pred_boxes
        prediction.draw().save("detected.jpg")

        for prediction in predictor.predict(["a.jpg", "b.jpg"]):
            ...

    Checkpoints of runs of this package describe the student that they hold: how it is built, its
    classes, and how its test images are resized. Nothing that a file names is imported, and no
    file can run code (but one may describe a detector that is too large for the machine). Files
    without a description (of detectron2's own script, of version 0.1, or of another project) need
    the config of their run; a published file that a config of this project is known for
    (``mmdet://gfl_r50_fpn_1x_coco``) needs none.

    Attributes:
        model: the detector, in eval mode on ``device``.
        class_names: K names; "class 0", "class 1", ... where nobody says them.
        category_ids: K ids of the classes in the dataset; 0 to K-1 where nobody says them.
        image_format: the channels that the detector takes.
        augmentations: what is done to an image before.
        description: what the file, or the config, says of the detector.
        score_threshold: detections that score less are left out; None: the detector's own.
    """

    def __init__(
        self,
        weights: str | os.PathLike[str],
        config: Config = None,
        *,
        device: str | torch.device | None = None,
        score_threshold: float | None = None,
        array_format: str = "BGR",
        augmentations: Sequence[T.Augmentation] | None = None,
        allow: Iterable[Callable[..., Any]] = (),
    ):
        """
        Args:
            weights: a checkpoint, or a name such as ``mmdet://gfl_r50_fpn_1x_coco``.
            config: the config of its run (of a distillation, too), as a path, a name in
                ``configs/``, or loaded; it is used instead of the description in ``weights``. A
                config is code.
            device: "cpu", "cuda" or another of torch's; None is the GPU if there is one.
            score_threshold: see the class; from 0 to 1. It replaces the detector's own, also
                where that is higher.
            array_format: channels of images that are given as arrays (H, W, 3): "BGR", as of
                OpenCV and as detectron2's DefaultPredictor takes them, or "RGB".
            augmentations: instead of those of the run's test loader.
            allow: classes and functions of your own that ``weights`` may name, as a backbone.

        Raises:
            CheckpointError: ``weights`` cannot be read, has no description and no ``config`` is
                given, or does not fit it.
            RunError: ``config`` cannot be loaded.
            PredictionError: ``device``, ``score_threshold`` or ``array_format`` is none.
        """
        self.device = chosen_device(device)
        if score_threshold is not None and not (
            is_number(score_threshold) and 0 <= score_threshold <= 1
        ):
            raise PredictionError(
                f"score_threshold={score_threshold!r}: expected a number from 0 to 1"
            )
        if array_format not in ARRAY_FORMATS:
            raise PredictionError(f"array_format={array_format!r}: expected one of {ARRAY_FORMATS}")
        source = os.fspath(weights)
        content = read_content(published_file(source))
        node, description = described_by(config, content, source)
        if node is not None:
            model = build(node, "the model of the config")
        else:
            model = build_described(description.model, f"the model in {source}", names_of(allow))
        if not isinstance(model, nn.Module):
            raise CheckpointError(f"{source} describes a {type(model).__name__}, no model")
        load_strictly(model, source, weights_of(content, source))
        names = class_names(content) or description.class_names
        check_class_names(model, names, source)
        number = getattr(model, "num_classes", None)
        self.class_names, self.category_ids = classes_of(number, names, description)
        self.image_format = checked_format(description, source)
        self.augmentations = augmentations_of(augmentations, description, source)
        self._source = source
        self.array_format = array_format
        self.description = description
        self.score_threshold = score_threshold
        self.model = model.to(self.device).eval()
        detector: Any = model
        if score_threshold is not None and hasattr(detector, "test_score_thresh"):
            # Whether boxes of lower scores take part does not change what NMS leaves of the others.
            detector.test_score_thresh = min(detector.test_score_thresh, score_threshold)

    def __call__(self, image: ImageInput) -> Prediction:
        """What is found in one image.

        Args:
            image: a path, a picture of PIL, or an array (H, W, 3) of uint8 with the channels of
                ``array_format``, or grey (H, W). Images of any mode are converted and turned as
                their EXIF orientation says, as in training.

        Raises:
            ImageError: it cannot be read, or is no image.
        """
        return self._detect([self._prepared(image)])[0]

    def predict(
        self,
        images: Iterable[ImageInput],
        *,
        batch_size: int = 4,
        on_error: Callable[[ImageInput, ImageError], None] | None = None,
    ) -> Iterator[Prediction]:
        """What is found in many images, in their order and as they are needed.

        Images that follow each other and have one size on the detector's input are detected on
        together; so none is padded for another, which would change its detections.

        Args:
            images: each as for a call.
            batch_size: images at once, at most.
            on_error: is told of an image that cannot be read, which is left out then; None raises.

        Raises:
            ImageError: without ``on_error``, at the first image that cannot be read.
        """
        if not is_integer(batch_size) or batch_size < 1:
            raise PredictionError(
                f"batch_size={batch_size!r}: expected a whole number of at least 1"
            )
        return self._batched(images, batch_size, on_error)

    def _batched(
        self,
        images: Iterable[ImageInput],
        batch_size: int,
        on_error: Callable[[ImageInput, ImageError], None] | None,
    ) -> Iterator[Prediction]:
        batch: list[_Prepared] = []
        for image in images:
            try:
                prepared = self._prepared(image)
            except ImageError as error:
                if on_error is None:
                    yield from self._detect(batch)
                    raise
                on_error(image, error)
                continue
            if batch and (len(batch) == batch_size or _size(prepared) != _size(batch[0])):
                yield from self._detect(batch)
                batch = []
            batch.append(prepared)
        yield from self._detect(batch)

    def _prepared(self, image: ImageInput) -> _Prepared:
        pixels = pixels_of(image, self.image_format, self.array_format)
        try:
            inputs = as_input(pixels, self.augmentations)
        except Exception as error:  # of any augmentation
            raise ImageError(
                f"{file_name_of(image) or 'an image'} of {pixels.shape[1]} x {pixels.shape[0]} "
                f"pixels: the augmentations of {self._source}, {self.augmentations}, fail: "
                f"{type(error).__name__}: {error}"
            ) from error
        rgb = np.clip(convert_image_to_rgb(pixels, self.image_format), 0, 255).astype(np.uint8)
        return file_name_of(image), rgb, inputs

    @torch.no_grad()
    def _detect(self, batch: Sequence[_Prepared]) -> list[Prediction]:
        if not batch:
            return []
        outputs = self.model([inputs for _, _, inputs in batch])
        predictions = []
        for (name, rgb, _), output in zip(batch, outputs):
            found = output["instances"].to("cpu")
            if self.score_threshold is not None:
                found = found[found.scores >= self.score_threshold]
            predictions.append(Prediction(name, rgb, found, self.class_names, self.category_ids))
        return predictions


def _size(prepared: _Prepared) -> torch.Size:
    return prepared[2]["image"].shape
