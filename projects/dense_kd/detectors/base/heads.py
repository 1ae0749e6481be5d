"""The head of a dense detector: two towers of blocks, then prediction convolutions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from torch import Tensor, nn

from ...lengths import check_equal_lengths
from ...outputs import Tap
from .options import check_options

BRANCHES = ("cls", "bbox")
"""The two towers; a :data:`Tap` names one of them."""

PRE_RELU = "_pre_relu"
"""Appended to a branch, it names the output of a block before its ReLU."""


@dataclass
class HeadOutputs:
    """Maps as the prediction convolutions give them, one per level.

    Attributes:
        logits: L x (N, A*K, Hl, Wl).
        deltas: L x (N, A*4, Hl, Wl), after the per-level scale where the head has one.
            Empty for a head that predicts distributions.
        quality: L x (N, A, Hl, Wl), or empty for a head without a quality branch.
        distribution: L x (N, A*4*bins, Hl, Wl), logits over the distances to the four sides, after
            the per-level scale; or empty.
    """

    logits: list[Tensor] = field(default_factory=list)
    deltas: list[Tensor] = field(default_factory=list)
    quality: list[Tensor] = field(default_factory=list)
    distribution: list[Tensor] = field(default_factory=list)


@dataclass
class Maps:
    """All that backbone and head make of a batch, before it is arranged by predictions.

    Attributes:
        features: L x (N, C, Hl, Wl), the input of the head.
        outputs: of the head; None if no predictions were made.
        taps: {(branch, depth): L x (N, C, Hl, Wl)}.
    """

    features: list[Tensor]
    outputs: HeadOutputs | None
    taps: dict[Tap, list[Tensor]]


class Scale(nn.Module):
    """A learnable factor, one per level."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        """``x``, of any shape, times the factor."""
        return x * self.scale


class TowerHead(RetinaNetHead):
    """detectron2's ``RetinaNetHead`` (same parameters, same names) that can be entered halfway.

    A tower is a sequence of blocks C1..Cn of convolution, norm (if any) and ReLU.
    ``tap (branch, i)`` is the output of block Ci of the tower ``branch``, after its ReLU;
    ``(branch, 0)`` is the feature of the pyramid, and ``("cls_pre_relu", i)`` or
    ``("bbox_pre_relu", i)`` the output of Ci before its ReLU. :meth:`run` hands out taps,
    :meth:`resume` takes those after the ReLU and goes on from there: the pair is all that CrossKD
    needs.
    """

    quality_kind: str | None = None

    def __init__(
        self,
        *,
        input_shape: list[ShapeSpec],
        num_classes: int,
        num_anchors: int,
        conv_dims: list[int],
        norm: str | Callable[[int], nn.Module] = "",
        prior_prob: float = 0.01,
        conv_bias: bool = True,
        level_scales: bool = False,
        reg_max: int | None = None,
    ):
        """
        Args:
            input_shape: one shape per level; all have the same number of channels.
            num_classes: K.
            num_anchors: A, anchors per location.
            conv_dims: output channels of the blocks C1..Cn.
            norm: norm of the blocks, as for ``detectron2.layers.get_norm``.
            prior_prob: score of every class after initialisation.
            conv_bias: whether convolutions followed by a norm have a bias, as detectron2's do.
            level_scales: multiply the box prediction of each level by a learnable scalar.
            reg_max: predict a distribution over the distances 0, 1, ..., reg_max to each side of
                a box, as GFL does, instead of four numbers.
        """
        check_options(
            num_classes=num_classes,
            num_anchors=num_anchors,
            conv_dims=conv_dims,
            prior_prob=prior_prob,
            conv_bias=conv_bias,
            level_scales=level_scales,
            reg_max=reg_max,
        )
        if not input_shape:
            raise ValueError("input_shape is empty: expected the shape of one level or more")
        super().__init__(
            input_shape=input_shape,
            num_classes=num_classes,
            num_anchors=num_anchors,
            conv_dims=conv_dims,
            norm=norm,
            prior_prob=prior_prob,
        )
        self.num_classes = num_classes
        self.num_anchors = num_anchors
        self.num_levels = len(input_shape)
        self.tower_channels = [input_shape[0].channels, *conv_dims]  # of depth 0..n
        if norm and not conv_bias:
            for conv in self._tower_convs():
                conv.register_parameter("bias", None)
        self.scales = nn.ModuleList(Scale() for _ in input_shape) if level_scales else None
        self.reg_max = reg_max
        if reg_max is not None:
            channels = num_anchors * 4 * (reg_max + 1)
            self.bbox_pred = nn.Conv2d(conv_dims[-1], channels, kernel_size=3, padding=1)
            _initialize(self.bbox_pred)

    @property
    def depth(self) -> int:
        """n, the number of blocks in a tower."""
        return len(self.tower_channels) - 1

    def _tower_convs(self) -> Iterable[nn.Conv2d]:
        for tower in (self.cls_subnet, self.bbox_subnet):
            yield from (layer for layer in tower if isinstance(layer, nn.Conv2d))

    def _blocks(self, branch: str) -> list[nn.Sequential]:
        tower = self.cls_subnet if branch == "cls" else self.bbox_subnet
        size = len(tower) // self.depth
        return [tower[i : i + size] for i in range(0, len(tower), size)]

    def check_tap(self, tap: Tap) -> None:
        """Raise ValueError unless ``tap`` is (branch, depth) of this head."""
        branch, depth = tap
        before_relu = branch.endswith(PRE_RELU)
        known = branch.removesuffix(PRE_RELU) in BRANCHES
        if not known or not before_relu <= depth <= self.depth:
            raise ValueError(
                f"tap {tap!r}: {type(self).__name__} has the branches {BRANCHES} and the depths "
                f"0 (input) to {self.depth} (last block), with {PRE_RELU!r} after the branch 1 to "
                f"{self.depth}; ask for one of these"
            )

    def predict(self, level: int, cls_feature: Tensor, bbox_feature: Tensor) -> dict[str, Tensor]:
        """The prediction convolutions on the towers' outputs of one level.

        Args:
            level: index of the level.
            cls_feature, bbox_feature: (N, C, Hl, Wl).

        Returns:
            the maps of one level, by the attribute names of :class:`HeadOutputs`.
        """
        deltas = self.bbox_pred(bbox_feature)
        if self.scales is not None:
            deltas = self.scales[level](deltas)
        name = "deltas" if self.reg_max is None else "distribution"
        return {"logits": self.cls_score(cls_feature), name: deltas}

    def run(
        self, features: list[Tensor], taps: Iterable[Tap] = (), *, predictions: bool = True
    ) -> tuple[HeadOutputs, dict[Tap, list[Tensor]]]:
        """Predict from the pyramid.

        Args:
            features: L x (N, C, Hl, Wl).
            taps: the tower features to hand out.
            predictions: make them; otherwise no block is run behind the last tap of its tower.

        Returns:
            the predictions, without maps if none are made, and {tap: L x (N, C, Hl, Wl)}.
        """
        taps = tuple(taps)
        for tap in taps:
            self.check_tap(tap)
        start = {branch: (features, 0) for branch in BRANCHES}
        return self._forward_towers(start, taps, predictions)

    def resume(
        self, taps: Mapping[str, list[Tensor]], depth: int | Mapping[str, int]
    ) -> HeadOutputs:
        """Predict from tower features: run the blocks after ``depth`` and the predictions.

        ``head.resume(t, i)`` on the taps t of depth i of ``head.run`` gives the same predictions.

        Args:
            taps: {"cls": L x (N, C, Hl, Wl), "bbox": the same}.
            depth: of the taps; one number, or one per branch.
        """
        if set(taps) != set(BRANCHES):
            raise ValueError(f"resume needs a tap of each branch {BRANCHES}, got {sorted(taps)}")
        depths = {b: depth if isinstance(depth, int) else depth[b] for b in BRANCHES}
        for tap in depths.items():
            self.check_tap(tap)
        return self._forward_towers({b: (taps[b], depths[b]) for b in BRANCHES}, ())[0]

    def _forward_towers(
        self,
        start: dict[str, tuple[list[Tensor], int]],
        taps: tuple[Tap, ...],
        predictions: bool = True,
    ) -> tuple[HeadOutputs, dict[Tap, list[Tensor]]]:
        maps = {branch: features for branch, (features, _) in start.items()}
        check_equal_lengths(**maps, levels_of_the_head=range(self.num_levels))
        blocks = {branch: self._blocks(branch) for branch in BRANCHES}
        last = {b: self.depth if predictions else _deepest(taps, b) for b in BRANCHES}
        outputs = HeadOutputs()
        collected: dict[Tap, list[Tensor]] = {tap: [] for tap in taps}
        for level in range(self.num_levels):
            towers = {}
            for branch in BRANCHES:
                features, depth = start[branch]
                feature = features[level]
                for done in range(depth, last[branch] + 1):
                    if (branch, done) in collected:
                        collected[branch, done].append(feature)
                    if done < last[branch]:
                        *layers, relu = blocks[branch][done]
                        for layer in layers:
                            feature = layer(feature)
                        if (branch + PRE_RELU, done + 1) in collected:
                            collected[branch + PRE_RELU, done + 1].append(feature)
                        feature = relu(feature)
                towers[branch] = feature
            if predictions:
                predicted = self.predict(level, towers["cls"], towers["bbox"])
                for name, prediction in predicted.items():
                    getattr(outputs, name).append(prediction)
        return outputs, collected

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], ...]:
        """The maps of :meth:`run`, in the order of detectron2's heads."""
        outputs, _ = self.run(features)
        maps = (outputs.logits, outputs.deltas, outputs.distribution, outputs.quality)
        return tuple(m for m in maps if m)


QUALITY_BRANCHES = {"centerness": "ctrness", "iou": "iou_pred", "objectness": "ctrness"}
"""What a quality branch predicts, and the name of its convolution."""


class QualityHead(TowerHead):
    """Towers with one prediction per location and a branch for how good its box is."""

    def __init__(
        self,
        *,
        conv_dims: list[int],
        quality: str = "centerness",
        quality_on: str = "bbox",
        **tower: Any,
    ):
        """
        Args:
            conv_dims: see :class:`TowerHead`, as the further arguments ``tower``.
            quality: what the branch predicts, "centerness", "iou" or "objectness".
            quality_on: the tower that it is predicted from, "cls" or "bbox".
        """
        super().__init__(num_anchors=1, conv_dims=conv_dims, **tower)
        if quality not in QUALITY_BRANCHES:
            raise ValueError(f"quality={quality!r}: expected one of {tuple(QUALITY_BRANCHES)}")
        if quality_on not in BRANCHES:
            raise ValueError(f"quality_on={quality_on!r}: expected one of {BRANCHES}")
        self.quality_kind = quality
        self._quality_branch = QUALITY_BRANCHES[quality]
        self.quality_on = quality_on
        branch = nn.Conv2d(conv_dims[-1], 1, kernel_size=3, padding=1)
        _initialize(branch)
        self.add_module(self._quality_branch, branch)

    def predict(self, level: int, cls_feature: Tensor, bbox_feature: Tensor) -> dict[str, Tensor]:
        """As :meth:`TowerHead.predict`, with the map of the quality branch."""
        maps = super().predict(level, cls_feature, bbox_feature)
        branch = getattr(self, self._quality_branch)
        maps["quality"] = branch(cls_feature if self.quality_on == "cls" else bbox_feature)
        return maps


def _deepest(taps: Iterable[Tap], branch: str) -> int:
    """The number of blocks of a tower that its taps need; -1 if it has none."""
    return max((depth for b, depth in taps if b.removesuffix(PRE_RELU) == branch), default=-1)


def _initialize(conv: nn.Conv2d) -> None:
    """As detectron2 does with prediction convolutions."""
    weight, bias = conv.parameters()
    nn.init.normal_(weight, std=0.01)
    nn.init.zeros_(bias)
