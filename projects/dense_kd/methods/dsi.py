"""DSI: the deep semantic injector of "RT-DETRv4: Painlessly Furthering Real-Time Object Detection
with Vision Foundation Models" (Liao et al., arXiv 2510.25257)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..detectors.base.dense import DenseDetector
from ..detectors.base.images import check_convertible
from ..feature_teacher import FeatureTeacher
from ..options import check_counts, check_positive
from ..outputs import DensePass
from .base import KDMethod, Needs, Step
from .base.adapters import pyramid_channels
from .base.teachers import shared_parameters


class DSI(KDMethod):
    """A level of the student's pyramid imitates a network that was trained for something else.

    With s (N, C, H, W) the level of the student, W s + b a trained convolution 1x1 to the width of
    the network, and t its map, resized bilinearly to H x W,

        loss_semantic = weight * mean_{n,h,w} (1 - cos(W s + b, t))

    The network is a :class:`FeatureTeacher` that the method brings along. Of a detector that is the
    teacher it reads nothing, so that there need not be one: ``teacher=None`` of the Distiller, as
    in configs/quickstart/dsi_alone.py. The convolution is not part of the student.

    The paper has it for the deepest features of an encoder for DETR, with DINOv3 as the network,
    and lets the weight follow the gradients, as :class:`dense_kd.methods.balance.Balance` does;
    here it is a level of the pyramid (ours). We know of no AP of it for dense detectors.

    The loss is a mean over images, so the split of a batch over processes does not matter. Padding
    counts as any cell.

    In a training step the tensors of the loss take, at their peak, 0.2 times the memory of the
    pyramids of student and teacher (float32; gradients included), and the pass of the network.
    """

    needs = Needs(predictions=False, features=False, network=True)

    def __init__(
        self,
        *,
        teacher: FeatureTeacher | None = None,
        weight: float = 1.0,
        stride: int = 32,
        warmup_iters: int = 0,
    ):
        """
        Args:
            teacher: the network, which has to be given.
            weight: of the loss.
            stride: of the student's level: 32 is P5.
            warmup_iters: see :class:`KDMethod`.
        """
        super().__init__(warmup_iters=warmup_iters)
        check_positive(weight=weight)
        check_counts(at_least=1, stride=stride)
        if teacher is not None and not isinstance(teacher, FeatureTeacher):
            raise ValueError(
                f"teacher={teacher!r}: expected a FeatureTeacher, as in configs/quickstart/dsi.py"
            )
        self.teacher: FeatureTeacher | None = teacher
        self.weight = weight
        self.stride = stride

    def check(self, student: DenseDetector, teacher: DenseDetector) -> None:
        """Also its own teacher."""
        super().check(student, teacher)
        network = self._network()
        if self.stride not in student.strides:
            raise ValueError(
                f"stride={self.stride}, but the student has level strides {student.strides}; "
                "give one of these"
            )
        check_convertible(student.input_format, network.image_input.input_format)
        if shared_parameters(student, network.model):
            raise ValueError(
                "its teacher, which is frozen, has parameters of the student; give it a copy"
            )

    def prepare(self, student: DenseDetector, teacher: DenseDetector) -> None:
        """Make the convolution from the level to the width of the network."""
        super().prepare(student, teacher)
        self.level = student.strides.index(self.stride)
        self.seen_as = student.image_input
        width = self._network().channels
        self.projector = nn.Conv2d(pyramid_channels(student), width, kernel_size=1)
        self.projector.to(student.device)

    def load(self) -> None:
        """Read the file of its teacher."""
        self._network().load()

    def forward(self, student: DensePass, teacher: DensePass, step: Step) -> dict[str, Tensor]:
        """``loss_semantic``."""
        theirs = self._network().run(step.images, self.seen_as)  # (N, C', H', W')
        ours = self.projector(student.features[self.level].float())  # (N, C', H, W)
        theirs = F.interpolate(theirs, ours.shape[-2:], mode="bilinear", align_corners=False)
        loss = (1 - F.cosine_similarity(ours, theirs, dim=1)).mean()
        return {"loss_semantic": self.weight * loss}

    def _network(self) -> FeatureTeacher:
        if self.teacher is None:
            raise ValueError(
                "it has no network to learn from (teacher=None); give a FeatureTeacher, as "
                "configs/quickstart/dsi.py does"
            )
        return self.teacher
