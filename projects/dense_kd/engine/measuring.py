"""Teachers and labels against each other on the annotated images of a config's test set."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from detectron2.structures import Instances
from omegaconf import DictConfig

from ..compat import full_precision
from ..diagnostics.conflicts import Conflicts, conflicts
from ..diagnostics.distances import Distances, distances
from ..diagnostics.locations import Classes, compared_classes
from ..diagnostics.masking import FRACTIONS, without_best
from ..diagnostics.passes import run_passes
from ..distiller import Distiller
from ..outputs import DensePass, Targets
from ..pairs import teacher_for
from ..random_state import kept_random_state
from ..teacher import Teacher
from .annotated import AnnotatedImages
from .checks import RunError
from .dry_run.scores import scores

Progress = Callable[[int, int], None]
"""Is told how many images are done, of how many."""


class TestImages:
    """The first annotated images of a test set, one at a time, as an evaluation shows them."""

    __test__ = False  # it is no test of pytest

    def __init__(self, cfg: DictConfig, number: int | None = None):
        """
        Args:
            cfg: with ``dataloader.test``.
            number: of images; None is all.

        Raises:
            RunError: the test set cannot be loaded, or has no annotated image.
        """
        self._images = AnnotatedImages(cfg)
        self.records = [*self._images.records.values()][:number]
        if not self.records:
            why = self._images.no_dataset or "dataloader.test has no annotated image"
            raise RunError([f"what is measured needs labels: {why}"])

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        """Batches of one image with "instances"."""
        for record in self.records:
            yield [self._images.inputs(Path(record["file_name"]))]


class Pair:
    """One student, one of its teachers, and which of their classes correspond."""

    def __init__(self, model: Distiller, teacher: Teacher, classes: Classes):
        """
        Args:
            model: whose student it is.
            teacher: that of ``model``, or another one.
            classes: of student and teacher.
        """
        self.model, self.teacher, self.classes = model, teacher, classes

    @torch.no_grad()
    def teacher_pass(self, batch: list[dict[str, Any]]) -> DensePass:
        """The teacher's pass, as a distillation shows it the batch."""
        student = self.model.student
        with full_precision(student.device):
            return self.teacher.run(batch, student.preprocess_image(batch), student)

    def passes(self, batch: list[dict[str, Any]]) -> tuple[DensePass, DensePass, Targets]:
        """Passes of student and teacher in eval mode, and the student's targets."""
        found = run_passes(self.model, batch, teacher=self.teacher)
        return found.student, found.teacher, cast(Targets, found.targets)  # batches have objects

    def their_classes(self, truth: Instances) -> Instances:
        """The objects whose class the teacher has, with its numbers of the classes."""
        if self.classes is None:
            return truth
        numbers = dict(zip(*(each.tolist() for each in self.classes)))
        given = truth.gt_classes.tolist()
        known = [index for index, number in enumerate(given) if number in numbers]
        kept = truth[torch.tensor(known, dtype=torch.int64, device=truth.gt_classes.device)]
        kept.gt_classes = kept.gt_classes.new_tensor([numbers[given[index]] for index in known])
        return kept

    def dataset_classes(self) -> dict[int, int]:
        """{class of the teacher: class of the student}."""
        if self.classes is None:
            return {number: number for number in range(self.model.student.num_classes)}
        ours, theirs = (each.tolist() for each in self.classes)
        return dict(zip(theirs, ours))


def count_conflicts(
    pairs: Mapping[str, Pair], images: TestImages, progress: Progress | None = None
) -> dict[str, Conflicts]:
    """{title: conflicts of a teacher with the student's labels} over all images.

    Args:
        pairs: by title.
        images: to measure on.
        progress: is told.
    """
    found: dict[str, list[Conflicts]] = {title: [] for title in pairs}
    for done, batch in enumerate(images, start=1):
        for title, pair in pairs.items():
            ours, theirs, targets = pair.passes(batch)
            found[title].append(conflicts(ours, theirs, targets, classes=pair.classes))
        if progress is not None:
            progress(done, len(images.records))
    return {title: functools.reduce(operator.add, each) for title, each in found.items()}


@torch.no_grad()
def masked_precision(
    pairs: Mapping[str, Pair], images: TestImages, progress: Progress | None = None
) -> dict[str, dict[str, list[float | None]]]:
    """{title: {"masked", "ap", "ap50": in percent}}, what masking leaves of a teacher's AP.

    COCO's AP on these images, after :func:`dense_kd.diagnostics.masking.without_best` with each of
    :data:`dense_kd.diagnostics.masking.FRACTIONS`.

    Args:
        pairs: by title.
        images: to measure on.
        progress: is told.
    """
    found: dict[str, list[list[Instances]]] = {t: [[] for _ in FRACTIONS] for t in pairs}
    for done, batch in enumerate(images, start=1):
        for title, pair in pairs.items():
            theirs = pair.teacher_pass(batch)
            detector = pair.teacher.model
            truth = pair.their_classes(batch[0]["instances"].to(detector.device))
            for fraction, detections in zip(FRACTIONS, found[title]):
                left = without_best(theirs, [truth], fraction)
                detections.append(detector.results(left, batch)[0]["instances"].to("cpu"))
        if progress is not None:
            progress(done, len(images.records))
    curves: dict[str, dict[str, list[float | None]]] = {}
    for title, pair in pairs.items():
        facts = [scores(images.records, each, pair.dataset_classes()) for each in found[title]]
        curves[title] = {
            "masked": [100 * fraction for fraction in FRACTIONS],
            "ap": [fact.ap for fact in facts],
            "ap50": [fact.ap50 for fact in facts],
        }
    return curves


class EvaluationDistances:
    """Distances of the student to teacher and labels during a run (CrossKD, Figure 6).

    What it measures changes neither the model nor the random generators. Each of several processes
    measures all of the images: assigners may exchange what they count.
    """

    def __init__(self, cfg: DictConfig, model: Distiller, number: int):
        """
        Args:
            cfg: with ``dataloader.test``.
            model: that is trained.
            number: of images.

        Raises:
            RunError: the test set has no labels.
            DiagnosticsError: classes of student and teacher do not correspond.
            DistillationError: no detector teaches.
        """
        teacher = teacher_for("train.diagnostics.images", model.teacher)
        with kept_random_state():
            self._images = TestImages(cfg, number)
        self._pair = Pair(model, teacher, compared_classes(model))

    def run(self) -> dict[str, float]:
        """{"distance_teacher", "distance_truth"}, means as :class:`Distances` has them."""
        found = Distances(0.0, 0.0, 0)
        with kept_random_state():
            for batch in self._images:
                ours, theirs, targets = self._pair.passes(batch)
                found += distances(ours, theirs, targets, classes=self._pair.classes)
        return {"distance_teacher": found.teacher, "distance_truth": found.truth}
