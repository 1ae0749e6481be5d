"""What the ground truth of a batch has to be before a detector learns from it."""

from __future__ import annotations

import logging
from typing import Any

import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.logger import log_first_n
from torch import Tensor

from ..boxes.coders import LARGEST
from .images import check_batch


def checked_ground_truth(
    batched_inputs: list[dict[str, Any]], num_classes: int, device: torch.device
) -> list[Instances]:
    """The ground truth of a batch on ``device``, checked; class ids as int64, boxes as float32.

    Boxes without area are dropped: the logarithm of their size is infinite, and detectron2's
    low-quality matches, for which any overlap is the best, would give them every anchor.

    Args:
        batched_inputs: N dicts of detectron2's DatasetMapper, which stay as they are.
        num_classes: K.
        device: of the model.

    Returns:
        N Instances with gt_boxes and gt_classes.

    Raises:
        ValueError: an image has no ground truth, or one that cannot be; it names the image.
    """
    check_batch(batched_inputs)
    ground_truth = []
    for index, image in enumerate(batched_inputs):
        name = image.get("file_name", f"number {index} of the batch")
        if "instances" not in image:
            raise ValueError(
                f"image {name} has no 'instances' in training; use a dataset with "
                "annotations and a DatasetMapper with is_train=True"
            )
        instances = image["instances"]
        if not isinstance(instances, Instances):
            raise ValueError(
                f"image {name} has 'instances' that are a {type(instances).__name__}, expected "
                "detectron2's Instances"
            )
        fields = instances.get_fields()
        if not {"gt_boxes", "gt_classes"} <= fields.keys():
            raise ValueError(
                f"image {name} has 'instances' with the fields {sorted(fields)}, expected gt_boxes "
                "and gt_classes; a DatasetMapper with is_train=True gives both"
            )
        boxes = _checked_boxes(name, fields["gt_boxes"])
        classes = _checked_classes(name, fields["gt_classes"], num_classes)
        lengths = {field: len(value) for field, value in fields.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(
                f"image {name} has 'instances' of unequal lengths, {lengths}; expected one entry "
                "for each box"
            )
        fields = {**fields, "gt_boxes": boxes, "gt_classes": classes}
        checked = Instances(instances.image_size, **fields)
        ground_truth.append(checked[boxes.nonempty()].to(device))
    return ground_truth


def _checked_boxes(name: str, boxes: Boxes) -> Boxes:
    if not isinstance(boxes, Boxes):
        raise ValueError(
            f"image {name} has gt_boxes that are a {type(boxes).__name__}, expected detectron2's "
            "Boxes; build them of (M, 4) tensors of x1, y1, x2, y2"
        )
    coordinates = boxes.tensor.float()
    wrong = coordinates[~(coordinates.abs() <= LARGEST).all(dim=1)]
    if len(wrong) > 0:
        raise ValueError(
            f"image {name} has {len(wrong)} ground-truth box(es) with coordinates that "
            f"are not finite or beyond {LARGEST:.0e} pixels, such as {wrong[0].tolist()}; correct "
            "its annotations or the augmentation that moves its boxes"
        )
    inverted = coordinates[(coordinates[:, 2:] < coordinates[:, :2]).any(dim=1)]
    if len(inverted) > 0:
        log_first_n(
            logging.WARNING,
            f"image {name} has {len(inverted)} ground-truth box(es) that end before they begin, "
            f"such as {inverted[0].tolist()}, and nothing learns from such boxes; expected are "
            "x1, y1, x2, y2 (a dataset of x, y, width, height says bbox_mode=XYWH_ABS)",
            name=__name__,
        )
    return Boxes(coordinates)


def _checked_classes(name: str, classes: Tensor, num_classes: int) -> Tensor:
    expected = f"expected a whole number for each box, 0 to {num_classes - 1}"
    if not isinstance(classes, Tensor) or classes.dim() != 1 or classes.dtype == torch.bool:
        kind = type(classes).__name__
        if isinstance(classes, Tensor):
            kind = f"{classes.dtype} tensor of shape {tuple(classes.shape)}"
        raise ValueError(f"image {name} has gt_classes that are a {kind}; {expected}, as a tensor")
    ids = set(classes.tolist())
    if not ids <= set(range(num_classes)):
        raise ValueError(
            f"image {name} has the class ids {sorted(ids)}, {expected}; set num_classes of the "
            "model to the dataset's"
        )
    return classes.long()
