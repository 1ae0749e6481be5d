"""What a detector that teaches has to be to the student, whatever the method."""

from __future__ import annotations

from torch import nn

from ...detectors.base.dense import DenseDetector
from ...detectors.base.images import check_convertible, padding
from .kd_method import DistillationError


def check_separate(student: DenseDetector, teacher: DenseDetector) -> None:
    """Raise DistillationError if the teacher, which is frozen, is the student or shares a part."""
    shared = shared_parameters(student, teacher)
    if shared:
        raise DistillationError(
            f"student and teacher are the same or share {len(shared)} parameters, such as "
            f"{shared[0]!r}, and Teacher() has frozen them. Build the student anew, or give the "
            "teacher a copy: Teacher(copy.deepcopy(student), None)"
        )


def shared_parameters(student: nn.Module, network: nn.Module) -> list[str]:
    """The names of the student's that another network has, too."""
    theirs = {_memory(parameter) for parameter in network.parameters()}
    return [name for name, p in student.named_parameters() if _memory(p) in theirs]


def _memory(parameter: nn.Parameter) -> int:
    return parameter.data_ptr() or id(parameter)  # without any on the device "meta"


def check_same_images(student: DenseDetector, teacher: DenseDetector) -> None:
    """Raise DistillationError unless the teacher can see every batch of the student as it is used
    to, at the same place of an equally large input."""
    try:
        check_convertible(student.input_format, teacher.input_format)
    except ValueError as error:
        raise DistillationError(f"the teacher cannot see the student's images: {error}") from None
    ours, theirs = padding(student.backbone), padding(teacher.backbone)
    if ours != theirs:
        raise DistillationError(
            f"the student's backbone pads a batch to multiples of {ours[0]} and a square of "
            f"{ours[1]} (0: none), the teacher's to {theirs[0]} and {theirs[1]}, so that their "
            "maps have unlike sizes; give both backbones equal size_divisibility and "
            "padding_constraints"
        )
