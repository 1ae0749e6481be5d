#!/usr/bin/env python
"""A method of one's own, beside one that is there.

    python examples/own_method.py train.max_iter=200 train.output_dir=output/own_method

What is tried here: the student's class scores shall rank the locations of an image as the teacher's
do. For each image, a softmax over the best score of each prediction, and the divergence of both.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch
from detectron2.config import LazyCall as L
from detectron2.utils.logger import setup_logger
from torch import Tensor

from dense_kd.engine import load_config, train
from dense_kd.engine.checks.overrides import apply_overrides
from dense_kd.losses import kl_divergence
from dense_kd.methods.base import KDMethod, Needs, Step
from dense_kd.options import check_positive
from dense_kd.outputs import DensePass


class RankingKD(KDMethod):
    """loss_rank = weight * T^2 * KL(softmax_r(max_k t_rk / T) || softmax_r(max_k s_rk / T)).

    The softmax is over the predictions r of an image; s and t are class logits.
    """

    # One to one: prediction r of the student and of the teacher are of one place. Classes may
    # differ, and no feature map is looked at.
    needs = Needs(same_priors=True, features=False)

    def __init__(self, *, weight: float = 1.0, temperature: float = 1.0, warmup_iters: int = 0):
        """
        Args:
            weight: above 0.
            temperature: T, above 0.
            warmup_iters: see KDMethod.
        """
        super().__init__(warmup_iters=warmup_iters)
        check_positive(weight=weight, temperature=temperature)
        self.weight = weight
        self.temperature = temperature

    def forward(self, student: DensePass, teacher: DensePass, step: Step) -> dict[str, Tensor]:
        """``loss_rank``; the teacher's tensors have no gradient."""
        ours, theirs = (
            torch.cat(x.logits, dim=1).amax(dim=2) for x in (student, teacher)
        )  # (N, R)
        divergence = kl_divergence(ours, theirs, self.temperature)  # (N,)
        return {"loss_rank": self.weight * divergence.mean()}


def main(argv: Sequence[str] | None = None) -> None:
    """Train the quickstart's student with BCKD and RankingKD; arguments are overrides."""
    overrides = list(sys.argv[1:] if argv is None else argv)
    setup_logger(name="dense_kd")
    cfg = load_config("quickstart/distill")
    cfg.model.methods.rank = L(RankingKD)(weight=0.5, temperature=2.0)
    cfg = apply_overrides(cfg, overrides)
    train(argparse.Namespace(resume=False), cfg)


if __name__ == "__main__":
    main()
