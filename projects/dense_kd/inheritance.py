"""Inheriting: a student that starts with the pyramid and the head of its teacher.

Kang et al., "Instance-Conditional Knowledge Distillation for Object Detection", NeurIPS 2021, call
it the inheriting strategy; FGD, MGD and PGD train with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from tabulate import tabulate
from torch import Tensor, nn

INHERITED = ("backbone.fpn_", "backbone.top_block.", "head.")
"""How the keys begin that a student inherits: of the feature pyramid and of the head."""

OF_CLASSES = ("head.cls_score.", "head.center_prior.")
"""How those of them begin that have rows for classes."""


@dataclass
class Inheritance:
    """What :func:`inherit` did with the keys of FPN and head.

    Attributes:
        copied: equal name and shape in both models.
        of_another_shape: {key: (shape in the student, shape in the teacher)}; left alone.
        of_other_classes: left alone, as their rows are of other classes in the teacher.
        only_in_student: left alone.
        only_in_teacher: not used.
        num_elements: copied numbers.
    """

    copied: list[str] = field(default_factory=list)
    of_another_shape: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(
        default_factory=dict
    )
    of_other_classes: list[str] = field(default_factory=list)
    only_in_student: list[str] = field(default_factory=list)
    only_in_teacher: list[str] = field(default_factory=list)
    num_elements: int = 0

    def report(self) -> str:
        """What was copied per module, and everything that was not, with the reason."""
        modules: dict[str, int] = {}
        for key in self.copied:
            modules[_module(key)] = modules.get(_module(key), 0) + 1
        rows = [(name, f"{count} tensors", "copied") for name, count in modules.items()]
        rows += [
            (key, f"{student} in the student, {teacher} in the teacher", "NOT copied")
            for key, (student, teacher) in self.of_another_shape.items()
        ]
        rows += [(key, "of other classes", "NOT copied") for key in self.of_other_classes]
        rows += [(key, "only in the student", "NOT copied") for key in self.only_in_student]
        rows += [(key, "only in the teacher", "NOT copied") for key in self.only_in_teacher]
        return tabulate(rows, tablefmt="plain")


def _module(key: str) -> str:
    return ".".join(key.split(".")[:2])


def inherited_state(model: nn.Module) -> dict[str, Tensor]:
    """The part of ``model.state_dict()`` that :data:`INHERITED` selects."""
    return {k: v for k, v in model.state_dict().items() if k.startswith(INHERITED)}


@torch.no_grad()
def inherit(student: nn.Module, teacher: nn.Module, *, same_classes: bool = True) -> Inheritance:
    """Copy the FPN and the head of ``teacher`` into ``student``, where name and shape agree.

    Args:
        student: is changed in place.
        teacher: with its trained weights.
        same_classes: whether the classes of both are the same in the same order; otherwise what
            has rows for them is left alone.
    """
    result = Inheritance()
    ours, theirs = inherited_state(student), inherited_state(teacher)
    for key, tensor in ours.items():
        if key not in theirs:
            result.only_in_student.append(key)
        elif tensor.shape != theirs[key].shape:
            result.of_another_shape[key] = (tuple(tensor.shape), tuple(theirs[key].shape))
        elif key.startswith(OF_CLASSES) and not same_classes:
            result.of_other_classes.append(key)
        else:
            tensor.copy_(theirs[key])
            result.copied.append(key)
            result.num_elements += tensor.numel()
    result.only_in_teacher = [key for key in theirs if key not in ours]
    return result
