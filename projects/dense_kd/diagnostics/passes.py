"""The passes of student and teacher over a batch outside of training, to look at."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.structures import Instances
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from ..compat import full_precision
from ..distiller import Distiller
from ..methods import CrossKD
from ..methods.base.kd_method import teach_fully
from ..outputs import DensePass, Targets
from ..pairs import teacher_for
from ..teacher import Teacher

__all__ = ["Passes", "image_of", "run_passes", "training_losses"]


@dataclasses.dataclass
class Passes:
    """What both detectors make of a batch.

    Attributes:
        student, teacher: their passes.
        level_names: L names of the levels, as "P3".
        ground_truth: N Instances with gt_boxes and gt_classes, None unless all images have some.
        targets: what the student's assigner makes of them, or None.
        cross: what the teacher's head predicts from the student's towers, or None.
    """

    student: DensePass
    teacher: DensePass
    level_names: list[str]
    ground_truth: list[Instances] | None = None
    targets: Targets | None = None
    cross: DensePass | None = None


@torch.no_grad()
def run_passes(
    model: Distiller,
    batched_inputs: list[dict[str, Any]],
    crosskd: CrossKD | None = None,
    teacher: Teacher | None = None,
) -> Passes:
    """Run student and teacher as a training step does, but in eval mode and without gradient.

    Batch statistics, loss normalisers, iterations and the mode of the model stay as they are.

    Args:
        model: its teacher is loaded if it is not.
        batched_inputs: N dicts of detectron2's DatasetMapper, with or without "instances".
        crosskd: prepared for this pair, for the cross-head predictions; None makes none.
        teacher: another one than the model's.

    Raises:
        DistillationError: the model has no teacher, and no other one is given.
        ValueError: an image or its ground truth is not what the student takes.
        CheckpointError: the teacher's weights cannot be loaded.
    """
    teacher = teacher_for("a pass of the teacher", model.teacher) if teacher is None else teacher
    student, annotated = model.student, all("instances" in x for x in batched_inputs)
    with evaluating(student), full_precision(student.device):
        taps = () if crosskd is None else crosskd.needs.taps
        ground_truth = student.ground_truth(batched_inputs) if annotated else None
        images = student.preprocess_image(batched_inputs)
        theirs = teacher.run(batched_inputs, images, student, taps)
        ours = student.run(images, taps)
        targets = cross = None
        if ground_truth is not None:
            targets = student.targets(theirs if model.targets_from_teacher else ours, ground_truth)
        if crosskd is not None:
            cross = crosskd.cross_predictions(ours, theirs, teacher.resume)
    names = [name.upper() for name in student.head_in_features]
    return Passes(ours, theirs, names, ground_truth, targets, cross)


def training_losses(
    model: Distiller, batched_inputs: list[dict[str, Any]]
) -> tuple[dict[str, Tensor], DensePass]:
    """The losses of a training step, at the full weights of the methods, and the student's pass.

    The graph between the two is kept. The step is one of a copy: weights, statistics and iterations
    of ``model`` stay as they are, and nothing of it is logged. Its student is looked at as it is,
    also where the first step of a training would let it inherit. Batch norms that learn use the
    statistics of the batch, as in training.

    Args:
        model: its teacher is loaded if it is not.
        batched_inputs: N dicts of detectron2's DatasetMapper, with "instances".

    Raises:
        ValueError: an image or its ground truth is not what the student takes.
        CheckpointError: the teacher's weights cannot be loaded.
    """
    twin, passes = model.to_look_at().train(), []
    twin.student.vis_period = 0
    teach_fully(twin.kd)
    if twin.kd.balance is not None:
        twin.kd.balance.probe = twin.kd.balance.period = 0  # its factors are those of the run
    twin.kd.register_forward_hook(lambda module, given, losses: passes.append(given[0]))
    # Of a run that is going on, the storage is for its own batches.
    with EventStorage(), torch.enable_grad(), full_precision(twin.student.device):
        losses = twin(batched_inputs)
    (student,) = passes
    return losses, student


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """In eval mode, and afterwards each part in the mode that it was in."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for part, training in modes:
            part.training = training


def image_of(passes: Passes, index: int) -> Passes:
    """The passes of one image of the batch."""
    one = slice(index, index + 1)
    return dataclasses.replace(
        passes,
        student=passes.student.of_images(one),
        teacher=passes.teacher.of_images(one),
        ground_truth=None if passes.ground_truth is None else passes.ground_truth[one],
        targets=None if passes.targets is None else passes.targets.of_images(one),
        cross=None if passes.cross is None else passes.cross.of_images(one),
    )
