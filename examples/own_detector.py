#!/usr/bin/env python
"""A detector of one's own as student: what it has to say, and nothing more.

    python examples/own_detector.py train.max_iter=200 train.output_dir=output/own_detector

All detectors here follow one template: a head of towers on a feature pyramid, an assignment, and
losses. The methods then work on it, as they see nothing but its pass. This one learns from the
middle of each object: a prediction is positive if its anchor's centre lies in the central part of a
box, of several boxes that of the smallest.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.structures import Instances
from detectron2.utils.logger import setup_logger
from torch import Tensor

from dense_kd.arguments import is_number
from dense_kd.detectors import DistanceCoder, TowerHead
from dense_kd.detectors.base.square_anchors import SquareAnchorDetector
from dense_kd.engine import load_config, train
from dense_kd.engine.checks.overrides import apply_overrides
from dense_kd.losses import elementwise_giou, focal_loss
from dense_kd.outputs import DensePass, Targets


class MiddleDetector(SquareAnchorDetector):
    """One anchor per location, the positives around the middle of each object."""

    def __init__(self, *, central_part: float = 0.5, **options: Any):
        """
        Args:
            central_part: of the sides of a box, above 0 and up to 1, in which positives lie.
            options: see SquareAnchorDetector.
        """
        if not (is_number(central_part) and 0 < central_part <= 1):
            raise ValueError(f"central_part={central_part!r}: expected a number above 0, up to 1")
        super().__init__(box2box_transform=DistanceCoder(), **options)
        self.central_part = central_part

    def assign(self, dense: DensePass, ground_truth: list[Instances]) -> tuple[Tensor, Tensor]:
        """Labels (N, R) and matched boxes (N, R, 4)."""
        priors = dense.all_priors  # (R, 4)
        centres = (priors[:, :2] + priors[:, 2:]) / 2
        shape = (len(ground_truth), len(priors))
        labels = torch.full(shape, self.num_classes, device=priors.device)  # background
        boxes = priors.expand(len(ground_truth), -1, -1).clone()
        for image, truth in enumerate(ground_truth):
            if len(truth) == 0:
                continue
            gt = truth.gt_boxes.tensor  # (M, 4)
            middle, size = (gt[:, :2] + gt[:, 2:]) / 2, gt[:, 2:] - gt[:, :2]
            offset = (centres[:, None] - middle).abs() / size.clamp(min=1)  # (R, M, 2)
            near = (offset <= self.central_part / 2).all(dim=2)
            area = size.prod(dim=1).expand(len(priors), -1).masked_fill(~near, float("inf"))
            smallest, index = area.min(dim=1)  # (R,)
            found = smallest.isfinite()
            labels[image, found] = truth.gt_classes[index[found]]
            boxes[image] = torch.where(found[:, None], gt[index], boxes[image])
        return labels, boxes

    def losses(self, dense: DensePass, targets: Targets) -> dict[str, Tensor]:
        """``loss_cls`` (focal) and ``loss_box_reg`` (GIoU), divided by the positives."""
        loss_cls = focal_loss(dense.all_logits, targets.labels, alpha=0.25, gamma=2.0)
        overlap = elementwise_giou(
            self.matched_boxes(dense, targets), targets.of_positives(targets.boxes)
        )
        return {
            "loss_cls": loss_cls / targets.normalizer,
            "loss_box_reg": 2 * (1 - overlap).sum() / targets.normalizer,
        }


def main(argv: Sequence[str] | None = None) -> None:
    """Train it in place of the quickstart's student, with PKD from an FCOS; overrides follow."""
    overrides = list(sys.argv[1:] if argv is None else argv)
    setup_logger(name="dense_kd")
    cfg = load_config("quickstart/pkd")  # a method of features, which any two pyramids have
    student = cfg.model.student
    student._target_, student.head._target_ = MiddleDetector, TowerHead
    student.head.num_anchors = 1
    train(argparse.Namespace(resume=False), apply_overrides(cfg, overrides))


if __name__ == "__main__":
    main()
