"""What the detectors with one square anchor per location share."""

from __future__ import annotations

from typing import Any

from detectron2.modeling import Backbone
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.structures import Instances
from torch import Tensor

from ...outputs import DensePass
from ..assignment.adaptive import ATSSAssigner
from ..boxes.coders import DeltaCoder, DistanceCoder
from .dense import DenseDetector
from .heads import TowerHead
from .levels import pyramid_levels
from .options import check_options

ANCHOR_SCALE = 8
"""Side of an anchor in strides."""


class SquareAnchorDetector(DenseDetector):
    """A detector with one square anchor per location, labelled by ATSS.

    The anchor of row y and column x is a square of 8 strides around (x * stride, y * stride), as
    mmdetection has it. The losses are divided by the number of positives of the batch, averaged
    over processes; an image without any counts as one.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        head: TowerHead,
        head_in_features: list[str] | None = None,
        box2box_transform: DeltaCoder | DistanceCoder | None = None,
        assign_topk: int = 9,
        padding_multiple: int | None = 32,
        test_score_thresh: float = 0.05,
        test_topk_candidates: int = 1000,
        test_nms_thresh: float = 0.6,
        max_detections_per_image: int = 100,
        **dense: Any,
    ):
        """
        Args:
            backbone, head, head_in_features: see :class:`DenseDetector`.
            box2box_transform: code of the boxes; by default a :class:`DeltaCoder` with standard
                deviations of 0.1 (centre) and 0.2 (logarithm of the size), and for a head with
                ``reg_max`` the distances from the centre in strides.
            assign_topk, padding_multiple: see :class:`ATSSAssigner`.
            test_score_thresh, test_topk_candidates, test_nms_thresh, max_detections_per_image:
                see :class:`DenseDetector`, as the further arguments ``dense``.
        """
        check_options(assign_topk=assign_topk, padding_multiple=padding_multiple)
        levels, strides = pyramid_levels(backbone, head_in_features)
        if box2box_transform is None:
            box2box_transform = default_coder(head)
        dense.setdefault("loss_normalizer", 1.0)
        dense.setdefault("loss_normalizer_momentum", 0.0)
        dense.setdefault("loss_normalizer_sync", True)
        dense.setdefault("count_empty_images", True)
        dense.setdefault("clip_before_nms", True)
        super().__init__(
            backbone=backbone,
            head=head,
            head_in_features=levels,
            anchor_generator=DefaultAnchorGenerator(
                sizes=[[ANCHOR_SCALE * stride] for stride in strides],
                aspect_ratios=[1.0],
                strides=strides,
                offset=0.0,
            ),
            box2box_transform=box2box_transform,
            test_score_thresh=test_score_thresh,
            test_topk_candidates=test_topk_candidates,
            test_nms_thresh=test_nms_thresh,
            max_detections_per_image=max_detections_per_image,
            **dense,
        )
        self.assigner: Any = ATSSAssigner(topk=assign_topk, padding_multiple=padding_multiple)

    def assign(self, dense: DensePass, ground_truth: list[Instances]) -> tuple[Tensor, Tensor]:
        """Labels (N, R) and matched boxes (N, R, 4) by :class:`ATSSAssigner`."""
        return self.assigner.assign(dense.priors, ground_truth, self.num_classes, dense.image_sizes)

    def detection_scores(self, dense: DensePass) -> tuple[list[Tensor], list[Tensor] | None]:
        """Class scores, and the quality (if any) they are multiplied with once selected."""
        scores, _ = super().detection_scores(dense)
        return scores, dense.quality and [quality.sigmoid() for quality in dense.quality]


def default_coder(head: TowerHead) -> DeltaCoder | DistanceCoder:
    """What the boxes of ``head`` are coded as, unless something else is asked for."""
    if head.reg_max is None:
        return DeltaCoder(weights=(10.0, 10.0, 5.0, 5.0))
    return DistanceCoder(activation="identity", prior_scale=ANCHOR_SCALE)
