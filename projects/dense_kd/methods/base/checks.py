"""Whether the predictions of two detectors correspond, for methods that compare them."""

from __future__ import annotations

import torch
from torch import Tensor

from ...detectors.base.dense import DenseDetector
from ...lengths import zip_equal


def check_same_priors(student: DenseDetector, teacher: DenseDetector) -> None:
    """Raise ValueError, saying where they differ, unless both predict from the same anchors."""
    found = (
        ("level strides", student.strides, teacher.strides),
        ("anchors per location", student.num_anchors, teacher.num_anchors),
    )
    for what, of_student, of_teacher in found:
        if of_student != of_teacher:
            raise ValueError(
                "it compares predictions one to one, but the student has "
                f"{what} {of_student} and the teacher {of_teacher}"
            )
    for level, (a, b) in enumerate(zip_equal(student=_priors(student), teacher=_priors(teacher))):
        if a.shape != b.shape or not torch.allclose(a, b, atol=1e-3):
            raise ValueError(
                "it compares predictions one to one, but the anchors differ: at the first cell "
                f"of level {level} the student has {_first(a, student)} and the teacher "
                f"{_first(b, teacher)}"
            )


def check_same_distances(student: DenseDetector, teacher: DenseDetector) -> None:
    """Raise ValueError unless the bins of both stand for equal distances."""
    if student.head.reg_max != teacher.head.reg_max:
        raise ValueError(
            "it compares distributions bin by bin, but the student has "
            f"reg_max={student.head.reg_max} and the teacher {teacher.head.reg_max}"
        )
    if not same_code(student, teacher, torch.tensor([[0.5, 1.0, 1.5, 2.0]])):
        raise ValueError(
            "it compares distributions bin by bin, but a bin of the student is not the distance "
            "of one of the teacher; give both an equal box2box_transform"
        )


def same_code(student: DenseDetector, teacher: DenseDetector, codes: Tensor) -> bool:
    """Whether both decode ``codes`` (P, 4) to equal boxes, at an anchor that is not square."""
    anchor = torch.tensor([[8.0, 16.0, 40.0, 112.0]]).expand_as(codes)
    return torch.allclose(student.decode(codes, anchor), teacher.decode(codes, anchor))


def _priors(detector: DenseDetector) -> list[Tensor]:
    maps = [torch.zeros(1, 1, 2, 3, device=detector.device) for _ in detector.strides]
    return [anchors.tensor.cpu() for anchors in detector.anchor_generator(maps)]


def _first(priors: Tensor, detector: DenseDetector) -> list[list[float]]:
    return priors[: detector.num_anchors].round(decimals=1).tolist()
