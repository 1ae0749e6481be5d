"""What a student and its teacher have to be to each other, whatever the methods between them."""

from __future__ import annotations

from collections.abc import Sequence

from .detectors import DenseDetector
from .inheritance import INHERITED, OF_CLASSES, inherited_state
from .methods import DistillationError, MethodSet
from .methods.base.checks import check_same_priors
from .methods.base.class_maps import ClassMap, Pairs, correspondence
from .methods.base.teachers import check_same_images, check_separate
from .teacher import Teacher
from .unlabelled import PseudoLabels


def check_pair(
    student: DenseDetector,
    teacher: Teacher | None,
    methods: MethodSet,
    *,
    init_student: bool,
    targets_from_teacher: bool,
    pseudo_labels: PseudoLabels | None,
) -> None:
    """All that holds of a :class:`.Distiller` but for what its methods check themselves and what
    :func:`classes_of_pair` does.

    Args:
        student, teacher, methods, init_student, targets_from_teacher, pseudo_labels: of it.

    Raises:
        DistillationError, TypeError: one of them is not what it has to be to the others.
    """
    if pseudo_labels is not None:
        check_reads_pseudo_labels(pseudo_labels, methods)
    if teacher is None:
        asked = {
            "init_student=True": init_student,
            "targets_from_teacher=True": targets_from_teacher,
            "pseudo_labels": pseudo_labels is not None,
        }
        check_alone(methods, [option for option, is_asked in asked.items() if is_asked])
    else:
        check_separate(student, teacher.model)
    check_trained(student)
    if teacher is not None:
        check_same_images(student, teacher.model)
        if targets_from_teacher:
            check_targets_from_teacher(student, teacher.model)


def classes_of_pair(
    student: DenseDetector,
    teacher: DenseDetector,
    methods: MethodSet,
    *,
    init_student: bool,
    targets_from_teacher: bool,
    pseudo_labels: PseudoLabels | None,
) -> Pairs:
    """The classes that correspond, which all parts of a distillation have to agree on: methods
    that learn from this teacher, pseudo-labels, and targets from it.

    Args:
        student, teacher: detectors.
        methods, init_student, targets_from_teacher, pseudo_labels: of the Distiller, each of which
            fits the two by itself.

    Raises:
        DistillationError: two of them do not agree, or there is nothing to inherit.
    """
    maps: dict[str, ClassMap] = {
        f"method {name!r}": method.class_map
        for name, method in methods.named_methods()
        if method.needs.same_classes
    }
    if targets_from_teacher:
        maps["targets_from_teacher=True"] = None
    if pseudo_labels is not None:
        maps["pseudo_labels"] = pseudo_labels.class_map
    try:
        pairs = correspondence(student, teacher, maps)
    except ValueError as error:
        raise DistillationError(f"student and teacher have one correspondence: {error}") from None
    if init_student:
        check_inheritable(student, teacher, same_classes=pairs is None)
    return pairs


def check_alone(methods: MethodSet, options: Sequence[str] = ()) -> None:
    """Raise DistillationError unless nobody asks for a detector as teacher.

    Args:
        methods: those of the distillation.
        options: of it, that are on and have something from such a detector.
    """
    readers = methods.reads_detector
    if readers:
        raise DistillationError(
            f"teacher=None, but the methods {readers} read a detector that is the teacher. Give "
            "one, as in teacher=L(Teacher)(model=..., weights=...), or leave these methods out: "
            "without one, methods learn from what they bring along, as DSI does, and FromTeacher"
        )
    if options:
        raise DistillationError(
            f"teacher=None, but {' and '.join(options)} would have something from a detector that "
            "is the teacher. Give one, as in teacher=L(Teacher)(model=..., weights=...), or leave "
            f"{'it' if len(options) == 1 else 'them'} out"
        )


def teacher_for(what: str, teacher: Teacher | None) -> Teacher:
    """The teacher, for what cannot do without a detector.

    Args:
        what: in words, as the subject of a sentence.
        teacher: that of a Distiller.

    Raises:
        DistillationError: it is None.
    """
    if teacher is None:
        raise DistillationError(
            f"{what} needs a detector that is the teacher, and this distillation has none "
            "(teacher=None); leave it out, or take a distillation with one"
        )
    return teacher


def check_trained(student: DenseDetector) -> None:
    """Raise DistillationError if the student has nothing to train."""
    if not any(parameter.requires_grad for parameter in student.parameters()):
        raise DistillationError(
            "no parameter of the student requires gradient, so nothing would be trained. A copy "
            "of the model of a Teacher is frozen as that is: student.requires_grad_(True)"
        )


def check_inheritable(
    student: DenseDetector, teacher: DenseDetector, *, same_classes: bool
) -> None:
    """Raise DistillationError unless the student can have a convolution of the teacher's."""
    ours, theirs = inherited_state(student), inherited_state(teacher)
    left_out = () if same_classes else OF_CLASSES
    shapes = {
        key: value.shape
        for key, value in ours.items()
        if value.dim() > 1 and not key.startswith(left_out)
    }
    if not any(key in theirs and theirs[key].shape == shapes[key] for key in shapes):
        raise DistillationError(
            f"init_student=True, but no convolution in the FPN or head of the student "
            f"{type(student).__name__} has the name and shape of one of the teacher "
            f"{type(teacher).__name__}; build both with the same width and kind of head, or "
            "leave init_student out"
        )


def check_not_folded(teacher: Teacher) -> None:
    """Raise DistillationError if a student would inherit convolutions without the norms that were
    folded into them, as of a teacher that another student has learnt from."""
    folded = [name for name in teacher.folded if name.startswith(INHERITED)]
    if folded:
        raise DistillationError(
            f"init_student=True, but the teacher has folded norms into {len(folded)} convolutions "
            f"of its FPN and head, such as {folded[0]!r}; call prepare_training() of all students "
            "before the first step of any, or give the teacher fold_norms=False"
        )


def check_targets_from_teacher(student: DenseDetector, teacher: DenseDetector) -> None:
    """Raise DistillationError unless the student's assigner can go by the teacher's predictions."""
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


def check_reads_pseudo_labels(pseudo_labels: PseudoLabels, methods: MethodSet) -> None:
    """Raise DistillationError if they are none, or no method reads them."""
    if not isinstance(pseudo_labels, PseudoLabels):
        raise TypeError(
            f"pseudo_labels is a {type(pseudo_labels).__name__}, expected a dense_kd PseudoLabels, "
            "or None"
        )
    if not methods.reads_ground_truth:
        names = [name for name, _ in methods.named_methods()]
        raise DistillationError(
            f"pseudo_labels does nothing with the methods {names}, which read no ground truth and "
            "learn from images without labels as they are; leave it out"
        )
