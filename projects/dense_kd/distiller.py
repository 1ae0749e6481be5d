"""The distiller: a student, its teacher and the methods between them, as one model."""

from __future__ import annotations

import functools
import logging
from typing import Any

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor, nn

from . import compat
from .checkpoint import METHOD_PREFIX
from .detectors import FCOS, DenseDetector, RetinaNet
from .inheritance import inherit, inherited_state
from .methods import DistillationError, MethodSet, Step
from .methods.base import check_same_priors
from .methods.options import check_flags
from .teacher import Teacher

logger = logging.getLogger(__name__)

_STUDENT = "student."


class Distiller(nn.Module):
    """In training, the student's losses and those of the methods; in eval mode, the student.

    It trains with detectron2's own scripts. Its state dict is flat: the student's keys are bare
    and parameters of methods stand under ``kd.<name>.``, so a checkpoint of a distillation run
    loads into the bare student. The teacher is not in it. Attributes that it does not have are
    the student's.
    """

    def __init__(
        self,
        *,
        student: DenseDetector,
        teacher: Teacher,
        methods: MethodSet,
        init_student: bool = False,
        targets_from_teacher: bool = False,
    ):
        """
        Args:
            student: the detector to train.
            teacher: its weights are read before the first training step, not here.
            methods: at least one; each is checked against both detectors here.
            init_student: before the first training step, and after ``train.init_checkpoint`` is
                loaded, copy the teacher's FPN and head into the student where names and shapes
                agree ("inheriting"), and log what was copied and what not. Checkpoints remember
                it, in ``kd.student_initialized``, so that a resumed run does not do it again.
            targets_from_teacher: the student's assigner goes by the teacher's predictions instead
                of the student's, as in PGD's released DDOD; for a student whose assigner goes by
                predictions, and a teacher with the same anchors and classes.

        Raises:
            DistillationError: a method cannot distil this teacher into this student, the student
                can inherit nothing from it, or cannot have its targets from it.
        """
        super().__init__()
        check_flags(init_student=init_student, targets_from_teacher=targets_from_teacher)
        for name, value, kind in (
            ("student", student, DenseDetector),
            ("teacher", teacher, Teacher),
            ("methods", methods, MethodSet),
        ):
            if not isinstance(value, kind):
                raise TypeError(
                    f"{name} is a {type(value).__module__}.{type(value).__name__}, expected a "
                    f"dense_kd {kind.__name__}; see configs/quickstart/distill.py for an example"
                )
        methods.prepare(student, teacher.model, teacher.weights)
        self.student = student
        self.teacher = teacher
        self.kd = methods
        self.init_student = init_student
        self.targets_from_teacher = targets_from_teacher
        self._prepared = False
        if init_student:
            _check_inheritable(student, teacher)
            methods.register_buffer("student_initialized", torch.tensor(False))
        if targets_from_teacher:
            _check_targets_from_teacher(student, teacher.model)
        self.register_load_state_dict_post_hook(_report_flat_keys)

    def load_teacher(self) -> None:
        """Read the teacher's weights now; otherwise :meth:`prepare_training` does."""
        self.teacher.load()

    def prepare_training(self) -> None:
        """Read the teacher's weights, and let the student inherit them if it has not.

        The first training step does this, if nobody did before it. The student's own weights
        (``train.init_checkpoint``) must be loaded by then.
        """
        self._prepared = True
        self.teacher.load()
        if not self.init_student:
            return
        if self.kd.student_initialized:
            logger.info("The student has inherited FPN and head before; they are left as loaded")
            return
        result = inherit(self.student, self.teacher.model)
        self.kd.student_initialized.fill_(True)
        logger.info(
            f"The student inherits {len(result.copied)} tensors ({result.num_elements:,} numbers) "
            f"of FPN and head from the teacher:\n{result.report()}"
        )

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """As :meth:`DenseDetector.forward`; in training with the ``kd_<name>_<term>`` losses."""
        if not self.training:
            return self.student(batched_inputs)
        if not self._prepared:
            self.prepare_training()
        ground_truth = self.student.ground_truth(batched_inputs)
        images = self.student.preprocess_image(batched_inputs)
        teacher = self.teacher.run(batched_inputs, images, self.student, self.kd.taps)
        student = self.student.run(images, self.kd.taps)
        assigned_by = teacher if self.targets_from_teacher else student
        targets = self.student.targets(assigned_by, ground_truth)
        losses = dict(self.student.losses(student, targets))
        storage = compat.event_storage()
        step = Step(
            targets=targets,
            ground_truth=ground_truth,
            iteration=0 if storage is None else storage.iter,
            resume=self.teacher.resume,
            assign=functools.partial(
                self.teacher.assign, teacher, ground_truth, self.student.num_classes
            ),
        )
        losses.update(self.kd(student, teacher, step))
        self.student.visualize_training(batched_inputs, student)
        return losses

    def state_dict(
        self, *, destination: dict | None = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Tensor]:
        state = self.student.state_dict(destination=destination, prefix=prefix, keep_vars=keep_vars)
        self.kd.state_dict(destination=state, prefix=prefix + METHOD_PREFIX, keep_vars=keep_vars)
        return state

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # Torch asks this before it goes on to the children, whose prefixes it then looks for.
        for key in [k for k in state_dict if k.startswith(prefix)]:
            bare = key[len(prefix) :]
            if not bare.startswith(METHOD_PREFIX):
                state_dict[prefix + _STUDENT + bare] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "student":  # not yet set: do not look for it in itself
                raise
            return getattr(self.student, name)

    def extra_repr(self) -> str:
        return f"(teacher): {self.teacher!r}"


def _check_inheritable(student: DenseDetector, teacher: Teacher) -> None:
    ours, theirs = inherited_state(student), inherited_state(teacher.model)
    shapes = {key: value.shape for key, value in ours.items() if value.dim() > 1}
    if not any(key in theirs and theirs[key].shape == shapes[key] for key in shapes):
        raise DistillationError(
            f"init_student=True, but no convolution in the FPN or head of the student "
            f"{type(student).__name__} has the name and shape of one of the teacher "
            f"{type(teacher.model).__name__}; build both with the same width and kind of head, or "
            "leave init_student out"
        )


def _check_targets_from_teacher(student: DenseDetector, teacher: DenseDetector) -> None:
    if not student.assigns_by_predictions:
        raise DistillationError(
            f"targets_from_teacher=True, but the assigner of the student {type(student).__name__} "
            "does not go by predictions, so the targets would be the same; leave it out"
        )
    if (student.num_classes, student.class_names) != (teacher.num_classes, teacher.class_names):
        raise DistillationError(
            "targets_from_teacher=True needs equal classes, but the student has "
            f"num_classes={student.num_classes} and class_names={student.class_names}, and the "
            f"teacher {teacher.num_classes} and {teacher.class_names}"
        )
    try:
        check_same_priors(student, teacher)
    except ValueError as error:
        raise DistillationError(f"targets_from_teacher=True: {error}") from None


def _report_flat_keys(module: nn.Module, incompatible: Any) -> None:
    for keys in incompatible:
        keys[:] = [k.replace(_STUDENT, "", 1) for k in keys]


class _ConfigurableDistiller(Distiller):
    """A Distiller that is built from a yacs config with ``add_dense_kd_config``'s keys."""

    student_class: type[DenseDetector]

    @configurable
    def __init__(self, **parts: Any):
        super().__init__(**parts)

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        from .yacs_config import build_parts

        parts = build_parts(cfg)
        return {"student": cls.student_class(**cls.student_class.from_config(cfg)), **parts}


@META_ARCH_REGISTRY.register()
class DistillRetinaNet(_ConfigurableDistiller):
    """``MODEL.META_ARCHITECTURE: DistillRetinaNet``; the student is described by the same keys as
    detectron2's RetinaNet."""

    student_class = RetinaNet


@META_ARCH_REGISTRY.register()
class DistillFCOS(_ConfigurableDistiller):
    """``MODEL.META_ARCHITECTURE: DistillFCOS``; the student is described by ``MODEL.FCOS``."""

    student_class = FCOS
