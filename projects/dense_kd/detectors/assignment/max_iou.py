"""RetinaNet's assigner: anchors and boxes by their overlap."""

from __future__ import annotations

import torch
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Boxes, Instances, pairwise_iou
from torch import Tensor

from ...lengths import zip_equal
from .locations import not_in_padding


class MaxIoUAssigner:
    """Match anchors with the box they overlap most (RetinaNet), through detectron2's Matcher.

    The defaults are detectron2's rules; the options make them mmdetection's.
    """

    def __init__(
        self,
        matcher: Matcher,
        *,
        padding_multiple: int | None = None,
        reassign_best_anchors: bool = False,
    ):
        """
        Args:
            matcher: its thresholds on IoU decide what is background, ignored and foreground, and
                its low-quality matches make the best anchors of every box foreground.
            padding_multiple: see :class:`.adaptive.ATSSAssigner`; 32 is mmdetection's rule.
            reassign_best_anchors: such a best anchor serves the box that it is the best of, even
                if it overlaps another more, and the last if several boxes share it: mmdetection's
                rule. In detectron2 it serves the box it overlaps most, so that a box may be left
                without an anchor.
        """
        if reassign_best_anchors and not matcher.allow_low_quality_matches:
            raise ValueError(
                "reassign_best_anchors=True with a Matcher of allow_low_quality_matches=False, in "
                "which the best anchor of a box need not be positive; make both True or both False"
            )
        self.matcher = matcher
        self.padding_multiple = padding_multiple
        self.reassign_best_anchors = reassign_best_anchors

    @torch.no_grad()
    def assign(
        self,
        priors: list[Tensor],
        ground_truth: list[Instances],
        num_classes: int,
        image_sizes: list[tuple[int, int]],
    ) -> tuple[Tensor, Tensor]:
        """
        Args:
            priors: L x (Hl*Wl*A, 4).
            ground_truth: N Instances with gt_boxes and gt_classes.
            num_classes: K, the label of background.
            image_sizes: N x (height, width) without padding.

        Returns:
            labels (N, R) in {-1 ignored, 0..K-1, K background} and matched boxes (N, R, 4).
        """
        anchors = Boxes(torch.cat(priors))  # (R, 4)
        labels, boxes = [], []
        for instances, image_size in zip_equal(ground_truth=ground_truth, image_sizes=image_sizes):
            keep = not_in_padding(anchors.tensor, image_size, self.padding_multiple)  # (R,)
            # An overlap of 0 is below all others: an anchor in the padding is the best of no box.
            overlaps = pairwise_iou(instances.gt_boxes, anchors).masked_fill_(~keep, 0)  # (M, R)
            matched, match = self._match(overlaps)  # (R,) both
            if len(instances) == 0:
                label = torch.full_like(matched, num_classes)
                box = torch.zeros_like(anchors.tensor)
            else:
                label = instances.gt_classes[matched]
                label[match == 0] = num_classes
                label[match == -1] = -1
                box = instances.gt_boxes.tensor[matched]
            labels.append(label.masked_fill(~keep, -1))
            boxes.append(box)
        return torch.stack(labels), torch.stack(boxes)

    def _match(self, overlaps: Tensor) -> tuple[Tensor, Tensor]:
        """(R,) index of a box, and (R,) whether it is 1 foreground, 0 background, -1 ignored."""
        matched, match = self.matcher(overlaps)
        if self.reassign_best_anchors and len(overlaps) > 0:
            is_best = overlaps == overlaps.amax(dim=1, keepdim=True)  # (M, R)
            found, from_last = is_best.flip(0).byte().max(dim=0)  # (R,) both; the first of equals
            matched = torch.where(found > 0, len(overlaps) - 1 - from_last, matched)
        return matched, match
