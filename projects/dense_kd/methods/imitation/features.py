"""Baselines that imitate features of the pyramid: one squared error, and the masks of four
papers; FRS, whose masks are scores, has a file of its own.

Each compares, in every cell, the input of the teacher's head with that of the student's after an
adapter f (a convolution per level, trained, and not part of the student):

    e = sum over the C channels of (F_t - f(F_s))^2

Sums and means over cells are over all images of this process. So with gradients that are averaged
over processes the split of a batch matters, except to FitNet on all cells, if the images are
padded to one size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...detectors.base.dense import DenseDetector
from ...lengths import zip_equal
from ...options import (
    check_choices,
    check_flags,
    check_parts,
    check_positive,
    check_weights,
    is_integer,
    is_share,
)
from ...outputs import DensePass
from ..base.adapters import comparable_features, pyramid_adapters
from ..base.class_maps import ClassMap
from ..base.kd_method import KDMethod, Needs, Step
from .masks import (
    box_masks,
    disagreement_masks,
    near_object_masks,
    object_levels,
    object_masks,
)

FITNET_REGIONS = ("all", "objects", "positives")
FGFI_LEVELS = ("assigned", "each")
FGFI_NORMALIZERS = ("elements", "cells")


class FeatureImitation(KDMethod):
    """What the baselines have in common: the adapters and the error of a cell."""

    needs = Needs(same_levels=True)
    kernel_size = 1
    always_adapts = True
    """Whether there are adapters also between equal widths."""
    initial_deviation: float | None = None
    """Standard deviation of the adapters' weights at the start; None is PyTorch's."""
    relu = False
    """Whether a ReLU follows the adapters."""

    def prepare(self, student: DenseDetector, teacher: DenseDetector) -> None:
        super().prepare(student, teacher)
        self.adapters = pyramid_adapters(
            student, teacher, kernel_size=self.kernel_size, always=self.always_adapts
        )
        for module in self.adapters.modules():
            if isinstance(module, nn.Conv2d) and self.initial_deviation is not None:
                nn.init.normal_(module.weight, std=self.initial_deviation)
                nn.init.zeros_(module.bias)

    def errors(self, student: DensePass, teacher: DensePass) -> list[Tensor]:
        """e, L x (N, Hl*Wl), with gradient to the student and the adapters."""
        return [
            (theirs - (ours.relu() if self.relu else ours)).pow(2).sum(dim=1).flatten(1)
            for ours, theirs in comparable_features(student, teacher, self.adapters)
        ]


def _stacked(masks: list[list[Tensor]]) -> list[Tensor]:
    """L x (N, Hl*Wl), numbers, of N x L x (Hl*Wl,)."""
    return [torch.stack(levels).float() for levels in zip(*masks)]


def _mean(errors: list[Tensor], masks: list[Tensor], channels: int) -> list[Tensor]:
    """L scalars: the mean over the channels of the cells of each mask; 0 without cells."""
    return [
        (mask * error).sum() / (channels * mask.sum()).clamp(min=1)
        for error, mask in zip_equal(errors=errors, masks=masks)
    ]


class FitNet(FeatureImitation):
    """FitNets (Romero et al., ICLR 2015) on the pyramid: all cells alike.

        loss_feature = weight * sum_l mean of e / C over the cells of level l

    As LD's code has it for its tables, with ``weight=2``. Its own default is
    ``region="objects"``: only cells whose centre is in an object, "Inside GT Box" in its tables and
    CrossKD's. "Main Region" there is ``region="positives"``: cells with a positive of the student.
    The adapter is a 1x1 convolution where the widths differ, and nothing where they are equal.

    In a training step the tensors of the loss take, at their peak, 1.6 times the memory of the maps
    that are compared (both pyramids, float32; gradients included).
    """

    always_adapts = False

    def __init__(
        self,
        *,
        weight: float = 2.0,
        region: str = "all",
        always_adapt: bool = False,
        warmup_iters: int = 0,
    ):
        """
        Args:
            weight: above 0.
            region: "all", "objects" or "positives".
            always_adapt: have the convolutions also between equal widths.
            warmup_iters: see :class:`KDMethod`.
        """
        super().__init__(warmup_iters=warmup_iters)
        check_choices(("region", region, FITNET_REGIONS))
        check_flags(always_adapt=always_adapt)
        check_positive(weight=weight)
        self.weight = weight
        self.region = region
        self.always_adapts = always_adapt

    def forward(self, student: DensePass, teacher: DensePass, step: Step) -> dict[str, Tensor]:
        """``loss_feature``."""
        errors = self.errors(student, teacher)
        masks = [torch.ones_like(error) for error in errors]
        if self.region == "objects":
            masks = _stacked([
                object_masks(student.priors, student.num_anchors, truth.gt_boxes.tensor)
                for truth in step.ground_truth
            ])  # fmt: skip
        elif self.region == "positives":
            masks = [
                level.unflatten(1, (-1, student.num_anchors)).any(dim=2).float()
                for level in step.targets.foreground.split(student.num_predictions, dim=1)
            ]
        loss = sum(_mean(errors, masks, teacher.features[0].shape[1]))
        return {"loss_feature": self.weight * loss}


class GIBox(FeatureImitation):
    """The general instances of GID (Dai et al., "General Instance Distillation for Object
    Detection", CVPR 2021), as the baseline "GI box" of LD's code.

        loss_feature = weight * sum_l mean of e / C over the cells of level l where student
                       and teacher disagree most, see :func:`disagreement_masks`

    LD's code takes ``topk=10`` per level over the whole batch, boxes of different images together;
    here they are of each image. GID's relations and responses are not part of it. The adapter is
    as that of :class:`FitNet`. NMS looks at the 1000 largest disagreements of a level (ours).

    In a training step the tensors of the loss take, at their peak, 2.2 times the memory of the maps
    that are compared (both pyramids, float32; gradients included), with nine anchors per location;
    with one it is 1.7.
    """

    always_adapts = False

    def __init__(
        self,
        *,
        weight: float = 2.0,
        topk: int = 10,
        nms_thresh: float = 0.3,
        class_map: ClassMap = None,
        warmup_iters: int = 0,
    ):
        """
        Args:
            weight: above 0.
            topk: predictions per image and level.
            nms_thresh: IoU.
            class_map: which classes correspond, where those of student and teacher differ, see
                :data:`ClassMap`.
            warmup_iters: see :class:`KDMethod`.
        """
        super().__init__(warmup_iters=warmup_iters)
        if not is_integer(topk) or topk < 1 or not is_share(nms_thresh):
            raise ValueError(
                f"topk={topk} and nms_thresh={nms_thresh}: expected a number of predictions and "
                "an IoU in [0, 1]"
            )
        self.needs = Needs(same_levels=True, same_priors=True, same_classes=True)
        check_positive(weight=weight)
        self.weight = weight
        self.topk = topk
        self.nms_thresh = nms_thresh
        self.class_map = class_map

    def forward(self, student: DensePass, teacher: DensePass, step: Step) -> dict[str, Tensor]:
        """``loss_feature``."""
        masks = self._masks(student, teacher)
        errors = self.errors(student, teacher)
        loss = sum(_mean(errors, masks, teacher.features[0].shape[1]))
        return {"loss_feature": self.weight * loss}

    def _masks(self, student: DensePass, teacher: DensePass) -> list[Tensor]:
        ours, theirs = self.comparable_logits(student, teacher)
        predictions = (ours, theirs, student.boxes, teacher.boxes)
        return _stacked([
            disagreement_masks(
                *([level[image].detach() for level in levels] for levels in predictions),
                student.num_anchors,
                topk=self.topk,
                nms_thresh=self.nms_thresh,
            )
            for image in range(len(student.image_sizes))
        ])  # fmt: skip


class FGFI(FeatureImitation):
    """Fine-grained feature imitation (Wang et al., "Distilling Object Detectors with Fine-grained
    Feature Imitation", CVPR 2019): cells near objects.

        loss_feature = weight * mean over levels of sum m e / max(1, 2 C sum m)

    with m = 1 in cells that have an anchor whose IoU with an object exceeds ``part`` of the level's
    best one, see :func:`near_object_masks`. The adapter is a 3x3 convolution.

    The defaults are those of DeFeat's code for pyramids: an object counts on one level, by its
    size, and the weight is 3. The authors' own code is for the one map of a VGG Faster R-CNN:
    ``weight=0.01, levels="each", normalize="cells", relu=True`` (that map is not negative;
    a pyramid's is). LD's baseline is ``levels="each"`` with a weight of 4 L on L levels. Nothing is
    imitated in the first ``warmup_iters=400`` iterations (authors' code).

    In a training step the tensors of the loss take, at their peak, 1.7 times the memory of the maps
    that are compared (both pyramids, float32; gradients included, those of the adapters not).
    The masks of 500 objects in an image of 800 x 1344 with nine anchors per location take 72 MiB.
    """

    kernel_size = 3
    initial_deviation = 1e-4

    def __init__(
        self,
        *,
        weight: float = 3.0,
        part: float = 0.5,
        levels: str = "assigned",
        normalize: str = "elements",
        relu: bool = False,
        warmup_iters: int = 400,
    ):
        """
        Args:
            weight: above 0.
            part: of the largest IoU, in [0, 1).
            levels: of an object: "assigned", see :func:`object_levels`, or "each".
            normalize: "elements" as above, or "cells": without C.
            relu: after the adapters.
            warmup_iters: iterations without this loss.
        """
        super().__init__(warmup_iters=warmup_iters)
        check_choices(("levels", levels, FGFI_LEVELS), ("normalize", normalize, FGFI_NORMALIZERS))
        check_parts(part=part)
        check_flags(relu=relu)
        check_positive(weight=weight)
        self.weight = weight
        self.part = part
        self.levels = levels
        self.normalize = normalize
        self.relu = relu

    def warmup_factor(self, iteration: int) -> float:
        """0 before ``warmup_iters``, then 1."""
        return float(iteration >= self.warmup_iters)

    def forward(self, student: DensePass, teacher: DensePass, step: Step) -> dict[str, Tensor]:
        """``loss_feature``."""
        masks = []
        for truth in step.ground_truth:
            boxes = truth.gt_boxes.tensor
            levels = object_levels(boxes, student.strides) if self.levels == "assigned" else None
            masks.append(
                near_object_masks(student.priors, student.num_anchors, boxes, levels, self.part)
            )
        channels = teacher.features[0].shape[1] if self.normalize == "elements" else 1
        means = _mean(self.errors(student, teacher), _stacked(masks), 2 * channels)
        return {"loss_feature": self.weight * torch.stack(means).mean()}


class DeFeat(FeatureImitation):
    """Decoupled features (Guo et al., "Distilling Object Detectors via Decoupled Features", CVPR
    2021): objects and background with weights of their own.

        loss_object     = object_weight     * mean over levels of sum m e / max(1, 2 C sum m)
        loss_background = background_weight * the same with 1 - m

    with m = 1 in the cells of an object on the one level for its size, see :func:`box_masks`. The
    adapter is a 3x3 convolution. The weights 4 and 16 are the author's for COCO; the released
    config, for VOC, has 3 and 12. Only the terms of the neck: those of the backbone and of the
    second stage's classes are for two-stage detectors.

    In a training step the tensors of the losses take, at their peak, 1.7 times the memory of the
    maps that are compared (both pyramids, float32; gradients included, those of the adapters not).
    """

    kernel_size = 3
    initial_deviation = 1e-4

    def __init__(
        self,
        *,
        object_weight: float = 4.0,
        background_weight: float = 16.0,
        warmup_iters: int = 0,
    ):
        """
        Args:
            object_weight, background_weight: of the terms; 0 leaves a term out.
            warmup_iters: see :class:`KDMethod`.
        """
        super().__init__(warmup_iters=warmup_iters)
        check_weights(object_weight=object_weight, background_weight=background_weight)
        self.object_weight = object_weight
        self.background_weight = background_weight

    def forward(self, student: DensePass, teacher: DensePass, step: Step) -> dict[str, Tensor]:
        """``loss_object`` and ``loss_background``, those of them whose weight is not 0."""
        sizes = [tuple(feature.shape[-2:]) for feature in student.features]
        masks = _stacked([
            box_masks(truth.gt_boxes.tensor, student.strides, sizes) for truth in step.ground_truth
        ])  # fmt: skip
        errors = self.errors(student, teacher)
        channels = 2 * teacher.features[0].shape[1]
        losses = {}
        if self.object_weight > 0:
            loss = torch.stack(_mean(errors, masks, channels)).mean()
            losses["loss_object"] = self.object_weight * loss
        if self.background_weight > 0:
            loss = torch.stack(_mean(errors, [1 - mask for mask in masks], channels)).mean()
            losses["loss_background"] = self.background_weight * loss
        return losses
