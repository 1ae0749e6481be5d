"""What a dry run finds; :mod:`.text` writes it as a page."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from .text import page


@dataclass
class BatchFacts:
    """Images as the mapper of a loader gives them.

    Attributes:
        num_images: of the batch.
        smallest, largest: (height, width) of the images with the fewest and the most pixels.
        image_format: of the mapper; None if its config does not say.
        dtype: of the pixels.
        num_objects: of all images; None where the batch has no ground truth.
        num_unlabelled: of the images, those without labels.
    """

    num_images: int
    smallest: tuple[int, int]
    largest: tuple[int, int]
    image_format: str | None
    dtype: str
    num_objects: int | None
    num_unlabelled: int = 0


@dataclass
class DataFacts:
    """One loader and its dataset.

    Attributes:
        names: of the registered datasets; [] if unknown.
        num_images, num_empty, num_objects: images, those of them without objects, and objects
            that are no crowds; None if unknown.
        classes: their names; None if the dataset does not say.
        objects_per_class: {name: objects}, {} if unknown.
        batch: of the loader; None if it gave none.
    """

    names: list[str]
    num_images: int | None = None
    num_empty: int | None = None
    num_objects: int | None = None
    classes: list[str] | None = None
    objects_per_class: dict[str, int] = field(default_factory=dict)
    batch: BatchFacts | None = None


@dataclass
class ModelFacts:
    """A student, a teacher or a method.

    Attributes:
        name: "student", "teacher", "methods.<name>.teacher" of one that a method brings along, or
            that of the method.
        kind: its class.
        parameters, trained: numbers in all its parameters, and in those that are trained.
        num_classes: of a detector.
        class_names: of a detector whose config names them.
        input_format: of a detector's images.
        weights: the file that it starts from.
        classes: of a method: how it compares those of student and teacher.
        warmup_iters, first_iter, last_iter: of a method.
    """

    name: str
    kind: str
    parameters: int
    trained: int
    num_classes: int | None = None
    class_names: list[str] | None = None
    input_format: str | None = None
    weights: str | None = None
    classes: str | None = None
    warmup_iters: int = 0
    first_iter: int = 0
    last_iter: int | None = None


@dataclass
class LevelFacts:
    """One map of the feature pyramids.

    Attributes:
        name: of the student's map.
        stride: in pixels.
        student, teacher: (N, C, Hl, Wl); None where there is none.
    """

    name: str
    stride: int | None
    student: tuple[int, ...]
    teacher: tuple[int, ...] | None


@dataclass
class LossFacts:
    """One term of the loss.

    Attributes:
        name: of the term.
        value: at the start of the run, warm-ups of methods being over.
        gradient: the norm of its gradient at the student's feature maps; None if not measured.
        share: of that norm in the sum over all terms.
    """

    name: str
    value: float
    gradient: float | None = None
    share: float | None = None


@dataclass
class BalanceFacts:
    """What sets the weight of a method, after the first batch.

    Attributes:
        name: of the method.
        share: of its gradient in the sum with that of detection, with the weights of its options;
            None if there was none.
        target: what the share should be.
        factor: that its losses have got.
    """

    name: str
    share: float | None
    target: float
    factor: float


@dataclass
class StepFacts:
    """What an iteration of the run takes.

    Attributes:
        seconds: median of the steps after the first; of the first if there is no other.
        waiting: seconds of it that the step waited for its images (median).
        num_steps: that were measured.
        num_images: of a step, over all accumulated batches.
        memory: peak, in bytes; None if not measured.
        memory_of: what the peak is of.
        gradient_norm: of all parameters, in the pass that gave the losses.
    """

    seconds: float
    waiting: float
    num_steps: int
    num_images: int
    memory: int | None
    memory_of: str
    gradient_norm: float | None = None


@dataclass
class ScheduleFacts:
    """The recipe of the run.

    Attributes:
        max_iter: iterations.
        images_per_iteration: over all processes and accumulated batches; None if unknown.
        epochs: None if unknown.
        optimizer: its class.
        rates: (iteration, learning rate, what happens there), in their order.
        clip_grad: the largest norm of the gradients; None does not clip.
        precision: "float32", or the dtype of AMP.
        num_evaluations: on the whole test set.
    """

    max_iter: int
    images_per_iteration: int | None
    epochs: float | None
    optimizer: str
    rates: list[tuple[int, float, str]]
    clip_grad: float | None
    precision: str
    num_evaluations: int


@dataclass
class ScoreFacts:
    """How well a detector does on a few images.

    Attributes:
        num_images, num_objects: what there is to detect.
        num_detections: that it gives.
        best_score: the mean over images of the highest score; 0 of an image without detections.
        ap, ap50: COCO's, 0 to 100, on these images; None if undefined (no objects, or other
            classes).
        ap50_any_class: AP50 as if all objects and detections were of one class.
    """

    num_images: int
    num_objects: int
    num_detections: int
    best_score: float
    ap: float | None
    ap50: float | None
    ap50_any_class: float | None


@dataclass
class EvaluationFacts:
    """One evaluation of the model as it starts.

    Attributes:
        evaluators: their classes.
        num_images: that it was tried on.
        how: what was done to evaluate a part of the dataset.
        metrics: {name: value} of the evaluators that can judge a part; None is not defined.
        seconds_per_image: of detection and evaluation.
    """

    evaluators: list[str]
    num_images: int
    how: str
    metrics: dict[str, float | None]
    seconds_per_image: float


@dataclass
class DryRun:
    """What a dry run found; parts that could not be tried are None or empty.

    Attributes:
        device: that it was tried on.
        train, test: the loaders and their data.
        models: student, teacher and methods.
        input_shape: (N, C, H, W) of the batch that the pyramids are of.
        levels: of the pyramids.
        losses: terms, in the order of the model.
        balance: of the methods, where weights are set by gradient share.
        step: time and memory.
        schedule: of the run.
        teachers: {"teacher", or "methods.<name>.teacher" of one that a method brings along: its
            score on some images of the test set}.
        evaluation: of the model as it starts.
        problems: all that does not fit, each with what to do.
        not_tried: parts that need one that failed.
        warnings: what a run would do, and probably should not.
    """

    device: str
    train: DataFacts | None = None
    test: DataFacts | None = None
    models: list[ModelFacts] = field(default_factory=list)
    input_shape: tuple[int, ...] | None = None
    levels: list[LevelFacts] = field(default_factory=list)
    losses: list[LossFacts] = field(default_factory=list)
    balance: list[BalanceFacts] = field(default_factory=list)
    step: StepFacts | None = None
    schedule: ScheduleFacts | None = None
    teachers: dict[str, ScoreFacts] = field(default_factory=dict)
    evaluation: EvaluationFacts | None = None
    problems: list[str] = field(default_factory=list)
    not_tried: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        """Whether the run can begin."""
        return not self.problems

    @property
    def total_seconds(self) -> float | None:
        """Of all iterations, without evaluations and checkpoints."""
        if self.step is None or self.schedule is None:
            return None
        return self.step.seconds * self.schedule.max_iter

    @property
    def evaluation_seconds(self) -> float | None:
        """Of one evaluation on the whole test set."""
        if self.evaluation is None or self.test is None or self.test.num_images is None:
            return None
        return self.evaluation.seconds_per_image * self.test.num_images

    def text(self) -> str:
        """A page to read; its last lines are "fits", or what does not."""
        return page(self)

    def to_dict(self) -> dict[str, Any]:
        """All of it in JSON types; numbers that are not finite are None."""
        derived = {
            "fits": self.fits,
            "total_seconds": self.total_seconds,
            "evaluation_seconds": self.evaluation_seconds,
        }
        return _plain({**dataclasses.asdict(self), **derived})


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
