"""Images without labels: the student learns from what the teacher makes of them."""

from __future__ import annotations

import logging
from typing import Any

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from .data.unlabelled import UNLABELLED
from .detectors import DenseDetector
from .detectors.base.images import check_batch
from .methods import DistillationError
from .methods.base.class_maps import ClassMap, class_pairs
from .options import check_within
from .outputs import DensePass, Targets

__all__ = ["PseudoLabels", "detection_losses", "labelled_images", "without_objects"]

_PASSES_WITHOUT = 100

logger = logging.getLogger(__name__)


def labelled_images(batched_inputs: list[dict[str, Any]]) -> list[int]:
    """Indices of the images of a batch that are not :data:`UNLABELLED`.

    Raises:
        ValueError: it is no batch.
    """
    check_batch(batched_inputs)
    return [i for i, image in enumerate(batched_inputs) if not image.get(UNLABELLED, False)]


def detection_losses(
    detector: DenseDetector,
    dense: DensePass,
    assigned_by: DensePass,
    labelled: list[int],
    ground_truth: list[Instances],
) -> tuple[dict[str, Tensor], Targets]:
    """The detector's own losses of the labelled images of a batch, as if it held no others.

    Without any they are 0, with a graph, and its normalisers are those of a batch without objects.

    Args:
        detector: in training mode.
        dense: its pass over the batch.
        assigned_by: the pass that its assigner goes by.
        labelled: indices of these images.
        ground_truth: one Instances for each of them.

    Returns:
        its losses, and the targets that they are of.
    """
    if not labelled:
        return _no_losses(detector, dense.of_images([0]), assigned_by.of_images([0]))
    if len(labelled) < len(dense.image_sizes):
        dense, assigned_by = dense.of_images(labelled), assigned_by.of_images(labelled)
    targets = detector.targets(assigned_by, ground_truth)
    return dict(detector.losses(dense, targets)), targets


def _no_losses(
    detector: DenseDetector, dense: DensePass, assigned_by: DensePass
) -> tuple[dict[str, Tensor], Targets]:
    """As if there were no image: those of one without objects, times 0."""
    counts, detector.count_empty_images = detector.count_empty_images, False
    try:
        targets = detector.targets(assigned_by, [no_objects(dense, 0)])
    finally:
        detector.count_empty_images = counts
    return {name: 0 * loss for name, loss in detector.losses(dense, targets).items()}, targets


def without_objects(
    dense: DensePass, labelled: list[int], ground_truth: list[Instances], targets: Targets
) -> tuple[list[Instances], Targets]:
    """Ground truth and targets of a batch whose unlabelled images have no objects, and whose
    predictions there are ignored: for methods that read neither.

    Args:
        dense: the pass over the batch.
        labelled: indices of the labelled images.
        ground_truth, targets: of these.
    """
    known = dict(zip(labelled, ground_truth))
    number = len(dense.image_sizes)
    completed = [known[i] if i in known else no_objects(dense, i) for i in range(number)]
    labels = targets.labels.new_full((number, targets.labels.shape[1]), -1)
    boxes = targets.boxes.new_zeros(*labels.shape, 4)
    if labelled:
        labels[labelled], boxes[labelled] = targets.labels, targets.boxes
    return completed, Targets(labels, boxes, targets.num_classes, targets.normalizer)


def no_objects(dense: DensePass, image: int) -> Instances:
    """Ground truth without objects of an image of a pass."""
    boxes = dense.all_priors.new_zeros(0, 4)
    classes = boxes.new_zeros(0, dtype=torch.int64)
    return Instances(dense.image_sizes[image], gt_boxes=Boxes(boxes), gt_classes=classes)


class PseudoLabels(nn.Module):
    """What stands for ground truth where there is none: the teacher's confident detections.

    An object of an unlabelled image is a box that the teacher detects there, with its class, if it
    scores at least ``score_thresh``. Methods that read ground truth (``Needs.ground_truth``) find
    these objects in place of it, and the student's assigner, or for CrossKD between unlike anchors
    the teacher's, says which predictions are positives. Detection losses do not see them: what the
    teacher missed would be background to them.

    What methods divide by is what the student's losses are divided by, counted over all images of
    the batch: ``normalizer`` is its moving average, with the student's start and momentum.
    """

    training_buffers = ("normalizer",)

    normalizer: Tensor
    student_class: Tensor
    """(K of the teacher,): the student's class of each, -1 without a counterpart."""

    def __init__(self, *, score_thresh: float, class_map: ClassMap = None):
        """
        Args:
            score_thresh: between 0 and 1, and not below the teacher's ``test_score_thresh``.
                The teacher decides what a score means: take the one that ``dense-kd label
                --calibrate`` finds on labelled images.
            class_map: which of the teacher's classes are the student's, as for methods; objects
                of the others are left out.
        """
        super().__init__()
        check_within(score_thresh=score_thresh)
        self.score_thresh = score_thresh
        self.class_map = class_map
        self._missed = 0  # passes without such an image; -1: one has come

    def prepare(self, student: DenseDetector, teacher: DenseDetector) -> None:
        """Make what depends on both detectors; called once.

        Raises:
            DistillationError: the teacher has no such detections, or its classes do not fit.
        """
        if self.score_thresh < teacher.test_score_thresh:
            raise DistillationError(
                f"pseudo_labels.score_thresh={self.score_thresh}: the teacher gives no detections "
                f"below its test_score_thresh={teacher.test_score_thresh}; give at least that"
            )
        try:
            pairs = class_pairs(self.class_map, student, teacher)
        except ValueError as error:
            raise DistillationError(
                f"pseudo_labels: the teacher's detections are no objects of the student: {error}"
            ) from None
        classes = torch.full((teacher.num_classes,), -1)
        for ours, theirs in [(k, k) for k in range(len(classes))] if pairs is None else pairs:
            classes[theirs] = ours
        self.register_buffer("student_class", classes.to(student.device), persistent=False)
        start = student.loss_normalizer.detach().clone()
        self.register_buffer("normalizer", start, persistent=False)

    @torch.no_grad()
    def objects(self, teacher: DenseDetector, dense: DensePass, image: int) -> Instances:
        """The objects of one image, as ground truth: gt_boxes and gt_classes.

        Args:
            teacher: the detector.
            dense: its pass over the batch.
            image: index.
        """
        (found,) = teacher.inference(dense.of_images([image]))
        boxes = Boxes(found.pred_boxes.tensor.clone())
        boxes.clip(found.image_size)
        classes = self.student_class[found.pred_classes]
        kept = (found.scores >= self.score_thresh) & (classes >= 0) & boxes.nonempty()
        return Instances(found.image_size, gt_boxes=boxes[kept], gt_classes=classes[kept])

    def complete(
        self,
        teacher: DenseDetector,
        dense: DensePass,
        labelled: list[int],
        ground_truth: list[Instances],
    ) -> list[Instances]:
        """N Instances: the ground truth of the labelled images, :meth:`objects` of the others.

        Args:
            teacher, dense: see :meth:`objects`.
            labelled: indices of the labelled images.
            ground_truth: of these.
        """
        self._look_out(len(labelled) < len(dense.image_sizes))
        known = dict(zip(labelled, ground_truth))
        return [
            known[image] if image in known else self.objects(teacher, dense, image)
            for image in range(len(dense.image_sizes))
        ]

    @torch.no_grad()
    def targets(
        self, student: DenseDetector, assigned_by: DensePass, ground_truth: list[Instances]
    ) -> Targets:
        """What the student's assigner makes of labels and pseudo-labels; moves ``normalizer`` on.

        Args:
            student: the detector.
            assigned_by: the pass that its assigner goes by.
            ground_truth: N Instances, of the batch.
        """
        targets = student.targets_of_batch(assigned_by, ground_truth)
        momentum = student.loss_normalizer_momentum
        self.normalizer.mul_(momentum).add_(targets.normalizer * (1 - momentum))
        targets.normalizer = self.normalizer.clone()
        return targets

    def _look_out(self, is_there: bool) -> None:
        """For images without labels, that they are not waited for in vain."""
        if is_there or self._missed < 0:
            self._missed = -1
            return
        self._missed += 1
        if self._missed == _PASSES_WITHOUT:
            logger.warning(
                f"pseudo_labels: no image without labels has come in {_PASSES_WITHOUT} passes. Of "
                "dataloader.unlabelled they come by `dense-kd train` and "
                "tools/lazyconfig_train_net.py; detectron2's own script does not know it"
            )

    def extra_repr(self) -> str:
        """The arguments of the constructor."""
        return f"score_thresh={self.score_thresh}, class_map={self.class_map!r}"
