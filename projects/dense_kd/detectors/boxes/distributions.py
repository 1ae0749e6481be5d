"""Boxes as distributions over the distances to their sides, as GFL has them, for every detector.

Li et al., "Generalized Focal Loss: Learning Qualified and Distributed Bounding Boxes for Dense
Object Detection", NeurIPS 2020, section 3. LD (Zheng et al., CVPR 2022) gives ATSS, FCOS and
RetinaNet such boxes, too. A head with ``reg_max`` predicts them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...compat import full_precision
from ...losses import distribution_focal_loss
from ...outputs import DensePass, Targets
from .coders import DistanceCoder

if TYPE_CHECKING:
    from ..base.dense import DenseDetector


def expected_distances(distribution: Tensor) -> Tensor:
    """The expectations of distributions over the distances 0, 1, ..., bins - 1 (equation 4).

    Args:
        distribution: (..., bins), logits.

    Returns:
        (...)
    """
    bins = distribution.shape[-1]
    distances = torch.arange(bins, dtype=torch.float32, device=distribution.device)
    with full_precision(distribution.device):  # autocast would round the product
        return distribution.softmax(dim=-1) @ distances


def distribution_loss(dense: DensePass, targets: Targets, coder: DistanceCoder) -> Tensor:
    """The distribution focal loss of the P positives, mean over the four sides.

    Args:
        dense: with distributions.
        targets: of its predictions.
        coder: says what the distances of the matched boxes are.

    Returns:
        (P,)
    """
    distribution = targets.of_positives(dense.all_distributions)  # (P, 4, bins)
    priors = targets.of_positives(dense.all_priors.expand_as(targets.boxes))
    distances = coder.get_deltas(priors, targets.of_positives(targets.boxes))
    # 0.1 below the last bin, as in the released code.
    distances = distances.clamp(min=0, max=distribution.shape[-1] - 1 - 0.1)  # (P, 4)
    return distribution_focal_loss(distribution, distances).mean(dim=1)


def check_distribution_boxes(detector: DenseDetector) -> None:
    """Raise ValueError if the head of ``detector`` has ``reg_max`` and the rest does not fit it."""
    if detector.head.reg_max is None:
        return
    name = type(detector).__name__
    if not detector.trains_distribution:
        raise ValueError(
            f"head has reg_max={detector.head.reg_max}, and {name} has no loss for distributions "
            "over box distances; leave reg_max out"
        )
    coder = detector.box2box_transform
    if (
        not isinstance(coder, DistanceCoder)
        or coder.activation == "exp"
        or not coder.normalize_by_size
    ):
        raise ValueError(
            f"head has reg_max={detector.head.reg_max}, so it predicts distances from 0 to that, "
            f"and box2box_transform is a {type(coder).__name__} of something else; expected "
            'DistanceCoder(activation="identity", prior_scale=...), whose unit is a prior\'s size '
            "divided by prior_scale"
        )
