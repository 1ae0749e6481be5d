"""What a teacher detects in a few images, and what to think of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.structures import Instances
from omegaconf import DictConfig

from ...distiller import Distiller
from ...methods import FromTeacher, KDMethod
from ...methods.base.class_maps import class_pairs, correspondence
from ...teacher import Teacher
from ..checks.data import dataset_names
from .data import Batch
from .models import methods_of
from .results import ScoreFacts
from .scores import scores

NEAR_ZERO = 5.0
"""AP50 below which a teacher is warned of."""


def teacher_score(
    cfg: DictConfig,
    model: Distiller,
    place: str,
    batches: list[Batch],
    images: Sequence[dict[str, Any]],
) -> ScoreFacts:
    """That of a detector that teaches, on the images of the student, as it is shown them.

    Args:
        cfg: the config.
        model: whose teachers are loaded.
        place: of the teacher in ``model.teachers``.
        batches: of the test set.
        images: their dataset dicts, with objects.
    """
    teacher = model.teachers[place]
    teacher.model.to(cfg.train.device)
    found: list[Instances] = []
    for batch in batches:
        results = teacher.detect(batch, model.student.input_format)
        found += [result["instances"].to("cpu") for result in results]
    return scores(images, found, _dataset_classes(cfg, model, teacher))


def _dataset_classes(cfg: DictConfig, model: Distiller, loaded: Teacher) -> dict[int, int]:
    """{class of the teacher: class of the test set}, which is that of the student."""
    student, teacher = model.student, loaded.model
    for method in _methods_that_learn_from(model, loaded):
        if method.needs.same_classes:
            pairs = class_pairs(method.class_map, student, teacher)
            if pairs is not None:
                return {theirs: ours for ours, theirs in pairs}
    if correspondence(student, teacher, {}) is None:
        return {number: number for number in range(teacher.num_classes)}
    names = dataset_names(cfg, "test")
    of_dataset = MetadataCatalog.get(names[0]).get("thing_classes") if names else None
    ours = student.class_names or of_dataset or []
    theirs = teacher.class_names or loaded.file_classes or []
    places = {_plain(name): number for number, name in enumerate(ours)}
    return {
        number: places[_plain(name)] for number, name in enumerate(theirs) if _plain(name) in places
    }


def _methods_that_learn_from(model: Distiller, teacher: Teacher) -> Iterator[KDMethod]:
    for _, method in methods_of(model):
        inside = method.method if isinstance(method, FromTeacher) else None
        own = method.teacher if inside is not None else model.teacher
        if own is teacher:
            yield inside or method


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").split())


def teacher_warnings(place: str, score: ScoreFacts) -> list[str]:
    """What to say of a teacher that detects next to nothing.

    Args:
        place: of the teacher in ``model.teachers``.
        score: its own.
    """
    name = "the teacher" if place == "teacher" else f"the teacher of model.{place}"
    boxes = score.ap50_any_class or 0.0
    if score.num_objects == 0 or (boxes if score.ap50 is None else score.ap50) >= NEAR_ZERO:
        return []
    if score.ap50 is not None and boxes >= 4 * NEAR_ZERO:
        return [
            f"{name}'s boxes are right (AP50 {boxes:.1f} if classes do not matter) and its "
            f"classes wrong (AP50 {score.ap50:.1f}): they are probably in another order than those "
            "of the dataset. Give class_names to its model and to the student's, and "
            "class_map='by_name' to the methods that compare classes"
        ]
    return [
        f"{name} finds next to nothing on these images ({score.num_detections} detections, "
        f"mean best score {score.best_score:.2f}, AP50 {boxes:.1f} if classes do not matter). Look "
        "at its weights, its pixel_mean, pixel_std and input_format, and the size of the images"
    ]
