"""GI box: the general instances of GID (Dai et al., CVPR 2021).

Means are over all images of this process: the split of a batch matters, see :mod:`.features`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...arguments import is_integer
from ...options import check_positive, is_share
from ...outputs import DensePass
from ..base import Needs, Step
from ..base.class_maps import ClassMap
from .features import FeatureImitation, level_sizes, sum_of_means
from .masks import disagreement_masks


class GIBox(FeatureImitation):
    """The general instances of GID (Dai et al., "General Instance Distillation for Object
    Detection", CVPR 2021), as the baseline "GI box" of LD's code.

        loss_feature = weight * sum_l mean of e / C over the cells of level l where student
                       and teacher disagree most, see :func:`disagreement_masks`

    LD's code takes ``topk=10`` per level over the whole batch, boxes of different images together;
    here they are of each image. GID's relations and responses are not part of it. The adapter is
    as that of :class:`.fitnet.FitNet`. NMS looks at the 1000 largest disagreements of a level
    (ours).

    In a training step the tensors of the loss take, at their peak, 3.1 times the memory of the maps
    that are compared (both pyramids, float32; gradients included), with nine anchors per location;
    with one it is 0.6.
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
            warmup_iters: see :class:`dense_kd.KDMethod`.
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
        masks = disagreement_masks(
            *self.comparable_levels(student, teacher),
            student.boxes,
            teacher.boxes,
            student.num_anchors,
            topk=self.topk,
            nms_thresh=self.nms_thresh,
        )
        errors = self.errors(student, teacher)
        channels = teacher.features[0].shape[1]
        loss = sum_of_means(errors, torch.cat(masks, dim=-1), level_sizes(student), channels)
        return {"loss_feature": self.weight * loss}
