"""PGD: "Prediction-Guided Distillation for Dense Object Detection" (Yang et al., ECCV 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from detectron2.structures import Instances
from torch import Tensor, nn

from ...detectors.assignment.locations import box_centers, not_in_padding, on_images
from ...detectors.base.dense import DenseDetector
from ...detectors.base.heads import BRANCHES
from ...options import (
    check_choices,
    check_counts,
    check_not_negative,
    check_padding_multiple,
    check_positive,
    check_shares,
    check_unused,
    check_weights,
    is_list,
)
from ...outputs import DensePass
from ..base import KDMethod, Needs, Step
from ..base.batch_size import growth_warning
from ..base.class_maps import ClassMap
from ..base.levels import Places
from ..base.objects import stacked_boxes
from .released import (
    are_points,
    released_background,
    released_boxes,
    released_normalization,
    released_weights,
)
from .terms import bbox_terms, cls_terms, normalize_per_image
from .weighting import (
    FOREGROUNDS,
    background_mask,
    foreground_weights,
)

IMITATED = (*BRANCHES, "neck")
COMPAT = ("corrected", "released")
WHOLE_BOX = ("box", "box_gaussian", "center")
"""Foregrounds that do not look at predictions."""
RELEASED_IMAGES = 4
"""Images per process in PGD's runs."""


class Masks(NamedTuple):
    """The locations that are distilled, each L x (N, Hl, Wl) in [0, 1].

    Attributes:
        cls: foreground of the class tower.
        bbox: foreground of the box tower.
        background: of the class tower, 0 or 1.
    """

    cls: list[Tensor]
    bbox: list[Tensor]
    background: list[Tensor]


class PGD(KDMethod):
    """The student's towers imitate the teacher's after the first block, where the teacher predicts
    well.

    The teacher's predictions choose the ``topk`` best locations of each object and a Gaussian
    through them weights these, see :func:`foreground_weights`; I_cls and I_bbox are the masks for
    two exponents of the IoU. F are features (C, H, W) of a level after the first block of a tower,
    and with the temperature tau

        P = HW softmax_hw(mean_c |F| / tau)       spatial attention
        A = C softmax_c(|F| / tau)                channel attention, of each location by itself

    Per image and level l, M the class mask divided by the number of its cells that are not 0, B
    the locations outside of all objects divided by theirs, lambda_l = 1 + level_step * l,

        loss_cls_foreground = alpha lambda_l sum M P_T A_T (F_T - F_S)^2
        loss_cls_background = beta  lambda_l sum B P_T A_T (F_T - F_S)^2
        loss_cls_attention  = delta (sum |A_T - A_S| / HW + sum |P_T - P_S|)
        loss_bbox           = gamma mean_p I_p mean_c A_T (F_T - F_S)^2
        loss_bbox_attention = delta mean_p sum_c |A_T - A_S|

    with p the cells where I_bbox is not 0 (no such cell: 0), summed over levels and averaged over
    images. beta = 0.5 alpha and gamma = 1.6 alpha unless given. Gradient goes to
    the student only, in the attention terms through its attention. The released configs, which
    also let the student inherit the teacher's FPN and head (``Distiller(init_student=True)``):

        detector     alpha  tau  topk
        ATSS         0.08   0.8  9
        DDOD         0.08   0.8  30
        AutoAssign   0.08   0.4  30
        FCOS, GFL    0.04   0.8  30
        MobileNetV2  0.04   0.8  9 (ATSS), 30 (FCOS)
        CrowdHuman   0.001  0.8  30 (DDOD)

    In the paper tau is 0.8 and K is 30 everywhere, and alpha 0.8 with anchors and 0.4 without
    (ten times what its Table 6b finds best: 0.07 for ATSS, 0.03 to 0.05 for FCOS).

    The released code has errors, which gave the published numbers. They are corrected by default,
    and made again with ``compat="released"``:

    (a) each image is weighted with the sum of the masks of all images of the process, foreground
        and background, so the class terms grow with their number (mask mixing): the run says once
        that it is not the published 4;
    (b) detectors of points (FCOS, AutoAssign) look for the point (y, x) in the objects;
    (c) boxes of distributions (GFL) are decoded with the stride of level n for image n;
    (d) the top K are chosen in and outside an object, and those outside dropped then;
    (e) coordinates are moved at random by up to 0.05 pixels for a covariance with an inverse,
        instead of adding 1e-4 square pixels to variances;
    (f) the mean of the box branch is over the cells of all images, so that images count by their
        number of cells.

    With the 4 images per process that the published numbers come from, (a) makes the class
    foreground 4.2 times and the class background 4.05 times what they are here. So the configs of
    the papers' rows, all of them corrected, have four times the alpha of the table, and with it
    beta, but gamma of the table's: ``PGD(alpha=4 * 0.08, gamma=1.6 * 0.08)`` for ATSS. What was
    released is ``PGD(alpha=0.08, compat="released")`` on 8 processes of 4 images.

    Where paper and code differ otherwise, this is the code: alpha, tau and K of the table, lambda
    (``level_step=0`` is the paper), the mean over channels in P (paper: a sum), a box branch
    divided by C (``loss_bbox`` is 1/C of eq 6, with the mask of eq 4), and attention terms that
    are not divided by HW (P) and C (A).

    Ours: locations whose cell begins in the padding beyond a multiple of 32 of the image's own
    size are in no mask, as the released code has it for anchors only; where a location has several
    anchors, the best counts; where the towers differ in width, a 1x1 convolution per branch, which
    is trained and left out of the student, takes the student's feature to the teacher's; objects of
    a class that the teacher does not have are in no foreground. For Table 7 the paper compares its
    two branches with each alone and with the class branch's loss on the pyramid (``branches``).

    Images are compared one by one, so with gradients that are averaged over processes the split
    of a batch does not matter, except to ``compat="released"``.

    The released DDOD also assigns the student's labels by the teacher's predictions; that is
    ``Distiller(targets_from_teacher=True)``.

    In a training step the tensors of the losses take, at their peak, 2.2 times the memory of the
    maps that are compared (of both branches, student's and teacher's, float32; gradients included),
    with nine anchors per location; with one it is 2.0. The masks of 500 objects in an image of
    800 x 1344 take 203 MiB then.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.08,
        beta: float | None = None,
        gamma: float | None = None,
        delta: float = 8e-4,
        temperature: float = 0.8,
        topk: int = 30,
        cls_iou_exponent: float = 0.8,
        bbox_iou_exponent: float = 0.6,
        foreground: str = "ours",
        branches: Sequence[str] = BRANCHES,
        level_step: float = 0.25,
        compat: str = "corrected",
        padding_multiple: int | None = 32,
        class_map: ClassMap = None,
        warmup_iters: int = 0,
    ):
        """
        Args:
            alpha, beta, gamma, delta: weights of the class foreground, the class background, the
                box branch and the attention terms; by default beta is 0.5 alpha and gamma 1.6
                alpha.
            temperature: tau.
            topk: K, most locations per object.
            cls_iou_exponent, bbox_iou_exponent: xi of the masks of the two branches.
            foreground: strategy of :func:`foreground_weights`.
            branches: what is imitated: "cls" and "bbox" are the towers; "neck" is the pyramid,
                with the terms of the class branch.
            level_step: what lambda grows by from level to level, at least 0.
            compat: "corrected", or "released" with the errors (a) to (f).
            padding_multiple: see :func:`on_images`.
            class_map: see :data:`ClassMap`.
            warmup_iters: see :class:`KDMethod`.

        Raises:
            ValueError: an option has a value that it may not have, or one that is changed has no
                effect beside the others.
        """
        super().__init__(warmup_iters=warmup_iters)
        check_choices(("foreground", foreground, FOREGROUNDS), ("compat", compat, COMPAT))
        if compat == "released" and foreground != "ours":
            raise ValueError(
                f"foreground={foreground!r} and compat='released': the released code has only "
                "foreground='ours'; use compat='corrected' for the others"
            )
        if (
            not is_list(branches)
            or any(branch not in IMITATED for branch in branches)
            or not 0 < len(branches) == len(set(branches))
        ):
            raise ValueError(
                f"branches={branches!r}: expected one or more of {IMITATED}, each once"
            )
        optional = {"beta": beta, "gamma": gamma}
        given = {name: weight for name, weight in optional.items() if weight is not None}
        check_weights(alpha=alpha, **given, delta=delta)
        check_positive(temperature=temperature)
        check_counts(topk=topk)
        check_shares(cls_iou_exponent=cls_iou_exponent, bbox_iou_exponent=bbox_iou_exponent)
        check_not_negative(level_step=level_step)
        check_padding_multiple(padding_multiple)
        exponents = dict(cls_iou_exponent=cls_iou_exponent, bbox_iou_exponent=bbox_iou_exponent)
        if foreground in WHOLE_BOX:
            check_unused(PGD, f"foreground={foreground!r}", topk=topk, **exponents)
        elif foreground == "quality":
            check_unused(PGD, "foreground='quality'", topk=topk)
        if "bbox" not in branches:
            check_unused(PGD, f"branches={branches}", bbox_iou_exponent=bbox_iou_exponent)
        elif set(branches) == {"bbox"}:
            check_unused(
                PGD,
                f"branches={branches}",
                cls_iou_exponent=cls_iou_exponent,
                level_step=level_step,
                padding_multiple=padding_multiple,  # of the background
            )
        if compat == "released":
            check_unused(PGD, "compat='released'", padding_multiple=padding_multiple)
        self.alpha = alpha
        self.beta = given.get("beta", 0.5 * alpha)
        self.gamma = given.get("gamma", 1.6 * alpha)
        self.delta = delta
        if set(branches) == {"bbox"}:
            check_weights(gamma=self.gamma, delta=delta)
        elif "bbox" not in branches:
            check_weights(alpha=alpha, beta=self.beta, delta=delta)
        of_classes, of_boxes = set(branches) != {"bbox"}, "bbox" in branches
        has_foreground, has_background = of_classes and alpha > 0, of_classes and self.beta > 0
        if of_classes and not has_foreground:
            check_unused(PGD, "alpha=0", cls_iou_exponent=cls_iou_exponent)
        if of_classes and not has_background:
            check_unused(PGD, "beta=0", padding_multiple=padding_multiple)
        if of_classes and not (has_foreground or has_background):
            check_unused(PGD, "alpha=beta=0", level_step=level_step)
        if of_boxes and self.gamma == delta == 0:
            check_unused(PGD, "gamma=delta=0", bbox_iou_exponent=bbox_iou_exponent)
        if not has_foreground and (not of_boxes or self.gamma == delta == 0):
            because = "alpha=gamma=delta=0" if of_boxes else f"alpha=0 and branches={branches}"
            check_unused(PGD, because, foreground=foreground, topk=topk)
            if not has_background:
                check_unused(PGD, f"alpha=beta=0 and branches={branches}", compat=compat)
        self.temperature = temperature
        self.topk = topk
        self.iou_exponents = (cls_iou_exponent, bbox_iou_exponent)
        self.foreground = foreground
        self.level_step = level_step
        self.compat = compat
        self.padding_multiple = padding_multiple
        self.class_map = class_map
        self.branches = tuple(branches)
        self.needs = Needs(
            taps=tuple((branch, 1) for branch in self.branches if branch != "neck"),
            same_levels=True,
            same_classes=True,
            ground_truth=True,
            features="neck" in self.branches,
        )
        self.adapters = nn.ModuleDict()

    def prepare(self, student: DenseDetector, teacher: DenseDetector) -> None:
        """Make the adapters of branches that differ in width."""
        super().prepare(student, teacher)
        for branch in self.branches:
            depth = 0 if branch == "neck" else 1
            ours, theirs = (d.head.tower_channels[depth] for d in (student, teacher))
            if ours != theirs:
                self.adapters[branch] = nn.Conv2d(ours, theirs, kernel_size=1).to(student.device)

    def images_warning(self, images: int) -> str | None:
        """That the released code's class terms have the masks of all images."""
        if self.compat != "released" or set(self.branches) == {"bbox"}:
            return None
        growing = "with compat='released' the class terms have the masks of all images"
        return growth_warning(growing, images, "leave compat out", published=RELEASED_IMAGES)

    def unlike_one_batch(self) -> str | None:
        """The released code's box branch, too, goes by all images together."""
        if self.compat == "released" and "bbox" in self.branches:
            return "with compat='released' its box branch is a mean over the cells of all images"
        return super().unlike_one_batch()

    def forward(self, student: DensePass, teacher: DensePass, step: Step) -> dict[str, Tensor]:
        """``loss_cls_foreground``, ``loss_cls_background``, ``loss_cls_attention``, ``loss_bbox``
        and ``loss_bbox_attention``; those of the neck are named as those of the class branch."""
        masks = self.masks(teacher, step.ground_truth)
        normalize = released_normalization if self.compat == "released" else normalize_per_image
        cls_share, background_share, bbox_share = normalize(*masks)  # (N, P) each
        numbers = torch.arange(len(masks.cls), device=cls_share.device)
        scale = Places(masks.cls).spread(1 + self.level_step * numbers)  # (P,), lambda
        shares = (scale * cls_share, scale * background_share)
        losses = {}
        for branch in self.branches:
            features = self._features(student, teacher, branch)
            if branch == "bbox":
                feature, attention = bbox_terms(*features, masks.bbox, bbox_share, self.temperature)
                losses["loss_bbox"] = self.gamma * feature
            else:
                foreground, background, attention = cls_terms(*features, *shares, self.temperature)
                losses[f"loss_{branch}_foreground"] = self.alpha * foreground
                losses[f"loss_{branch}_background"] = self.beta * background
            losses[f"loss_{branch}_attention"] = self.delta * attention
        return losses

    def _features(
        self, student: DensePass, teacher: DensePass, branch: str
    ) -> tuple[list[Tensor], list[Tensor]]:
        """L x (N, C, Hl, Wl) of both."""
        ours, theirs = (
            [x.float() for x in (dense.features if branch == "neck" else dense.taps[branch, 1])]
            for dense in (student, teacher)
        )
        if branch in self.adapters:
            ours = [self.adapters[branch](x) for x in ours]
        return ours, [x.detach() for x in theirs]

    @torch.no_grad()
    def masks(
        self, teacher: DensePass, ground_truth: list[Instances], foreground: str | None = None
    ) -> Masks:
        """What the teacher's predictions choose to be distilled.

        Args:
            teacher: its taps are not looked at.
            ground_truth: N Instances with gt_boxes and the student's gt_classes.
            foreground: another strategy than the method's own, without errors of the released code.
        """
        if self.compat == "released" and foreground is None:
            weights, background = self._released_masks(teacher, ground_truth)
        else:
            levels = teacher.cells
            points = box_centers(torch.cat(levels))  # (P, 2)
            valid = on_images(levels, teacher.image_sizes, self.padding_multiple)  # (N, P)
            gt_boxes = stacked_boxes([truth.gt_boxes.tensor for truth in ground_truth])
            classes = nn.utils.rnn.pad_sequence(
                [self._teacher_classes(truth.gt_classes) for truth in ground_truth],
                batch_first=True,
                padding_value=-1,
            )
            weights = foreground_weights(  # (2, N, P)
                points,
                torch.cat([*teacher.logits], dim=1).sigmoid_(),  # not to be kept, as all_logits is
                teacher.all_boxes,
                gt_boxes * (classes >= 0)[..., None],  # without area, they give none
                classes.clamp(min=0),
                iou_exponent=self.iou_exponents,
                topk=self.topk,
                strategy=foreground or self.foreground,
                valid=valid,
            )
            background = background_mask(points, gt_boxes) & valid
        kinds = torch.cat((weights, background[None].to(weights)))  # (3, N, P)
        sizes = teacher.map_sizes
        split = kinds.split([size.numel() for size in sizes], dim=2)
        shaped = [maps.unflatten(2, size) for maps, size in zip(split, sizes)]  # (3, N, Hl, Wl)
        return Masks(*(list(kind) for kind in zip(*shaped)))

    def _released_masks(
        self, teacher: DensePass, ground_truth: list[Instances]
    ) -> tuple[Tensor, Tensor]:
        """Foregrounds, (2, N, P), and background, (N, P) bool, with the errors (b) to (e)."""
        priors = torch.cat(teacher.cells)
        points = box_centers(priors)
        transposed = are_points(teacher)
        scores = torch.cat([*teacher.logits], dim=1).sigmoid_()
        boxes = torch.cat(released_boxes(teacher), dim=1)
        weights, backgrounds = [], []
        for n, truth in enumerate(ground_truth):
            # Points are also looked at in the padding.
            valid = not_in_padding(priors, teacher.image_sizes[n], self.padding_multiple)
            valid = valid | transposed
            gt_boxes, classes = truth.gt_boxes.tensor, self._teacher_classes(truth.gt_classes)
            known = gt_boxes * (classes >= 0)[:, None]  # without area, they give no weight
            kinds = [
                released_weights(
                    points,
                    scores[n],
                    boxes[n],
                    known,
                    classes.clamp(min=0),
                    iou_exponent=exponent,
                    topk=self.topk,
                    transposed=transposed,
                    valid=valid,
                )
                for exponent in self.iou_exponents
            ]
            weights.append(torch.stack(kinds))
            backgrounds.append(released_background(points, gt_boxes, transposed) & valid)
        return torch.stack(weights, dim=1), torch.stack(backgrounds)

    def _teacher_classes(self, classes: Tensor) -> Tensor:
        """(M,) of (M,): -1 where the teacher has no such class."""
        if getattr(self, "student_classes", None) is None:
            return classes
        same = classes[:, None] == self.student_classes  # (M, K')
        return torch.where(same, self.teacher_classes, -1).amax(dim=1)
