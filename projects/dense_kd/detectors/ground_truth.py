"""What the ground truth of a batch has to be before a detector learns from it."""

from __future__ import annotations

import torch
from detectron2.structures import Instances


def checked_ground_truth(
    batched_inputs: list[dict], num_classes: int, device: torch.device
) -> list[Instances]:
    """The ground truth of a batch on ``device``, checked.

    Boxes without area are dropped: the logarithm of their size is infinite, and detectron2's
    low-quality matches, for which any overlap is the best, would give them every anchor.

    Args:
        batched_inputs: N dicts of detectron2's DatasetMapper.
        num_classes: K.
        device: of the model.

    Returns:
        N Instances with gt_boxes and gt_classes.

    Raises:
        ValueError: an image has none, or a class id or a coordinate that cannot be one; it names
            the image.
    """
    ground_truth = []
    for index, image in enumerate(batched_inputs):
        name = image.get("file_name", f"number {index} of the batch")
        if "instances" not in image:
            raise ValueError(
                f"image {name} has no 'instances' in training; use a dataset with "
                "annotations and a DatasetMapper with is_train=True"
            )
        instances = image["instances"]
        classes = set(instances.gt_classes.tolist())
        if not classes <= set(range(num_classes)):
            raise ValueError(
                f"image {name} has the class ids {sorted(classes)}, expected "
                f"0 to {num_classes - 1}; set num_classes of the model to the dataset's"
            )
        boxes = instances.gt_boxes.tensor
        wrong = boxes[~boxes.isfinite().all(dim=1)]
        if len(wrong) > 0:
            raise ValueError(
                f"image {name} has {len(wrong)} ground-truth box(es) with coordinates that "
                f"are not finite, such as {wrong[0].tolist()}; correct its annotations or the "
                "augmentation that moves its boxes"
            )
        instances = instances[instances.gt_boxes.nonempty()]
        ground_truth.append(instances.to(device))
    return ground_truth
