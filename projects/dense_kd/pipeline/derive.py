"""Numbers of a training that follow from images and devices, each with its reason."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence

from ..teacher import PRECISIONS
from .errors import PipelineError

__all__ = [
    "Devices",
    "Number",
    "Precision",
    "batch_size",
    "image_size",
    "iterations",
    "learning_rate",
    "precision",
    "warmup",
]

# COCO's recipe, and what a CPU can do in reasonable time.
_COCO_EDGES = (800, 1333)
_LEAST_EDGE = 320  # below, the levels of stride 64 and 128 see next to nothing
_SMALL_EDGES = (320, 533)
_PER_GPU, _PER_CPU, _RECIPE_BATCH = 8, 8, 16
_BATCHES_PER_EPOCH = 4
_IMAGES_SEEN, _EPOCHS = 24_000, (12, 100)
_WARMUP, _WARMUP_SHARE = 500, 0.1


@dataclasses.dataclass(frozen=True)
class Number:
    """A number of a training, and why it is this one."""

    value: float
    reason: str


@dataclasses.dataclass(frozen=True)
class Devices:
    """What the trainings run on: ``count`` processes, each with a ``kind``, "cuda" or "cpu"."""

    kind: str
    count: int

    def __str__(self) -> str:
        name = "GPU" if self.kind.startswith("cuda") else "CPU process"
        return f"{self.count} {name}" + ("s" * (self.count > 1) if name == "GPU" else "")


@dataclasses.dataclass(frozen=True)
class Precision:
    """What the trainings compute in.

    Attributes:
        training: one of "float32", "bfloat16" and "float16", of the student and, in its own
            training, the teacher.
        teacher: the same, of the teacher's pass in the distillation; None: as the training.
        small: whether both detectors are small ones.
        reason: why.
    """

    training: str
    teacher: str | None
    small: bool
    reason: str

    @property
    def is_half(self) -> bool:
        """Whether the trainings run under autocast."""
        return self.training != "float32"

    @property
    def channels_last(self) -> bool:
        """Whether maps lie in memory as (N, H, W, C), which is slower for small detectors."""
        return self.is_half and not self.small

    @property
    def teacher_channels_last(self) -> bool:
        """As ``channels_last``, of the teacher's pass in the distillation."""
        return (self.teacher or self.training) != "float32" and not self.small

    def __str__(self) -> str:
        teacher = f", the teacher's pass {self.teacher}" if self.teacher else ""
        return f"{self.training}{teacher} ({self.reason})"


def precision(
    training: str, teacher: str | None, devices: Devices, small: bool, has_bfloat16: bool
) -> Precision:
    """What is computed in which precision, and what another one would give.

    Args:
        training, teacher: as given.
        devices: that it runs on.
        small: whether both detectors are small ones.
        has_bfloat16: whether the devices multiply bfloat16 by themselves.

    Raises:
        PipelineError: there is no such precision, or not on these devices.
    """
    for name, value in (("precision", training), ("teacher_precision", teacher)):
        if value is not None and value not in PRECISIONS:
            raise PipelineError(f"{name}={value!r}: expected one of {', '.join(PRECISIONS)}")
    on_gpu = devices.kind.startswith("cuda")
    if training == "float16" and not on_gpu:
        raise PipelineError(
            "precision=float16: its gradients are scaled on a GPU, and the trainings run on "
            f"{devices}; bfloat16 needs no scaling"
        )
    if training != "float32":
        reason = "as given"
        if training == "bfloat16" and not has_bfloat16:
            reason += "; slower than float32: these devices have no arithmetic for bfloat16"
    elif has_bfloat16:
        reason = "bfloat16 is faster here, and rounds; --precision bfloat16, or for the teacher's "
        reason += "pass alone --teacher-precision bfloat16"
    else:
        reason = "bfloat16 would be slower: these devices have no arithmetic for it"
    return Precision(training, teacher, small, reason)


def given(value: float) -> Number:
    """A number that the user has chosen."""
    return Number(value, "as given")


def image_size(
    sizes: Sequence[tuple[int, int]], small: bool, short: int | None, long: int | None
) -> tuple[Number, Number]:
    """(short edge, long edge) of the images that the detectors see.

    Args:
        sizes: (height, width) of the training images.
        small: whether both detectors are small ones.
        short, long: as given.
    """
    median = [round(statistics.median(edges)) for edges in zip(*map(sorted, sizes))]
    shown = f"the median image has {median[1]} x {median[0]} pixels"
    most, most_long = _SMALL_EDGES if small else _COCO_EDGES
    least = 32 if small else _LEAST_EDGE
    if short is not None:
        first = given(short)
    elif median[0] > most:
        kind = "small detectors see" if small else "COCO's recipe has"
        first = Number(most, f"{shown}; {kind} at most {most}")
    elif median[0] < least:
        first = Number(least, f"{shown}, which is too small for the coarse levels")
    else:
        first = Number(median[0], f"{shown}")
    if long is not None:
        if first.value > long:
            first = Number(long, f"at most the long edge, which is given; else {first.value:g}")
        return first, given(long)
    scale = first.value / median[0]
    value = max(math.ceil(first.value * most_long / most), math.ceil(median[1] * scale))
    return first, Number(value, "5/3 of the short edge, as COCO's 1333, or that of the median")


def batch_size(num_images: int, devices: Devices, given_size: int | None) -> Number:
    """Images of an iteration, over all devices."""
    if given_size is not None:
        return given(given_size)
    each = _PER_GPU if devices.kind.startswith("cuda") else _PER_CPU
    most = min(each * devices.count, max(_RECIPE_BATCH, devices.count))
    value = min(most, max(num_images // _BATCHES_PER_EPOCH, 1))
    value = max(value // devices.count, 1) * devices.count
    if value < most // devices.count * devices.count:
        return Number(value, f"{num_images} images, so that an epoch has several batches")
    reason = f"{devices}, {each} images each and {_RECIPE_BATCH} in all at most"
    return Number(value, reason)


def learning_rate(recipe: float, recipe_batch: int, batch: int, chosen: float | None) -> Number:
    """By the linear rule: in proportion to the batch."""
    if chosen is not None:
        return given(chosen)
    value = float(f"{recipe * batch / recipe_batch:.3g}")
    return Number(value, f"its recipe's {recipe:g} for batches of {recipe_batch}, times the batch")


def iterations(num_images: int, batch: int, chosen: int | None) -> Number:
    """From the number of images: as many epochs as show enough of them."""
    if chosen is not None:
        return Number(chosen, f"as given: {chosen * batch / num_images:.3g} epochs")
    least, most = _EPOCHS
    epochs = min(max(math.ceil(_IMAGES_SEEN / num_images), least), most)
    value = math.ceil(epochs * num_images / batch)
    return Number(
        value,
        f"{epochs} epochs of {num_images} images: {_IMAGES_SEEN:,} images seen, in {least} to "
        f"{most} epochs",
    )


def warmup(max_iter: int, chosen: int | None) -> Number:
    """Iterations until the full learning rate."""
    if chosen is not None and chosen > max_iter:
        return Number(max_iter, f"{chosen} as given, but no longer than the training")
    if chosen is not None:
        return given(chosen)
    value = min(_WARMUP, round(_WARMUP_SHARE * max_iter))
    return Number(value, f"a tenth of the training, {_WARMUP} at most")
