"""CrossKD: "CrossKD: Cross-Head Knowledge Distillation for Object Detection" (Wang et al., CVPR
2024)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..detectors.assignment.locations import on_images
from ..detectors.base.dense import DenseDetector
from ..detectors.base.heads import BRANCHES, PRE_RELU
from ..lengths import check_equal_lengths
from ..losses import (
    elementwise_giou,
    elementwise_iou,
    kl_divergence,
    modulated_binary_cross_entropy,
    sum_of,
)
from ..normalizers import at_least, mean_over_processes
from ..options import check_choices, check_flags, check_unused, check_weights
from ..outputs import DensePass, Targets
from .base import KDMethod, Needs, Step
from .base.checks import check_same_priors
from .base.statistics import channel_statistics, standardized

LOC_LOSSES = ("auto", "kl", "giou", "iou")
LOC_WEIGHTINGS = ("score", "uniform")
NORMALIZERS = ("positives", "quality", "predictions")
ALIGN_ON = ("post_relu", "pre_relu")


class CrossKD(KDMethod):
    """The rest of the teacher's head predicts from the student's tower, as the teacher does.

    In each branch and level, the student's feature z_s after ``depth`` blocks of the tower gets
    the statistics of the teacher's feature z_t of that depth, and goes through the teacher's
    remaining blocks and predictions, which are frozen:

        z = ReLU((z_s - mean_s) / (std_s + 1e-6) * std_t + mean_t)

    with means and (unbiased) standard deviations per channel over all cells of this process's
    batch; no ReLU at depth 0. From the cross-head predictions of z, with class logits c_ik of
    prediction i and class k, boxes b_i and quality logits q_i, and the teacher's own t_ik, b_t,i
    and q_t,i,

        loss_cls     = cls_weight / n * sum_ik |sig(t_ik) - sig(c_ik)| * BCE(sig(c_ik), sig(t_ik))
        loss_loc     = loc_weight / n * sum_i rho_i * D(b_i, b_t,i),   rho_i = max_k sig(t_ik)
        loss_quality = quality_weight / n * sum over positives of BCE(sig(q_i), sig(q_t,i))

    (equations 2 and 3). D is 1 - GIoU, or -log IoU. Where the teacher predicts distributions
    over the distances to the four sides it is their KL divergence, averaged over the sides, and
    this term is divided by the sum of rho over this process's batch instead of n. i runs over all
    predictions but those the assigner ignores. Gradient reaches the student up to ``depth``:
    through z_s and its statistics, in the class term through both factors; none reaches the
    student's later blocks, its predictions or the teacher.

    The released configs, which are not all the defaults:

        teacher     depth  cls_weight  loc_weight  quality_weight  loc_loss  normalize
        RetinaNet   3      1.0         1.0         0               "auto"    "positives"
        ATSS        3      1.0         1.0         1.0             "auto"    "positives"
        GFL         3      1.0         4.0         0               "auto"    "positives"
        FCOS        2      0.4         0.75        0               "iou"     "quality"

    Where the paper and the released code differ, the default is the code, which gave the
    published numbers: it aligns the statistics (not in the paper; ``align=False``), and aligns
    features after the ReLU, which is in-place and so overwrites the features before it that are
    meant (``align_on="pre_relu"``); it weights the box term with rho (paper: 1,
    ``loc_weighting="uniform"``), divides by the positives or the sum of their centreness (paper:
    the number of predictions, ``normalize="predictions"``), compares the points' boxes of FCOS
    with -log IoU (paper: GIoU, ``loc_loss="auto"``) and enters FCOS at depth 2 (paper: 3
    everywhere). Ours is that a batch without any positive is divided by 1 with
    ``normalize="quality"``, too; the released code has 1e-6 there.

    Both sides come out of the teacher's head, so detectors, anchors and classes of the two may
    differ, but not the levels. If their anchors are equal, positives, ignored predictions and n
    are those of the student's targets (``Targets.normalizer``, so RetinaNet's is local or a
    moving average if its losses are divided by that). Otherwise no prediction in the image is
    ignored and all in its padding are, and positives and n are what the teacher's assigner finds.
    Where the towers differ in width, a 1x1 convolution per branch, which is trained and left out
    of the student, takes the student's feature to the teacher's width before the alignment.

    Under autocast the cross-head predictions are made in float32, unless the ``Teacher`` has a
    precision of its own.

    In a training step of GFL at depth 3 the tensors of the losses take, at their peak, 2.9 times
    the memory of the towers' features that are compared (of both branches, student's and teacher's,
    float32; gradients included). The teacher's head alone, forward and backward, takes 1.7 of it,
    and each block more adds 1.0: depth 2 takes 3.9, depth 1 4.9. The class logits of nine anchors
    are larger than the features: for RetinaNet at depth 3 it is 6.5 times the features, and 2.4
    times the features and the predictions that are compared.

    The statistics and the sum of rho are those of one process; with ``align=False`` and boxes
    instead of distributions, the loss does not depend on how a batch is split over processes as
    long as n does not.
    """

    def __init__(
        self,
        *,
        depth: int | Mapping[str, int] = 3,
        cls_weight: float = 1.0,
        loc_weight: float = 1.0,
        quality_weight: float = 0.0,
        loc_loss: str = "auto",
        loc_weighting: str = "score",
        normalize: str = "positives",
        align: bool = True,
        align_on: str = "post_relu",
        warmup_iters: int = 0,
    ):
        """
        Args:
            depth: blocks of the student's towers that are distilled; one number, or
                {"cls": number, "bbox": number}. 0 is the pyramid.
            cls_weight: of the class term; 0 leaves it out.
            loc_weight: of the box term; 0 leaves it out.
            quality_weight: of the term of the centreness or IoU branch; 0 leaves it out.
            loc_loss: "kl" of distributions, "giou" or "iou" (-log IoU) of boxes, or "auto": "kl"
                if the teacher predicts distributions, else "giou".
            loc_weighting: "score" (rho, code) or "uniform" (paper).
            normalize: n is "positives", what the detector divides its class loss by; "quality",
                the sum of the positives' centreness targets, averaged over processes; or
                "predictions" (paper), all that are not ignored, averaged over processes.
            align: give the student's features the teacher's statistics.
            align_on: "post_relu" (code) or "pre_relu", the features that are taken and aligned.
            warmup_iters: see :class:`KDMethod`.

        Raises:
            ValueError: an option has a value that it may not have, or one that is changed has no
                effect beside the others.
        """
        super().__init__(warmup_iters=warmup_iters)
        check_choices(
            ("loc_loss", loc_loss, LOC_LOSSES),
            ("loc_weighting", loc_weighting, LOC_WEIGHTINGS),
            ("normalize", normalize, NORMALIZERS),
            ("align_on", align_on, ALIGN_ON),
        )
        check_weights(cls_weight=cls_weight, loc_weight=loc_weight, quality_weight=quality_weight)
        check_flags(align=align)
        if loc_weight == 0:
            check_unused(CrossKD, "loc_weight=0", loc_loss=loc_loss, loc_weighting=loc_weighting)
        self.depth = _depth_per_branch(depth)
        counts = {"cls": cls_weight + quality_weight, "bbox": loc_weight + quality_weight}
        compared = {branch: i for branch, i in self.depth.items() if counts[branch] > 0}
        if not any(compared.values()):
            alone = "" if compared == self.depth else f" of {', '.join(compared)} alone"
            check_unused(CrossKD, f"depth={depth}{alone}", align_on=align_on)
        self.cls_weight = cls_weight
        self.loc_weight = loc_weight
        self.quality_weight = quality_weight
        self.loc_loss = loc_loss
        self.loc_weighting = loc_weighting
        self.normalize = normalize
        self.align = align
        self.align_on = align_on
        self.tap_names = {
            branch: (branch + PRE_RELU if align_on == "pre_relu" and i > 0 else branch, i)
            for branch, i in self.depth.items()
        }
        self.needs = Needs(
            taps=tuple(self.tap_names.values()),
            same_levels=True,
            ground_truth=True,
            features=False,
        )
        self.same_priors = True
        self.compares_distributions = loc_loss == "kl"
        self.adapters = nn.ModuleDict()

    def check(self, student: DenseDetector, teacher: DenseDetector) -> None:
        """Also the depth of the towers, and that both have what the losses compare."""
        for role, detector in (("student", student), ("teacher", teacher)):
            for branch, depth in self.depth.items():
                if depth > detector.head.depth:
                    raise ValueError(
                        f"depth={depth} of the branch {branch!r}, but the towers of the {role} "
                        f"have {detector.head.depth} blocks; give depth={detector.head.depth} or "
                        "less"
                    )
        super().check(student, teacher)
        if not self.align and all(
            student.head.tower_channels[i] == teacher.head.tower_channels[i]
            for i in self.depth.values()
        ):  # a ReLU of the features before the ReLU, as they are
            check_unused(CrossKD, "align=False and equal widths", align_on=self.align_on)
        compares_distributions = self.loc_loss == "kl" or (
            self.loc_loss == "auto" and teacher.predicts_distribution
        )
        if self.cls_weight == self.quality_weight == 0 and compares_distributions:
            because = "cls_weight=quality_weight=0 and a box term of distributions"
            check_unused(CrossKD, because, normalize=self.normalize)
        if self.loc_loss == "kl" and not teacher.predicts_distribution:
            raise ValueError(
                "loc_loss='kl' compares distributions over box distances, and the teacher's "
                f"{type(teacher).__name__} predicts none; use loc_loss='auto'"
            )
        if self.quality_weight > 0 and teacher.head.quality_kind is None:
            raise ValueError(
                f"quality_weight={self.quality_weight}, but the teacher's "
                f"{type(teacher).__name__} has no quality branch; set it to 0"
            )
        role, assigning = (
            ("student", student) if _same_priors(student, teacher) else ("teacher", teacher)
        )
        if self.normalize == "quality" and assigning.head.quality_kind != "centerness":
            raise ValueError(
                "normalize='quality' divides by the centreness of the positives, and the "
                f"{role}'s {type(assigning).__name__} has no centreness branch; use "
                "normalize='positives'"
            )

    def prepare(self, student: DenseDetector, teacher: DenseDetector) -> None:
        """Make the adapters of towers that differ in width."""
        super().prepare(student, teacher)
        self.same_priors = _same_priors(student, teacher)
        if self.loc_loss == "auto":
            self.compares_distributions = teacher.predicts_distribution
        for branch, depth in self.depth.items():
            ours, theirs = (d.head.tower_channels[depth] for d in (student, teacher))
            if ours != theirs:
                # The alignment takes out what a bias adds.
                adapter = nn.Conv2d(ours, theirs, kernel_size=1, bias=not self.align)
                self.adapters[branch] = adapter.to(student.device)

    def forward(self, student: DensePass, teacher: DensePass, step: Step) -> dict[str, Tensor]:
        """``loss_cls``, ``loss_loc`` and ``loss_quality``, those of them whose weight is not 0."""
        cross = self.cross_predictions(student, teacher, step.resume)
        if self.same_priors:
            targets = step.targets
            valid = targets.valid  # (N, R)
        else:
            targets = step.assign()
            # Predictions of the cells that are not all padding.
            valid = on_images(teacher.priors, teacher.image_sizes, 1)  # (N, R)
        normalizer = self._normalizer(targets, valid)
        losses = {}
        if self.cls_weight > 0:
            loss, _ = modulated_binary_cross_entropy(cross.all_logits, teacher.all_logits, beta=1.0)
            losses["loss_cls"] = self.cls_weight * sum_of(loss, valid) / normalizer
        if self.loc_weight > 0:
            loss = self._loc_loss(cross, teacher, valid, normalizer)
            losses["loss_loc"] = self.loc_weight * loss
        if self.quality_weight > 0:
            assert cross.quality is not None and teacher.quality is not None
            loss = F.binary_cross_entropy_with_logits(
                torch.cat(cross.quality, dim=1),
                torch.cat(teacher.quality, dim=1).detach().sigmoid(),
                reduction="none",
            )
            loss = sum_of(loss, targets.foreground)
            losses["loss_quality"] = self.quality_weight * loss / normalizer
        # A tower whose term is left out would leave its adapter without gradient, and
        # DistributedDataParallel waiting for it.
        unused = sum(weight.sum() for weight in self.adapters.parameters()) * 0
        return {name: loss + unused for name, loss in losses.items()}

    def cross_predictions(
        self, student: DensePass, teacher: DensePass, resume: Callable[..., DensePass]
    ) -> DensePass:
        """What the teacher's head makes of the student's towers; no gradient to the teacher.

        Args:
            student, teacher: with the taps that the method needs.
            resume: ``Teacher.resume``.
        """
        taps = {}
        for branch, tap in self.tap_names.items():
            check_equal_lengths(student=student.taps[tap], teacher=teacher.taps[tap])
            ours, theirs = ([x.float() for x in dense.taps[tap]] for dense in (student, teacher))
            taps[branch] = self._cross_features(branch, ours, theirs)
        sizes, priors = teacher.image_sizes, teacher.priors
        return resume(taps[BRANCHES[0]], taps, self.depth, sizes, priors)

    def _cross_features(
        self, branch: str, features: list[Tensor], teacher_features: list[Tensor]
    ) -> list[Tensor]:
        """L x (N, C, Hl, Wl), what the next block of the teacher's tower gets."""
        if branch in self.adapters:
            features = [self.adapters[branch](feature) for feature in features]
        if self.align:
            features = align_statistics(features, teacher_features)
        return [x.relu() for x in features] if self.depth[branch] > 0 else features

    def unlike_one_batch(self) -> str | None:
        """Aligned, its features have the deviations of the batch; distributions are weighted with
        shares of its scores."""
        if self.align:
            return "it aligns features to the teacher's over the batch"
        if self.loc_weight > 0 and self.compares_distributions:
            return "its box term is divided by the sum of the teacher's scores over the batch"
        return None

    def _normalizer(self, targets: Targets, valid: Tensor) -> Tensor:
        if self.normalize == "positives":
            return targets.normalizer
        if self.normalize == "predictions":
            return at_least(mean_over_processes(valid.sum().float()), 1)
        assert targets.quality is not None
        total = mean_over_processes(sum_of(targets.quality, targets.foreground))
        return torch.where(total > 1e-6, total, torch.ones_like(total))

    def _loc_loss(
        self, cross: DensePass, teacher: DensePass, valid: Tensor, normalizer: Tensor
    ) -> Tensor:
        with torch.no_grad():
            weight = teacher.all_logits.amax(dim=2).sigmoid() * valid  # (N, R), rho
        if self.loc_weighting == "uniform":
            weight = valid.to(weight)
        kind = self.loc_loss
        if kind == "auto":
            kind = "giou" if teacher.distribution is None else "kl"
        if kind == "kl":
            divergence = kl_divergence(cross.all_distributions, teacher.all_distributions)
            # Scores may all underflow. The division comes first: the gradient of that of the loss
            # by a very small sum would overflow.
            share = weight / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)
            return (share * divergence.mean(dim=2)).sum()
        boxes, teacher_boxes = cross.all_boxes, teacher.all_boxes.detach()  # (N, R, 4) both
        if kind == "giou":
            distance = 1 - elementwise_giou(boxes, teacher_boxes)  # (N, R)
        else:
            distance = -elementwise_iou(boxes, teacher_boxes).clamp(min=1e-6).log()  # (N, R)
        return (weight * distance).sum() / normalizer


def align_statistics(
    features: list[Tensor], references: list[Tensor], eps: float = 1e-6
) -> list[Tensor]:
    """``features`` with mean and standard deviation of ``references``, per channel of each.

    Gradient goes through the statistics of ``features``, and not to ``references``.

    Args:
        features, references: (N, C, Hl, Wl) each; the statistics are over N, Hl and Wl.
        eps: added to the standard deviations of ``features``.
    """
    aligned = []
    for feature, reference in zip(standardized(features, eps), references):
        std, mean = channel_statistics(reference.detach())
        aligned.append(torch.addcmul(mean, feature, std))
    return aligned


def _depth_per_branch(depth: int | Mapping[str, int]) -> dict[str, int]:
    depths = dict(depth) if isinstance(depth, Mapping) else dict.fromkeys(BRANCHES, depth)
    if set(depths) != set(BRANCHES) or any(
        isinstance(i, bool) or not isinstance(i, int) or i < 0 for i in depths.values()
    ):
        raise ValueError(
            f"depth={depth!r}: expected a number of blocks, or one for each of {BRANCHES}"
        )
    return {branch: depths[branch] for branch in BRANCHES}


def _same_priors(student: DenseDetector, teacher: DenseDetector) -> bool:
    try:
        check_same_priors(student, teacher)
    except ValueError:
        return False
    return True
