"""The distiller: a student, its teacher and the methods between them, as one model."""

from __future__ import annotations

import copy
import functools
import logging
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from detectron2.structures import ImageList
from torch import Tensor, nn

from . import compat
from .checkpoint import METHOD_PREFIX
from .detectors import DenseDetector
from .feature_teacher import FeatureTeacher
from .inheritance import inherit, inherited_state
from .iteration import IterationCounter
from .methods import DistillationError, MethodSet, Step
from .methods.base.class_maps import Pairs, counterparts
from .methods.base.no_teacher import NO_TEACHER
from .options import check_flags
from .outputs import DensePass, Tap
from .pairs import check_not_folded, check_pair, classes_of_pair
from .teacher import Teacher
from .unlabelled import PseudoLabels, detection_losses, labelled_images, without_objects

logger = logging.getLogger(__name__)

_STUDENT = "student."
_ITERATION = METHOD_PREFIX + "iteration"
_INITIALIZED = METHOD_PREFIX + "student_initialized"


class Distiller(nn.Module):
    """In training, the student's losses and those of the methods; in eval mode, the student.

    It trains with detectron2's own scripts. Its state dict is flat: the student's keys are bare
    and parameters of methods stand under ``kd.<name>.``, so a checkpoint of a distillation run
    loads into the bare student. Parameters, buffers and modules are named so, too: a rule that
    goes by name finds in it what it finds in the student. The teacher is not in it. Attributes
    that it does not have are the student's.

    Where the losses of methods depend on the iteration (a warm-up, weights by gradient share),
    ``kd.iteration`` is saved: the one that a run goes on with, see :class:`IterationCounter`.
    """

    optional_buffers = (_ITERATION,)  # older checkpoints do not have it

    counterparts: Tensor | None
    """(K,) the teacher's class of each of the student's, 0 without one; None: they are the same."""

    def __init__(
        self,
        *,
        student: DenseDetector,
        teacher: Teacher | None,
        methods: MethodSet,
        init_student: bool = False,
        targets_from_teacher: bool = False,
        pseudo_labels: PseudoLabels | None = None,
    ):
        """
        Args:
            student: the detector to train.
            teacher: its weights are read before the first training step, not here. None: no
                detector teaches, for methods that read none (``Needs.detector``), such as
                :class:`.DSI` with its network, and :class:`.FromTeacher`, which brings a teacher
                of its own along.
            methods: at least one; each is checked against both detectors here.
            init_student: before the first training step, and after ``train.init_checkpoint`` is
                loaded, copy the teacher's FPN and head into the student where names and shapes
                agree ("inheriting"), and log what was copied and what not; of a file that has FPN
                and head, it keeps the backbone alone, and warns of it. Predictions of classes
                are left alone unless both have the same classes in the same order. Deep copies that
                were made before (an average of weights) inherit with the first of them. Checkpoints
                remember it, in ``kd.student_initialized``, so that a resumed run does not do it
                again.
            targets_from_teacher: the student's assigner goes by the teacher's predictions instead
                of the student's, as in PGD's released DDOD; for a student whose assigner goes by
                predictions, and a teacher with the same anchors and classes.
            pseudo_labels: what methods that read ground truth find in images without labels, which
                ``dataloader.unlabelled`` gives; without it, only methods that read none learn from
                these. Detection losses never do.

        Raises:
            DistillationError: a method cannot distil this teacher into this student, the teacher
                is the student or cannot see its images, or the student can inherit nothing from
                it, or cannot have its targets or pseudo-labels from it; two of these, or of the
                methods, differ in which classes correspond; or there is no teacher, and a method
                or an option asks for one.
        """
        super().__init__()
        check_flags(init_student=init_student, targets_from_teacher=targets_from_teacher)
        for name, value, kind in (
            ("student", student, DenseDetector),
            ("teacher", teacher, Teacher),
            ("methods", methods, MethodSet),
        ):
            if not isinstance(value, kind) and not (name == "teacher" and value is None):
                brought = isinstance(value, FeatureTeacher)
                raise TypeError(
                    f"{name} is a {type(value).__module__}.{type(value).__name__}, expected a "
                    f"dense_kd {kind.__name__}; see configs/quickstart/"
                    f"{'dsi_alone' if brought else 'distill'}.py for an example"
                )
        check_pair(
            student,
            teacher,
            methods,
            init_student=init_student,
            targets_from_teacher=targets_from_teacher,
            pseudo_labels=pseudo_labels,
        )
        pairs: Pairs = None
        if teacher is None:
            methods.prepare(student, None, None)
        else:
            methods.prepare(student, teacher.model, teacher.weights)
            if pseudo_labels is not None:
                pseudo_labels.prepare(student, teacher.model)
            pairs = classes_of_pair(
                student,
                teacher.model,
                methods,
                init_student=init_student,
                targets_from_teacher=targets_from_teacher,
                pseudo_labels=pseudo_labels,
            )
        self.register_buffer("counterparts", counterparts(pairs, student), persistent=False)
        self.student = student
        self.teacher = teacher
        self.kd = methods
        self.init_student = init_student
        self.targets_from_teacher = targets_from_teacher
        self._prepared = False
        self._loaded_whole = False
        self._counter = IterationCounter()
        self._copies: weakref.WeakSet[Distiller] = weakref.WeakSet([self])
        if init_student:
            methods.register_buffer("student_initialized", torch.tensor(False))
        self.pseudo_labels = pseudo_labels
        self.register_load_state_dict_post_hook(_report_flat_keys)
        self.register_load_state_dict_post_hook(_note_what_was_given)  # by the flat keys

    def load_teacher(self) -> None:
        """Read the teacher's weights now, and what methods read; otherwise
        :meth:`prepare_training` does."""
        if self.teacher is not None:
            self.teacher.load()
        self.kd.load()

    def what_is_lost(self) -> list[str]:
        """What a training that goes on from a checkpoint does not have of the one before."""
        lost: list[str] = []
        teachers = self.teachers.values()
        if any(each.cache is not None and each.cache.by == "image" for each in teachers):
            lost.append(
                "the teacher's cache has maps of other batches than it would have, which differ in "
                "rounding"
            )
        if any(each.compile for each in teachers):
            lost.append("the teacher is compiled for the sizes that come first in a process")
        return lost

    @property
    def teachers(self) -> dict[str, Teacher]:
        """{place: teacher} of all detectors that teach: "teacher", if there is one, and those that
        methods bring along, "methods.<name>.teacher", as they are called in a config."""
        brought = {f"methods.{n}.teacher": method.teacher for n, method in self.kd.named_methods()}
        found = {"teacher": self.teacher, **brought}
        return {place: each for place, each in found.items() if isinstance(each, Teacher)}

    @property
    def prepared(self) -> bool:
        """Whether :meth:`prepare_training` was called."""
        return self._prepared

    def prepare_training(self) -> None:
        """Read the teacher's weights, and let the student inherit them if it has not.

        The first training step does this, if nobody did before it. The student's own weights
        (``train.init_checkpoint``) must be loaded by then.

        Raises:
            CheckpointError: see :meth:`Teacher.load`.
            DistillationError: the student is to inherit weights that are folded into others.
        """
        self._prepared = True
        self.load_teacher()
        teacher = self.teacher
        if teacher is None:
            return
        if teacher.weights is None:
            logger.info("The teacher is used as it was given: weights=None, so no file is read")
        if not self.init_student:
            return
        if self.kd.student_initialized:
            logger.info("The student has inherited FPN and head before; they are left as loaded")
            return
        check_not_folded(teacher)
        if self._loaded_whole:
            logger.warning(
                "init_student=True: of the weights that the student was given, those of FPN and "
                "head are replaced by the teacher's. To go on from them, give init_student=False"
            )
        for model in self._copies:
            if model.kd.student_initialized:
                continue
            same_classes = self.counterparts is None
            result = inherit(model.student, teacher.model, same_classes=same_classes)
            model.kd.student_initialized.fill_(True)
            if model is self:
                logger.info(
                    f"The student inherits {len(result.copied)} tensors ({result.num_elements:,} "
                    f"numbers) of FPN and head from the teacher:\n{result.report()}"
                )

    def to_look_at(self) -> Distiller:
        """A deep copy whose passes of training show this model as it is: nothing inherits by them,
        neither the copy nor another model.

        Raises:
            CheckpointError: see :meth:`Teacher.load`.
        """
        self.load_teacher()
        twin = copy.deepcopy(self)
        twin._copies.discard(twin)
        twin._copies = weakref.WeakSet([twin])
        twin._prepared = True
        return twin

    def forward(
        self, batched_inputs: list[dict[str, Any]]
    ) -> dict[str, Tensor] | list[dict[str, Any]]:
        """As :meth:`DenseDetector.forward`; in training with the ``kd_<name>_<term>`` losses."""
        if not self.training:
            return self.student(batched_inputs)
        if not self._prepared:
            self.prepare_training()
        labelled = labelled_images(batched_inputs)
        of_labelled = [batched_inputs[index] for index in labelled]
        ground_truth = self.student.ground_truth(of_labelled) if labelled else []
        if len(labelled) < len(batched_inputs):
            self.check_unlabelled()
        images = self.student.preprocess_image(batched_inputs)
        teacher, autocast = self.teacher, compat.active_autocast(images.tensor.device.type)
        run = functools.partial(self._run, batched_inputs, images, autocast)
        theirs = None
        if teacher is not None:
            looked_at = self.targets_from_teacher or self.pseudo_labels is not None
            theirs = run(
                teacher,
                self.kd.taps,
                predictions=self.kd.reads_predictions or looked_at,
                features=self.kd.reads_features,
            )
        student = self.student.run(images, self.kd.taps_of_student)
        assigned_by = theirs if theirs is not None and self.targets_from_teacher else student
        losses, targets = detection_losses(
            self.student, student, assigned_by, labelled, ground_truth
        )
        if self.pseudo_labels is not None and teacher is not None and theirs is not None:
            ground_truth = self.pseudo_labels.complete(
                teacher.model, theirs, labelled, ground_truth
            )
            targets = self.pseudo_labels.targets(self.student, assigned_by, ground_truth)
        elif len(labelled) < len(batched_inputs):
            ground_truth, targets = without_objects(student, labelled, ground_truth, targets)
        resume = assign = NO_TEACHER
        if teacher is not None and theirs is not None:
            resume = teacher.resume
            assign = functools.partial(teacher.assign, theirs, ground_truth, self.counterparts)
        step = Step(
            targets=targets,
            ground_truth=ground_truth,
            iteration=self._counter.advance(self.parameters()),
            resume=resume,
            assign=assign,
            images=images.tensor,
            detection=dict(losses),
            labelled=labelled,
            run=run,
        )
        losses.update(self.kd(student, theirs, step))
        if 0 in labelled:
            self.student.visualize_training(batched_inputs, student)
        return losses

    def _run(
        self,
        batched_inputs: list[dict[str, Any]],
        images: ImageList,
        autocast: torch.dtype | None,
        teacher: Teacher,
        taps: Iterable[Tap] = (),
        **read: bool,
    ) -> DensePass:
        """A teacher's pass over a batch of training, as far as somebody reads it."""
        with compat.autocast_to(images.tensor.device, autocast):
            return teacher.run(batched_inputs, images, self.student, taps, **read, cached=True)

    def check_unlabelled(self) -> None:
        """Raise DistillationError unless all methods can learn from images without labels."""
        readers = self.kd.reads_ground_truth
        if readers and self.pseudo_labels is None:
            raise DistillationError(
                f"there are images without labels, and the methods {readers} read ground truth. "
                "Let the detections of a teacher stand for it, with "
                "pseudo_labels=L(PseudoLabels)(score_thresh=0.4) in the Distiller, or take methods "
                "that read none, such as PKD, MGD and FKD"
            )

    def state_dict(  # type: ignore[override]  # torch has an overload for positions
        self, *, destination: Any = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Tensor]:
        """The student's, and under ``kd.`` the methods' and the iteration that they depend on."""
        state = self.student.state_dict(destination=destination, prefix=prefix, keep_vars=keep_vars)
        self.kd.state_dict(destination=state, prefix=prefix + METHOD_PREFIX, keep_vars=keep_vars)
        if self.kd.depends_on_iteration:
            iteration = self._counter.following(self.parameters())
            state[prefix + _ITERATION] = torch.tensor(iteration)
        return state

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """As of any module, but the student has no name: its modules are called as they are in it.

        Parameters and buffers are called after their modules, so these names are also theirs.
        """
        memo = set() if memo is None else memo
        if remove_duplicate and self in memo:
            return
        memo.add(self)
        yield prefix, self
        for name, module in self.named_children():
            path = prefix if module is self.student else f"{prefix}.{name}".lstrip(".")
            yield from module.named_modules(memo, path, remove_duplicate)

    def get_buffer(self, target: str) -> Tensor:
        """By a name that ``named_buffers`` gives."""
        # Torch finds modules of the student by __getattr__, but no buffers that are in none.
        is_own = "." in target or target in self._buffers
        return super().get_buffer(target) if is_own else self.student.get_buffer(target)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        self._loaded_prefix = prefix
        # Absent where no loss depended on it, and in older checkpoints.
        if prefix + _ITERATION in state_dict:
            self._counter.restart(int(state_dict.pop(prefix + _ITERATION)))
        # Weights to start from (train.init_checkpoint) take the place of what a copy inherited.
        if self.init_student and not self._prepared and prefix + _INITIALIZED not in state_dict:
            self.kd.student_initialized.fill_(False)
        # Torch asks this before it goes on to the children, whose prefixes it then looks for.
        for key in [k for k in state_dict if k.startswith(prefix)]:
            bare = key[len(prefix) :]
            if not bare.startswith(METHOD_PREFIX):
                state_dict[prefix + _STUDENT + bare] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Distiller:
        twin = memo[id(self)] = self.__new__(type(self))
        copies = {"_copies": self._copies}
        own = {name: value for name, value in self.__dict__.items() if name not in copies}
        twin.__dict__.update(copy.deepcopy(own, memo), **copies)
        twin._copies.add(twin)
        return twin

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_copies"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._copies = weakref.WeakSet([self])

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "student":  # not yet set: do not look for it in itself
                raise
            return getattr(self.student, name)

    def extra_repr(self) -> str:
        """The teacher, which is no submodule."""
        return f"(teacher): {self.teacher!r}"


def _report_flat_keys(model: Distiller, incompatible: Any) -> None:
    prefix = model._loaded_prefix
    for keys in incompatible:
        keys[:] = [
            prefix + key[len(prefix + _STUDENT) :] if key.startswith(prefix + _STUDENT) else key
            for key in keys
        ]


def _note_what_was_given(model: Distiller, incompatible: Any) -> None:
    lacking = incompatible.missing_keys
    own = (model._loaded_prefix + key for key in inherited_state(model.student))
    model._loaded_whole = not any(key in lacking for key in own)
