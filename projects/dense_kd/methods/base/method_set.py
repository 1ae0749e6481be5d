"""Several methods in one run."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ...compat import full_precision
from ...detectors.base.dense import DenseDetector
from ...outputs import DensePass, Tap
from ..balance import Balance, as_balance
from .kd_method import DistillationError, KDMethod, RunTeacher, Step
from .no_teacher import NO_TEACHER
from .teacher_watch import TeacherWatch

if TYPE_CHECKING:
    from ...teacher import Teacher

logger = logging.getLogger(__name__)


class MethodSet(nn.Module):
    """Methods by name; their losses are added up.

    ``MethodSet(bckd=BCKD(), pkd=PKD())`` gives the losses ``kd_bckd_<term>``, ``kd_pkd_<term>``.

    Attributes:
        balance: what sets their weights, or None.
    """

    student_initialized: Tensor
    """() bool, of a set whose Distiller lets the student inherit: whether it has."""
    looked_at = False
    """Whether both passes of the next step are compared by somebody else, too."""

    def __init__(self, *, balance: Balance | Mapping[str, Any] | None = None, **methods: KDMethod):
        """
        Args:
            balance: sets the weight of each method, as a whole, by its share of the gradient; a
                :class:`Balance` or its options, as in ``{"target": 0.9}``. With None the weights
                are those of the methods' options.
            methods: at least one; the names are free, so one class can be used twice.

        Raises:
            DistillationError: there is no method, or one cannot be called so.
            ValueError: an option of ``balance`` is wrong.
        """
        super().__init__()
        if not methods:
            raise DistillationError(
                "MethodSet has no method, so nothing would be distilled; "
                "give at least one, as in L(MethodSet)(bckd=L(BCKD)())"
            )
        self._watch = TeacherWatch()
        self.balance: Balance | None = None
        for name, method in methods.items():
            if not isinstance(method, KDMethod):
                raise DistillationError(
                    f"method {name!r} is a {type(method).__name__}, expected a KDMethod"
                )
            if hasattr(self, name):
                raise DistillationError(f"a method cannot be named {name!r}; choose another name")
            for other, known in self.named_methods():
                shared = [each for each in _methods_in(method) if each in _methods_in(known)]
                if shared:
                    are = "are" if method is known else "share"
                    raise DistillationError(
                        f"{other!r} and {name!r} {are} one method, which would count once; give "
                        f"each a {type(shared[0]).__name__} of its own"
                    )
            self.add_module(name, method)
        self._images_checked = False
        made = as_balance(balance)
        if made is not None:
            made.follow({name: method.first_iter for name, method in methods.items()})
            self.balance = made

    @property
    def depends_on_iteration(self) -> bool:
        """Whether the losses do: by a warm-up, or by what sets their weights."""
        methods = (method for _, method in self.named_methods())
        return self.balance is not None or any(m.depends_on_iteration for m in methods)

    @property
    def taps(self) -> tuple[Tap, ...]:
        """The tower features that the methods need of both passes, each once."""
        return tuple(dict.fromkeys(t for _, m in self.named_methods() for t in m.needs.taps))

    @property
    def taps_of_student(self) -> tuple[Tap, ...]:
        """The tower features that the methods need of the student's pass, each once."""
        return tuple(
            dict.fromkeys(t for _, m in self.named_methods() for t in m.needs.taps_of_student)
        )

    @property
    def reads_predictions(self) -> bool:
        """Whether a method reads predictions of the teacher, or somebody who looks on."""
        return self.looked_at or any(method.needs.predictions for _, method in self.named_methods())

    @property
    def reads_features(self) -> bool:
        """Whether a method reads features of the teacher."""
        return any(method.needs.features for _, method in self.named_methods())

    @property
    def reads_ground_truth(self) -> list[str]:
        """The names of the methods that do."""
        return [name for name, method in self.named_methods() if method.needs.ground_truth]

    @property
    def reads_detector(self) -> list[str]:
        """The names of the methods that read something of the detector that is the teacher."""
        return [name for name, method in self.named_methods() if method.needs.detector]

    def prepare(
        self, student: DenseDetector, teacher: DenseDetector | None, weights: str | None
    ) -> None:
        """Check every method against both detectors, and let it make what depends on them.

        Args:
            student, teacher: the detectors; None if no detector teaches, which no method reads.
            weights: the teacher's file, for the message.

        Raises:
            DistillationError: a method cannot distil between the two.
        """
        theirs = NO_TEACHER if teacher is None else teacher
        for name, method in self.named_methods():
            if teacher is None or not method.needs.detector:
                source, change = "into", "its options or the student"
            else:
                source = f"the teacher {type(teacher).__name__} (weights {weights}) into"
                change = "one of the two configs"
            try:
                method.check(student, theirs)
            except ValueError as error:
                raise DistillationError(
                    f"method {name!r} ({type(method).__name__}) cannot distil {source} the "
                    f"student {type(student).__name__}: {error}. Change {change}, or leave the "
                    "method out."
                ) from None
            if method.is_taken:
                raise DistillationError(
                    f"method {name!r} ({type(method).__name__}) has parameters and belongs to "
                    "another Distiller already; give each Distiller methods of its own"
                )
            method.prepare(student, theirs)
            method.is_prepared = True

    def load(self) -> None:
        """Let every method read files of its own."""
        for _, method in self.named_methods():
            method.load()

    def forward(
        self, student: DensePass, teacher: DensePass | None, step: Step
    ) -> dict[str, Tensor]:
        """{``kd_<name>_<term>``: scalar}; all NaN if the teacher's pass is not finite.

        Args:
            student, teacher: passes over a batch; None if no detector teaches.
            step: of the training.
        """
        if not self._images_checked:
            self._images_checked = True
            self._warn_of_images(len(step.ground_truth))
        losses: dict[str, Tensor] = {}
        theirs = NO_TEACHER if teacher is None else teacher
        looks = [student.priors[0].new_zeros(()) if teacher is None else self._watch.look(teacher)]
        terms: dict[str, dict[str, Tensor]] = {}
        for name, method in self.named_methods():
            run = functools.partial(self._run_watched, looks, name, step.run)
            with full_precision(student.logits[0].device):
                terms[name] = method(student, theirs, dataclasses.replace(step, run=run))
        zero_or_nan = sum(looks[1:], looks[0])
        if self.balance is not None:
            teaching = {n: terms[n] for n, m in self.named_methods() if m.teaches(step.iteration)}
            factors = self.balance(teaching, step.detection, student, step.iteration)
            for name, factor in factors.items():
                terms[name] = {term: factor * loss for term, loss in terms[name].items()}
        for name, method in self.named_methods():
            factor = method.warmup_factor(step.iteration)
            for term, loss in terms[name].items():
                key = f"kd_{name}_{term}"
                if key in losses:
                    raise DistillationError(
                        f"two methods give the loss {key!r}; rename one of {self._names()}"
                    )
                losses[key] = (factor * loss if factor < 1 else loss) + zero_or_nan
        self._watch.guard(losses, zero_or_nan)
        return losses

    def _run_watched(
        self,
        looks: list[Tensor],
        name: str,
        run: RunTeacher,
        teacher: Teacher,
        *args: Any,
        **kwargs: Any,
    ) -> DensePass:
        """The pass of a teacher that a method brings along."""
        if teacher.cache is not None:
            teacher.cache.scalar = f"teacher_cache/hits_{name}"
        dense = run(teacher, *args, **kwargs)
        looks.append(self._watch.look(dense, f" of the teacher that method {name!r} brings along"))
        return dense

    def _warn_of_images(self, images: int) -> None:
        for name, method in self.named_methods():
            warning = method.images_warning(images)
            if warning:
                logger.warning(f"method {name!r} ({type(method).__name__}): {warning}")

    def named_methods(self) -> Iterator[tuple[str, KDMethod]]:
        """(name, method), in their order."""
        for name, child in self.named_children():
            if isinstance(child, KDMethod):
                yield name, child

    def _names(self) -> list[str]:
        return [name for name, _ in self.named_methods()]


def _methods_in(method: KDMethod) -> list[KDMethod]:
    """It, and one that it runs."""
    return [module for module in method.modules() if isinstance(module, KDMethod)]
