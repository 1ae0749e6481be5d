"""What a distillation method is."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from detectron2.structures import Instances
from torch import Tensor, nn

from ...detectors.base.dense import DenseDetector
from ...errors import DenseKDError
from ...lengths import zip_equal
from ...options import check_counts
from ...outputs import DensePass, Tap, Targets
from .checks import check_same_distances, check_same_priors
from .class_maps import ClassMap, class_pairs
from .no_teacher import NO_TEACHER

if TYPE_CHECKING:
    from ...feature_teacher import FeatureTeacher
    from ...teacher import Teacher

_MANY_IMAGES = 1_000_000

RunTeacher = Callable[..., DensePass]
"""``run(teacher, taps, predictions=..., features=...)``, see ``Step.run``."""


class DistillationError(DenseKDError, ValueError):
    """A combination of student, teacher and methods that cannot work."""


@dataclass
class Step:
    """What a method may use of a training step, besides the two passes.

    Attributes:
        targets: what the student's assigner made of the ground truth.
        ground_truth: N Instances with gt_boxes and gt_classes.
        iteration: of the run, from 0, see :class:`dense_kd.iteration.IterationCounter`.
        resume: runs the rest of the teacher's frozen head on (taps, depth), see
            ``Teacher.resume``; gradients reach the taps and not the teacher. It raises LookupError
            where no detector teaches, as ``assign`` does.
        assign: what the teacher's assigner makes of the ground truth, see ``Teacher.assign``.
        images: (N, C, H, W), the batch as the student's backbone gets it: normalised and padded.
        detection: {name: scalar}, the student's own losses, with their graph.
        labelled: indices of the images whose ground truth people have made; that of the others is
            what :class:`dense_kd.PseudoLabels` made of the teacher's detections, if anything. None
            is all.
        run: gives the pass of another :class:`dense_kd.Teacher` over the batch, as the Distiller
            runs its own: in the autocast of the step, with its cache; the arguments after the
            teacher are those of ``Teacher.run`` from ``taps`` on.
    """

    targets: Targets
    ground_truth: list[Instances]
    iteration: int
    resume: Callable[..., DensePass]
    assign: Callable[[], Targets]
    images: Tensor
    detection: Mapping[str, Tensor] = field(default_factory=dict)
    labelled: list[int] | None = None
    run: RunTeacher = NO_TEACHER


@dataclass(frozen=True)
class Needs:
    """What a method asks of student and teacher; checked once, when the Distiller is built.

    Attributes:
        taps: tower features that it reads from both passes.
        same_priors: predictions correspond one to one: equal strides, anchors per location and
            anchors.
        as_many_levels: it works level by level, whatever the strides.
        same_levels: it works level by level: equal strides.
        same_classes: it compares class scores; ``class_map`` says which correspond.
        several_classes: it compares softmaxes over the classes that correspond; over one class
            that is 1 whatever the logits, and the loss exactly 0.
        distribution: both predict distributions over distances.
        ground_truth: it reads the objects of an image, or what an assigner made of them; in an
            image without labels, what :class:`dense_kd.PseudoLabels` gives in their place.
        predictions: it reads predictions of the teacher. Where no method does, they are not made:
            the teacher's head is run as far as the taps, and without any not at all.
        features: it reads the teacher's features, beyond their sizes (``DensePass.map_sizes``).
            Where no method does, the teacher's cache does not keep them.
        network: it learns from a network that it brings along, ``KDMethod.teacher``.
        student_taps: tower features that it reads from the student's pass alone.
    """

    taps: tuple[Tap, ...] = ()
    same_priors: bool = False
    as_many_levels: bool = False
    same_levels: bool = False
    same_classes: bool = False
    several_classes: bool = False
    distribution: bool = False
    ground_truth: bool = False
    predictions: bool = True
    features: bool = True
    network: bool = False
    student_taps: tuple[Tap, ...] = ()

    @property
    def detector(self) -> bool:
        """Whether it reads anything of the detector that is the teacher; where no method does,
        there need not be one: ``Distiller(teacher=None)``."""
        compared = (
            self.same_priors, self.as_many_levels, self.same_levels, self.same_classes,
            self.several_classes, self.distribution,
        )  # fmt: skip
        return bool(self.taps) or self.predictions or self.features or any(compared)

    @property
    def taps_of_student(self) -> tuple[Tap, ...]:
        """All tower features that it reads from the student's pass, each once."""
        return tuple(dict.fromkeys((*self.taps, *self.student_taps)))


class KDMethod(nn.Module, ABC):
    """A distillation loss. Parameters of its own are trained, saved under ``kd.<name>.`` in the
    checkpoints of the run, and absent from the student.

    A method that reads nothing of a detector as teacher (``Needs.detector``) also works where
    there is none. Where its methods say "teacher", it is given something then of which nothing can
    be read: every attribute raises LookupError.

    The memory that the methods state was measured with torch 2.12; the operators of old versions
    keep more of what they compute, with 2.1 up to twice as much.
    """

    needs: Needs = Needs()
    class_map: ClassMap = None
    """Which classes correspond, for methods whose ``needs`` have ``same_classes``."""
    teacher: Teacher | FeatureTeacher | None = None
    """What it brings along to learn from, if ``Needs.network``."""
    first_iter: int = 0
    last_iter: int | None = None
    """It teaches in the iterations from the first on and before the last; None is to the end."""
    is_prepared = False
    """Whether it is part of a Distiller."""
    student_classes: Tensor
    teacher_classes: Tensor

    def __init__(self, *, warmup_iters: int = 0):
        """
        Args:
            warmup_iters: iterations over which the losses rise linearly to their weights; 0 is
                none.
        """
        super().__init__()
        check_counts(at_least=0, warmup_iters=warmup_iters)
        self.warmup_iters = warmup_iters

    def warmup_factor(self, iteration: int) -> float:
        """What the losses are multiplied with: (iteration + 1) / warmup_iters, at most 1."""
        return min(1.0, (iteration + 1) / max(self.warmup_iters, 1))

    def teaches(self, iteration: int) -> bool:
        """Whether the student learns from it in an iteration of the run."""
        last = self.last_iter
        return self.first_iter <= iteration and (last is None or iteration < last)

    @property
    def is_taken(self) -> bool:
        """Whether parameters of it were made for a Distiller, so that no other can have it."""
        return self.is_prepared and any(True for _ in self.parameters())

    @property
    def depends_on_iteration(self) -> bool:
        """Whether its losses do."""
        return self.warmup_iters > 0 or self.first_iter > 0 or self.last_iter is not None

    def check(self, student: DenseDetector, teacher: DenseDetector) -> None:
        """Raise ValueError, saying why, if the method cannot distil between the two.

        Args:
            student, teacher: detectors; of the teacher only the structure is looked at, its
                weights may not be loaded yet, and nothing unless ``Needs.detector``.
        """
        for tap in self.needs.taps_of_student:
            student.head.check_tap(tap)
        for tap in self.needs.taps:
            teacher.head.check_tap(tap)
        if self.needs.same_classes:
            pairs = class_pairs(self.class_map, student, teacher)
            num_compared = student.num_classes if pairs is None else len(pairs)
            if self.needs.several_classes and num_compared == 1:
                raise ValueError(
                    "it compares softmaxes over classes, and there is one class to compare: that "
                    "is 1 whatever the logits, so the loss is exactly 0; leave its class term out "
                    "(cls_weight=0), or take a method that asks each class by itself, such as BCKD"
                )
        if self.needs.as_many_levels and len(student.strides) != len(teacher.strides):
            raise ValueError(
                "it works level by level, but the student has level strides "
                f"{student.strides} and the teacher {teacher.strides}; their number must be equal"
            )
        if self.needs.same_levels and student.strides != teacher.strides:
            raise ValueError(
                "it works level by level, but the student has level strides "
                f"{student.strides} and the teacher {teacher.strides}"
            )
        if self.needs.same_priors:
            check_same_priors(student, teacher)
        if self.needs.distribution:
            for role, detector in (("student", student), ("teacher", teacher)):
                if not detector.predicts_distribution:
                    raise ValueError(
                        "it compares distributions over box distances, and the "
                        f"{role}'s {type(detector).__name__} predicts none; give its head a "
                        "reg_max"
                    )
            check_same_distances(student, teacher)

    def prepare(self, student: DenseDetector, teacher: DenseDetector) -> None:
        """Make what depends on both detectors, such as adapters; called once, after :meth:`check`
        and before an optimizer exists."""
        pairs = class_pairs(self.class_map, student, teacher) if self.needs.same_classes else None
        if pairs is not None:
            ours, theirs = torch.tensor(pairs, device=student.device).unbind(dim=1)
            self.register_buffer("student_classes", ours, persistent=False)
            self.register_buffer("teacher_classes", theirs, persistent=False)

    def load(self) -> None:
        """Read files of its own; called before the first training step."""

    def comparable_logits(self, student: DensePass, teacher: DensePass) -> tuple[Tensor, Tensor]:
        """Class logits of both, each (N, R, K'), of the K' classes that correspond."""
        return self._common_classes(student.all_logits, teacher.all_logits)

    def comparable_levels(
        self, student: DensePass, teacher: DensePass
    ) -> tuple[list[Tensor], list[Tensor]]:
        """As :meth:`comparable_logits`, each L x (N, Hl*Wl*A, K'), to look at one level after
        the other, which takes less memory."""
        levels = [
            self._common_classes(ours, theirs)
            for ours, theirs in zip_equal(student=student.logits, teacher=teacher.logits)
        ]
        return [ours for ours, _ in levels], [theirs for _, theirs in levels]

    def _common_classes(self, ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
        if getattr(self, "student_classes", None) is None:
            return ours, theirs
        return ours[..., self.student_classes], theirs[..., self.teacher_classes]

    def images_warning(self, images: int) -> str | None:
        """What to say, once in a run, about ``images`` images per process: of a method whose losses
        grow with their number, when its weights are for another one."""
        return None

    def unlike_one_batch(self) -> str | None:
        """Why the losses of several batches are not those of one with all of their images, whatever
        counts they are divided by; None where they are."""
        if self.images_warning(_MANY_IMAGES) is None:
            return None
        return "its losses grow with the number of images of a batch"

    def extra_repr(self) -> str:
        """The arguments of the constructor, as far as they are attributes."""
        options = inspect.signature(type(self)).parameters
        return ", ".join(f"{n}={getattr(self, n)!r}" for n in options if hasattr(self, n))

    @abstractmethod
    def forward(self, student: DensePass, teacher: DensePass, step: Step) -> dict[str, Tensor]:
        """{term: scalar}, weighted, in float32, each with a graph even when it is empty.

        A warm-up is not part of it; the MethodSet multiplies the terms with that.

        Terms are named ``loss_*``: detectron2 prints the losses that have "loss" in their name.
        """


def teach_fully(methods: nn.Module) -> None:
    """Let methods have their full weights in every iteration, to look at them or at their cost.

    Args:
        methods: a MethodSet; it stays so.
    """
    for method in methods.modules():
        if isinstance(method, KDMethod):
            method.warmup_iters, method.first_iter, method.last_iter = 0, 0, None
