"""Passes and pairs for the tests of methods that compare the pyramids of student and teacher."""

from __future__ import annotations

import torch
from detectron2.structures import Instances
from torch import Tensor, nn

from dense_kd import Distiller, KDMethod, MethodSet, PseudoLabels, Teacher
from dense_kd.detectors import DenseDetector
from dense_kd.methods.base.kd_method import Step
from dense_kd.outputs import DensePass, Targets
from helpers.builders import NUM_CLASSES, instances

SIDES = (2, 1)
"""Of the levels, at strides 8 and 16: images of 16 x 16 pixels."""


def make_pass(seed: int, num_anchors: int = 1) -> DensePass:
    """Two images, two levels, three channels, two classes."""
    generator = torch.Generator().manual_seed(seed)
    features, logits, boxes, priors = [], [], [], []
    for side, stride in zip(SIDES, (8, 16)):
        count = side * side * num_anchors
        features.append(torch.randn(2, 3, side, side, generator=generator))
        logits.append(torch.randn(2, count, 2, generator=generator))
        low = 8 * torch.rand(2, count, 2, generator=generator)
        boxes.append(torch.cat((low, low + 8), dim=2))
        line = stride * (torch.arange(side) + 0.5)
        y, x = torch.meshgrid(line, line, indexing="ij")
        centers = torch.stack((x, y), dim=2).view(-1, 1, 2).expand(-1, num_anchors, 2).flatten(0, 1)
        priors.append(torch.cat((centers - stride / 2, centers + stride / 2), dim=1))
    return DensePass(
        features=features,
        logits=logits,
        deltas=boxes,
        priors=priors,
        strides=[8, 16],
        num_anchors=num_anchors,
        image_sizes=[(16, 16)] * 2,
        decode=lambda deltas, priors: deltas,
    )


def feature_pass(
    features: list[Tensor], image_sizes: list[tuple[int, int]] | None = None
) -> DensePass:
    """A pass of which only the features, strides and image sizes are known.

    Args:
        features: L x (N, C, Hl, Wl).
        image_sizes: N x (height, width); those of the finest level by default.
    """
    images, _, height, width = features[0].shape
    return DensePass(
        features=features,
        logits=[],
        deltas=[],
        priors=[],
        strides=[8 * 2**level for level in range(len(features))],
        num_anchors=1,
        image_sizes=image_sizes or [(8 * height, 8 * width)] * images,
        decode=lambda deltas, priors: deltas,
    )


def feature_step(ground_truth: list[Instances]) -> Step:
    """A step of which only the ground truth is known."""

    def nothing(*_):
        return None

    none = torch.zeros(0)
    targets = Targets(none, none, NUM_CLASSES, torch.tensor(1.0))
    return Step(targets, ground_truth, iteration=0, resume=nothing, assign=nothing, images=none)


def no_objects(images: int) -> Step:
    return feature_step([instances((64, 64), [], []) for _ in range(images)])


def distill(
    student: DenseDetector,
    teacher: DenseDetector | None,
    method: KDMethod | None = None,
    *,
    precision: str | None = None,
    pseudo_labels: PseudoLabels | None = None,
    **methods: KDMethod,
) -> Distiller:
    """A distiller with ``method``, named "feature", and ``methods``; their parameters are seeded.

    Args:
        student, teacher: any detectors; None is no teacher.
        precision: of the teacher.
        pseudo_labels: of the distiller.
    """
    if method is not None:
        methods = {"feature": method, **methods}
    torch.manual_seed(0)
    return Distiller(
        student=student,
        teacher=None if teacher is None else Teacher(teacher, None, precision=precision),
        methods=MethodSet(**methods),
        pseudo_labels=pseudo_labels,
    )


@torch.no_grad()
def move_off_their_start(kd: nn.Module) -> None:
    """Change all parameters of methods: what starts at zero adds nothing yet."""
    generator = torch.Generator().manual_seed(0)
    for parameter in kd.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def adapted(
    method: KDMethod,
    channels: int,
    levels: int,
    width: int | None = None,
    teacher_stride: int = 8,
) -> KDMethod:
    """``method`` as ``prepare`` leaves it, for pyramids of ``channels`` and ``width`` channels.

    Args:
        method: of the pyramids alone.
        channels, levels: of the student.
        width: of the teacher; that of the student by default.
        teacher_stride: of the teacher's finest level; the student's is 8.
    """

    class Head:
        def __init__(self, channels: int):
            self.tower_channels = [channels]

    class Detector:
        def __init__(self, channels: int, stride: int = 8):
            self.strides = [stride * 2**level for level in range(levels)]
            self.head = Head(channels)
            self.device = torch.device("cpu")

    torch.manual_seed(0)
    student, teacher = Detector(channels), Detector(width or channels, teacher_stride)
    method.check(student, teacher)
    method.prepare(student, teacher)
    assert isinstance(method.adapters, nn.ModuleList)
    return method
