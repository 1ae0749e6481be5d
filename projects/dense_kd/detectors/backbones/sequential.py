"""A sequence of layers, as torchvision's classifiers have it, as a backbone of detectors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import Backbone
from torch import Tensor, nn

from ...lengths import check_equal_lengths

STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}
"""{output: its stride}, named like those of detectron2's ResNet."""


def check_stages(out_features: Sequence[str], freeze_at: int) -> None:
    """Raise ValueError unless there are such outputs of :data:`STRIDES` and stages to freeze."""
    if not out_features or not set(out_features) <= set(STRIDES):
        raise ValueError(f"out_features={out_features}: expected one or more of {list(STRIDES)}")
    if freeze_at not in range(6):
        raise ValueError(
            f"freeze_at={freeze_at!r}: expected 0 (nothing), 1 (the stem), or up to 5 (the "
            "stem and all four stages)"
        )


class SequentialBackbone(Backbone):
    """A backbone whose stem and stages are consecutive layers of ``features``.

    Layers after the last output are left out: nothing would train them, which
    DistributedDataParallel refuses.
    """

    features: nn.Sequential

    def __init__(
        self,
        features: nn.Sequential,
        *,
        stem_end: int,
        stage_ends: Sequence[int],
        channels: Sequence[int],
        out_features: Iterable[str],
        freeze_at: int,
    ):
        """
        Args:
            features: all layers.
            stem_end: how many of them are the stem.
            stage_ends: where res2, res3, res4 and res5 end: the index after their last layer.
            channels: of these four.
            out_features: which of them are outputs.
            freeze_at: as for detectron2's ResNet: 0 freezes nothing, 1 the stem, 2 the stem and
                res2, ..., 5 everything. Frozen parameters are not trained, and frozen batch norms
                become FrozenBN.

        Raises:
            ValueError: ``out_features`` or ``freeze_at`` is none of these.
        """
        super().__init__()
        self._out_features = list(out_features)
        check_stages(self._out_features, freeze_at)
        check_equal_lengths(outputs=STRIDES, stage_ends=stage_ends, channels=channels)
        self._output_at = {
            end: name for name, end in zip(STRIDES, stage_ends) if name in self._out_features
        }
        self._out_feature_channels = dict(zip(STRIDES, channels))
        self._out_feature_strides = dict(STRIDES)
        self.features = cast(nn.Sequential, features[: max(self._output_at)])
        num_frozen = [0, stem_end, *stage_ends][freeze_at]
        self._num_frozen = min(num_frozen, len(self.features))
        for layer in self._frozen_layers():
            layer.requires_grad_(False)
            FrozenBatchNorm2d.convert_frozen_batchnorm(layer)

    def _frozen_layers(self) -> list[nn.Module]:
        return list(self.features)[: self._num_frozen]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """
        Args:
            images: (N, 3, H, W), normalised.

        Returns:
            {name: (N, C, ceil(H / stride), ceil(W / stride))} of ``out_features``.
        """
        outputs = {}
        x = images
        for end, layer in enumerate(self.features, start=1):
            x = layer(x)
            name = self._output_at.get(end)
            if name:
                outputs[name] = self._output(name, x)
        return outputs

    def _output(self, name: str, x: Tensor) -> Tensor:
        """The output ``name``, (N, C, Hl, Wl), from the last layer of its stage."""
        return x
