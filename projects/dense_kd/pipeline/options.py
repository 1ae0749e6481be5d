"""The options of a distillation, defined once for the Python call and for the command line."""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Sequence
from typing import Any

from ..options import SEED, VAL_FRACTION
from .errors import PipelineError

__all__ = ["DistillOptions", "signature"]


def _option(default: Any, help: str, **more: Any) -> Any:
    return dataclasses.field(default=default, metadata={"help": help, **more})


@dataclasses.dataclass(frozen=True)
class DistillOptions:
    """How to distil; ``field.metadata`` has what each option does, the type and the least value.

    None is what follows from the images and the devices; the plan says what and why.
    """

    student: str = _option(
        "gfl_r50",
        "the detector to make: DETECTOR_BACKBONE, such as gfl_r18, or a config",
    )
    teacher: str = _option(
        "gfl_r101",
        "the detector to learn from: as the student, or a checkpoint that carries its config",
    )
    method: str = _option("bckd", "of `dense-kd list methods`; several joined by +, as in bckd+ld")
    balance: float | None = _option(
        None,
        "let each method's weights set themselves, so that of the gradient of detection and it the "
        "method has this share, such as 0.9; None: the weights of its config",
    )
    output: str | None = _option(None, "folder of all that is made; None: output/distill/DATA")
    compare: bool = _option(False, "also train the student alone, on equal terms")
    layout: str | None = _option(None, "coco, voc or yolo, where DATA could be several of them")
    unlabelled: str | None = _option(
        None, "folder of images without labels, which the student learns from by way of the teacher"
    )
    unlabelled_ratio: float = _option(1.0, "unlabelled images for each labelled one of a batch")
    score_thresh: float | None = _option(
        None,
        "from which a detection of the teacher is an object of an unlabelled image; None: that of "
        "the largest F1 on the validation images",
    )
    val_fraction: float = _option(
        VAL_FRACTION, "share of the images to evaluate on, where DATA has no validation images"
    )
    seed: int = _option(
        SEED, "of the split, the initial weights and the order of the images", least=0
    )
    student_weights: str | None = _option(
        None, "file that the student starts from; None: COCO's, else its backbone's from ImageNet"
    )
    teacher_weights: str | None = _option(
        None, "file that the teacher starts from, or is used as it is if its classes are DATA's"
    )
    from_scratch: bool = _option(False, "start from random weights where no file is given")
    short_edge: int | None = _option(None, "of the images that the detectors see", least=32)
    long_edge: int | None = _option(None, "at most; images of other shapes get smaller", least=32)
    batch_size: int | None = _option(None, "images of an iteration, on all devices", least=1)
    learning_rate: float | None = _option(None, "of the student")
    teacher_learning_rate: float | None = _option(None, "of the teacher")
    iterations: int | None = _option(None, "of the student's training", least=1)
    teacher_iterations: int | None = _option(
        None, "of the teacher's training; 0 uses its weights as they are", least=0
    )
    warmup_iterations: int | None = _option(None, "until the full learning rate", least=0)
    checkpoint_period: int | None = _option(None, "iterations between checkpoints", least=1)
    num_workers: int | None = _option(None, "processes that load images, for each GPU", least=0)
    device: str | None = _option(None, "cuda or cpu; None: a GPU if there is one")
    precision: str = _option(
        "float32",
        "of the trainings: float32, bfloat16, or on a GPU float16; the plan says what it saves",
    )
    teacher_precision: str | None = _option(
        None, "of the teacher's pass in the distillation; None: as the training"
    )
    teacher_cache: str | None = _option(
        None,
        "memory, or a folder: run the teacher once on an image and its mirror image, where images "
        "have one size or batches one image",
    )
    num_gpus: int = _option(1, "GPUs to train on; with --device cpu, processes", least=1)
    fresh: bool = _option(False, "train everything again, and give up what OUTPUT holds")
    dry_run: bool = _option(False, "print the plan; nothing is trained, downloaded or written")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, kind = getattr(self, field.name), type_of(field)
            if value is None and field.default is None:
                continue
            right = isinstance(value, (int, float) if kind is float else kind)
            if not right or (isinstance(value, bool) and kind is not bool):
                raise PipelineError(
                    f"{field.name}={value!r}: expected {_KINDS[kind]}"
                    + (" or None" if field.default is None else "")
                )
            least = field.metadata.get("least")
            if least is not None and value < least:
                raise PipelineError(f"{field.name}={value!r}: expected at least {least}")
        for name in ("learning_rate", "teacher_learning_rate"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise PipelineError(f"{name}={value!r}: expected a number above 0")
        if not 0 < self.val_fraction < 1:
            raise PipelineError(
                f"val_fraction={self.val_fraction!r}: expected a share between 0 and 1"
            )
        if self.balance is not None and not 0 < self.balance < 1:
            raise PipelineError(f"balance={self.balance!r}: expected a share between 0 and 1")
        if not 0 < self.unlabelled_ratio < float("inf"):
            raise PipelineError(
                f"unlabelled_ratio={self.unlabelled_ratio!r}: expected a number above 0"
            )
        if self.score_thresh is not None and not 0 < self.score_thresh < 1:
            raise PipelineError(
                f"score_thresh={self.score_thresh!r}: expected a score between 0 and 1"
            )
        if self.unlabelled is None and (
            self.score_thresh is not None or self.unlabelled_ratio != 1
        ):
            raise PipelineError(
                "score_thresh and unlabelled_ratio are of images without labels; give their folder "
                "(unlabelled=FOLDER), or leave them out"
            )
        if self.short_edge and self.long_edge and self.long_edge < self.short_edge:
            raise PipelineError(
                f"short_edge={self.short_edge}, long_edge={self.long_edge}: the long one is shorter"
            )


_KINDS = {str: "a text", bool: "True or False", int: "a whole number", float: "a number"}


def type_of(field: dataclasses.Field[Any]) -> type:
    """The type of an option's values, besides None."""
    return {kind.__name__: kind for kind in _KINDS}[str(field.type).split(" ")[0]]


def from_keywords(options: dict[str, Any]) -> DistillOptions:
    """The options of a Python call.

    Raises:
        PipelineError: one of them is not known, or its value is wrong.
    """
    known = [field.name for field in dataclasses.fields(DistillOptions)]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise PipelineError(f"no such option: {', '.join(unknown)}; there are {', '.join(known)}")
    return DistillOptions(**{k: _text(v) for k, v in options.items()})


def _text(value: Any) -> Any:
    """Paths as texts, with the home folder for ``~``."""
    value = os.fspath(value) if hasattr(value, "__fspath__") else value
    return os.path.expanduser(value) if isinstance(value, str) else value


def signature(first: Sequence[inspect.Parameter], returns: str) -> inspect.Signature:
    """Of a function that takes all options as keywords after ``first``, for ``help``."""
    keywords = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=field.type,
        )
        for field in dataclasses.fields(DistillOptions)
    ]
    return inspect.Signature([*first, *keywords], return_annotation=returns)
