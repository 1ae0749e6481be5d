"""What passes between a detector and a distillation method.

Symbols, used in every docstring and trailing comment of this package:

    N       images in the batch of this process
    L       pyramid levels
    Hl, Wl  height and width of level l, in cells
    A       anchors per location; 1 for detectors that predict from points
    R       predictions per image: the sum over levels of Hl * Wl * A
    K       classes
    C       channels

Boxes are absolute pixels (x1, y1, x2, y2) of the padded network input. Predictions are ordered by
level, row, column, anchor.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NoReturn, Union

import torch
from torch import Tensor

from .lengths import check_equal_lengths, zip_equal
from .normalizers import is_over_iterations, over_iteration

Tap = tuple[str, int]
"""(branch, depth): the output of block ``depth`` (1..n) of a tower; depth 0 is its input.

The branches are "cls" and "bbox", and "cls_pre_relu" and "bbox_pre_relu" for a block's output
before its ReLU."""


Images = Union[slice, "list[int]"]
"""Some images of a batch."""


class LeftOut(list[Tensor]):
    """In place of the levels of what a pass does not hold; to read it is an error."""

    reason: str

    def _refuse(self, *_: object) -> NoReturn:
        raise LookupError(self.reason)

    __iter__ = __getitem__ = __len__ = __bool__ = _refuse


class NotPredicted(LeftOut):
    """In place of a prediction that a pass did not make."""

    reason = (
        "the pass was run without predictions (predictions=False), as the methods of this run "
        "say that they read none of the teacher's; a method that does has "
        "needs=Needs(predictions=True), which is the default"
    )


class NotKept(LeftOut):
    """In place of features that the teacher's cache did not keep, but for their sizes."""

    reason = (
        "the pass comes from the teacher's cache without features, as the methods of this run say "
        "that they read none of the teacher's; a method that does has "
        "needs=Needs(features=True), which is the default, and DensePass.map_sizes has their sizes"
    )

    def __init__(self, sizes: list[torch.Size]):
        """
        Args:
            sizes: L x (Hl, Wl).
        """
        super().__init__()
        self.sizes = sizes


@dataclass
class DensePass:
    """One forward pass of a dense detector over a batch.

    A pass that was run for its features and taps alone has no predictions: ``logits``, ``deltas``,
    ``quality`` and ``distribution`` raise LookupError when they are read. So do ``features`` of a
    pass of the teacher's cache whose methods do not read them; ``map_sizes`` are there.

    Attributes:
        features: L x (N, C, Hl, Wl), the input of the head.
        logits: L x (N, Hl*Wl*A, K), class logits, float32.
        deltas: L x (N, Hl*Wl*A, 4), box regression as the head codes it, float32;
            with a distribution, its expectation.
        priors: L x (Hl*Wl*A, 4), anchors; a point is a box of its stride's size around it.
        strides: L strides in pixels.
        num_anchors: A.
        image_sizes: N x (height, width) of the images without padding.
        decode: maps deltas (..., 4) and priors (..., 4) to boxes (..., 4).
        quality: L x (N, Hl*Wl*A), logits of the centreness / IoU / objectness branch, or None.
        quality_kind: "centerness", "iou", "objectness", or None without such a branch.
        distribution: L x (N, Hl*Wl*A, 4, bins), logits over distances to the sides, or None.
        taps: {(branch, depth): L x (N, C, Hl, Wl)}, the tower features that were asked for.
    """

    features: list[Tensor]
    logits: list[Tensor]
    deltas: list[Tensor]
    priors: list[Tensor]
    strides: list[int]
    num_anchors: int
    image_sizes: list[tuple[int, int]]
    decode: Callable[[Tensor, Tensor], Tensor]
    quality: list[Tensor] | None = None
    quality_kind: str | None = None
    distribution: list[Tensor] | None = None
    taps: dict[Tap, list[Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = ("features", "logits", "deltas", "priors", "strides", "quality", "distribution")
        # A list may be empty where nothing is asked of it.
        held = {name: getattr(self, name) for name in names}
        there = {k: levels for k, levels in held.items() if not isinstance(levels, LeftOut)}
        check_equal_lengths(**{name: levels for name, levels in there.items() if levels})

    @property
    def has_predictions(self) -> bool:
        """Whether the pass was run with them."""
        return not isinstance(self.logits, NotPredicted)

    @property
    def has_features(self) -> bool:
        """Whether the pass holds them."""
        return not isinstance(self.features, LeftOut)

    @property
    def map_sizes(self) -> list[torch.Size]:
        """L x (Hl, Wl)."""
        if isinstance(self.features, NotKept):
            return self.features.sizes
        return [feature.shape[-2:] for feature in self.features]

    def leave_out_predictions(self) -> None:
        """Let those that were not made be missed, and not be taken for those of no level."""
        self.logits = self.deltas = self.quality = self.distribution = NotPredicted()

    def leave_out_features(self) -> None:
        """Let them be missed; their sizes stay known."""
        self.features = NotKept(self.map_sizes)

    def of_images(self, images: Images) -> DensePass:
        """The pass over some images of the batch, with the graph of this one.

        Args:
            images: a slice, or indices of 0..N-1 in any order.
        """
        sizes = self.image_sizes
        sizes = sizes[images] if isinstance(images, slice) else [sizes[i] for i in images]

        def cut(levels: list[Tensor]) -> list[Tensor]:
            return levels if isinstance(levels, LeftOut) else [level[images] for level in levels]

        return dataclasses.replace(
            self,
            features=cut(self.features),
            logits=cut(self.logits),
            deltas=cut(self.deltas),
            quality=None if self.quality is None else cut(self.quality),
            distribution=None if self.distribution is None else cut(self.distribution),
            taps={tap: cut(levels) for tap, levels in self.taps.items()},
            image_sizes=sizes,
        )

    # What is kept has its gradient: who asks next may need it. Lists are read by Python, in which
    # predictions that were not made say so.

    @cached_property
    def all_logits(self) -> Tensor:
        """(N, R, K): ``logits`` of all levels, put together when first asked for."""
        with torch.enable_grad():
            return torch.cat([*self.logits], dim=1)

    @cached_property
    def all_distributions(self) -> Tensor:
        """(N, R, 4, bins): ``distribution`` of all levels, as ``all_logits``."""
        assert self.distribution is not None
        with torch.enable_grad():
            return torch.cat([*self.distribution], dim=1)

    @cached_property
    def all_boxes(self) -> Tensor:
        """(N, R, 4), decoded when first asked for. They are not clipped to the image."""
        with torch.enable_grad():
            deltas = torch.cat([*self.deltas], dim=1)
            return self.decode(deltas, self.all_priors.expand_as(deltas))

    @cached_property
    def all_priors(self) -> Tensor:
        """(R, 4)."""
        return torch.cat(self.priors)

    @property
    def cells(self) -> list[Tensor]:
        """L x (Hl*Wl, 4): the first prior of each location."""
        return [priors[:: self.num_anchors] for priors in self.priors]

    @cached_property
    def boxes(self) -> list[Tensor]:
        """L x (N, Hl*Wl*A, 4): ``all_boxes`` level by level."""
        with torch.enable_grad():
            return list(self.all_boxes.split(self.num_predictions, dim=1))

    @property
    def num_classes(self) -> int:
        """K."""
        return self.logits[0].shape[-1]

    @property
    def num_predictions(self) -> list[int]:
        """L numbers Hl*Wl*A, whose sum is R."""
        return [logits.shape[1] for logits in self.logits]


@dataclass
class Targets:
    """What the student's assigner makes of the ground truth.

    Attributes:
        labels: (N, R) int64; -1 is ignored, 0..K-1 a class, K background.
        boxes: (N, R, 4), the matched ground-truth box; undefined where ``foreground`` is False.
        num_classes: K.
        normalizer: scalar, what the detector divides its class loss by.
        quality: (N, R) in [0, 1], the target of the quality branch, or None.
    """

    labels: Tensor
    boxes: Tensor
    num_classes: int
    normalizer: Tensor
    quality: Tensor | None = None

    def of_images(self, images: Images) -> Targets:
        """Those of some images of the batch, see :meth:`DensePass.of_images`; what else a detector
        keeps for its own losses is left out, and ``normalizer`` stays that of the batch."""
        return Targets(
            labels=self.labels[images],
            boxes=self.boxes[images],
            num_classes=self.num_classes,
            normalizer=self.normalizer,
            quality=None if self.quality is None else self.quality[images],
        )

    @cached_property
    def foreground(self) -> Tensor:
        """(N, R) bool: predictions that are matched with an object."""
        return (self.labels >= 0) & (self.labels != self.num_classes)

    @cached_property
    def positives(self) -> Tensor:
        """(P,) int64: where ``foreground`` is True, as indices into the N * R predictions.

        A GPU is waited for when it is first asked for, and not again: what several losses read of
        positives they read by :meth:`of_positives`, and not by a mask.
        """
        return self.foreground.flatten().nonzero()[:, 0]

    def of_positives(self, predictions: Tensor) -> Tensor:
        """(P, ...) of (N, R, ...): those of the positives, in the order of ``foreground``."""
        return predictions.flatten(0, 1).index_select(0, self.positives)

    @cached_property
    def valid(self) -> Tensor:
        """(N, R) bool: predictions that take part in the class loss (not ignored)."""
        return self.labels >= 0

    def positives_on_level(self, num_predictions: list[int]) -> Tensor:
        """(R,) int64: how many positives this batch has on the level of each prediction."""
        return sums_of_levels(self.foreground, num_predictions)

    def level_has_foreground(self, num_predictions: list[int]) -> Tensor:
        """(R,) bool: whether the level of each prediction has a positive in this batch."""
        return self.positives_on_level(num_predictions) > 0


def sums_of_levels(values: Tensor, sizes: list[int]) -> Tensor:
    """(R,): at each of the R places, the sum over all images and places of its level, in this batch
    or as :func:`over_iteration` has it.

    Args:
        values: (N, R).
        sizes: L numbers of places, whose sum is R.
    """
    sums = [level.sum() for level in values.split(sizes, dim=1)]
    if is_over_iterations():
        sums = [*over_iteration(torch.stack(sums))]
    return torch.cat(
        [of_level.expand(size) for of_level, size in zip_equal(sums=sums, sizes=sizes)]
    )
