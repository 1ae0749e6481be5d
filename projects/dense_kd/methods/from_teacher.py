"""Several teachers: a method that learns from a teacher of its own, beside others or alone."""

from __future__ import annotations

import dataclasses
import functools

import torch
from torch import Tensor

from ..detectors.base.dense import DenseDetector
from ..options import check_counts
from ..outputs import DensePass
from ..teacher import Teacher
from .base import KDMethod, Needs, Step
from .base.class_maps import correspondence, counterparts
from .base.teachers import check_same_images, check_separate


class FromTeacher(KDMethod):
    """Runs another method with a teacher that is not that of the Distiller.

    Its losses are those of the method inside, bit for bit as in a Distiller with that teacher:
    ``MethodSet(bckd=BCKD(), other=FromTeacher(teacher=Teacher(...), method=PKD()))`` learns by BCKD
    from the teacher of the Distiller and by PKD from another one. Each of several FromTeacher
    brings a teacher along, so any number teaches. Of the Distiller's teacher it reads nothing, so
    that there need not be one (``teacher=None``).

    The teacher sees the batch of the step, in the student's autocast unless it has a precision of
    its own, and keeps its passes if it has a cache. It is in no state dict, optimizer or DDP
    bucket; parameters of the method inside are the student's companions as those of any method,
    under ``kd.<name>.method.``. ``init_student``, ``targets_from_teacher`` and pseudo-labels are of
    the Distiller's teacher.

    With ``first_iter`` and ``last_iter`` one teacher follows another, as in "Learning Lightweight
    Object Detectors via Multi-Teacher Progressive Distillation" (Cao et al., ICML 2023). Outside of
    its iterations the teacher is not run, and the losses are absent; parameters of the method
    inside have a gradient of 0 then, by ``loss_rest``, which is 0. A warm-up of the method inside
    begins at ``first_iter``.

    Memory and the split of a batch over processes are those of the method inside; its teacher's
    pass comes on top.
    """

    needs = Needs(predictions=False, features=False, network=True)
    counterparts: Tensor | None
    """As that of a Distiller, of its own teacher."""

    def __init__(
        self,
        *,
        teacher: Teacher | None = None,
        method: KDMethod | None = None,
        first_iter: int = 0,
        last_iter: int | None = None,
    ):
        """
        Args:
            teacher: the detector to learn from, which has to be given.
            method: what is learnt from it, which has to be given.
            first_iter: the first iteration of the run in which it teaches.
            last_iter: the first one in which it does not any more; None: it teaches to the end.
        """
        super().__init__()
        check_counts(at_least=0, first_iter=first_iter)
        if last_iter is not None:
            check_counts(at_least=first_iter + 1, last_iter=last_iter)
        if teacher is not None and not isinstance(teacher, Teacher):
            raise ValueError(
                f"teacher={teacher!r}: expected a Teacher, as in "
                "configs/quickstart/two_teachers.py; a FeatureTeacher is for DSI"
            )
        if method is not None and not isinstance(method, KDMethod):
            raise ValueError(
                f"method={method!r}: expected one method, as PKD(); give each of several methods a "
                "FromTeacher"
            )
        self.teacher: Teacher | None = teacher
        self.method = method
        self.first_iter = first_iter
        self.last_iter = last_iter
        if method is None:
            return
        if not method.needs.detector:
            raise ValueError(
                f"method={type(method).__name__}: it reads no detector, so a teacher would teach "
                "it nothing; give it to the MethodSet as it is"
            )
        self.warmup_iters = method.warmup_iters
        self.needs = dataclasses.replace(
            self.needs,
            student_taps=method.needs.taps_of_student,
            ground_truth=method.needs.ground_truth,
        )

    def check(self, student: DenseDetector, teacher: DenseDetector) -> None:
        """The method inside, and its own teacher as that of a Distiller."""
        own, method = self._both()
        if method.is_taken:
            raise ValueError(
                f"its {type(method).__name__} has parameters and belongs to another Distiller "
                "already; give each a method of its own"
            )
        try:
            check_separate(student, own.model)
            check_same_images(student, own.model)
            method.check(student, own.model)
        except ValueError as error:
            raise ValueError(
                f"{type(method).__name__} from its teacher {type(own.model).__name__} (weights "
                f"{own.weights}): {error}"
            ) from None

    def prepare(self, student: DenseDetector, teacher: DenseDetector) -> None:
        """Let the method inside make what depends on the student and its own teacher."""
        own, method = self._both()
        method.prepare(student, own.model)
        method.is_prepared = True
        maps = {"it": method.class_map} if method.needs.same_classes else {}
        pairs = correspondence(student, own.model, maps)
        self.register_buffer("counterparts", counterparts(pairs, student), persistent=False)

    def load(self) -> None:
        """Read the file of its teacher."""
        own, method = self._both()
        own.load()
        method.load()

    def warmup_factor(self, iteration: int) -> float:
        """That of the method inside, from ``first_iter`` on."""
        return self._both()[1].warmup_factor(max(iteration - self.first_iter, 0))

    def images_warning(self, images: int) -> str | None:
        """That of the method inside."""
        return self._both()[1].images_warning(images)

    def unlike_one_batch(self) -> str | None:
        """That of the method inside."""
        return self._both()[1].unlike_one_batch()

    def forward(self, student: DensePass, teacher: DensePass, step: Step) -> dict[str, Tensor]:
        """Those of the method inside; outside of its iterations ``loss_rest``, or none."""
        if not self.teaches(step.iteration):
            return self._rest()
        own, method = self._both()
        needs = method.needs
        theirs = step.run(own, needs.taps, predictions=needs.predictions, features=needs.features)
        assign = functools.partial(own.assign, theirs, step.ground_truth, self.counterparts)
        step = dataclasses.replace(step, resume=own.resume, assign=assign)
        return method(student, theirs, step)

    def _rest(self) -> dict[str, Tensor]:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if not trained:
            return {}
        # Processes wait for a gradient of each parameter.
        return {"loss_rest": 0 * torch.stack([p.float().sum() for p in trained]).sum()}

    def _both(self) -> tuple[Teacher, KDMethod]:
        if self.teacher is None or self.method is None:
            missing = "teacher" if self.teacher is None else "method"
            raise ValueError(
                f"it has no {missing} ({missing}=None); give a Teacher and a method, as "
                "configs/quickstart/two_teachers.py does"
            )
        return self.teacher, self.method

    def extra_repr(self) -> str:
        """Its teacher, which is no submodule, and when it teaches."""
        return f"teacher={self.teacher!r}, first_iter={self.first_iter}, last_iter={self.last_iter}"
