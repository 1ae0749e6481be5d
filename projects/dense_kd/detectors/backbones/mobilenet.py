"""MobileNetV2."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from numbers import Real

import torchvision
from detectron2.layers import get_norm
from torch import nn

from .sequential import STRIDES, SequentialBackbone


class MobileNetV2(SequentialBackbone):
    """The layers before the classifier of "MobileNetV2: Inverted Residuals and Linear Bottlenecks"
    (Sandler et al., CVPR 2018, Table 2), by torchvision and with its names: ``features.*``.

    The outputs are the last maps of their strides: res2, res3 and res4 have 24, 32 and 96 channels,
    res5 has 1280 or 320. What ``freeze_at`` calls the stem is all that has stride 2: the first
    convolution and the first block, with 16 channels.
    """

    def __init__(
        self,
        *,
        width_mult: float = 1.0,
        last_conv: bool = True,
        negative_slope: float | None = None,
        norm: str | Callable[[int], nn.Module] = "BN",
        freeze_at: int = 0,
        out_features: Iterable[str] = tuple(STRIDES),
    ):
        """
        Args:
            width_mult: factor on all numbers of channels (which are then rounded to multiples of
                8), except that the last convolution keeps at least its 1280.
            last_conv: whether res5 comes after the last 1x1 convolution, with 1280 channels, as in
                mmdetection; else it is the last block, with 320, and that layer is left out.
            negative_slope: of a LeakyReLU in the place of each ReLU6, at least 0 and below 1.
            norm: of all convolutions, see :mod:`.batch_norm`.
            freeze_at: how many stages are fixed, see :class:`SequentialBackbone`.
            out_features: names of the outputs.

        Raises:
            ValueError: no ``norm`` is given: the convolutions have no bias; or another slope.
        """
        if not norm:
            raise ValueError(
                f"norm={norm!r}: MobileNetV2's convolutions have no bias and need a norm; "
                'name one that detectron2 knows ("FrozenBN", "BN", "SyncBN") or give a function'
            )
        model = torchvision.models.MobileNetV2(
            num_classes=1,  # the classifier is not used
            width_mult=width_mult,
            norm_layer=partial(get_norm, norm),
        )
        if negative_slope is not None:
            if not isinstance(negative_slope, Real) or not 0 <= negative_slope < 1:
                raise ValueError(
                    f"negative_slope={negative_slope!r}: expected a number of at least 0 and below "
                    "1, or None for ReLU6"
                )
            _replace_activations(model.features, negative_slope)
        stage_ends = [4, 7, 14, 18]
        channels = [model.features[end - 1].out_channels for end in stage_ends]
        if last_conv:
            stage_ends[-1], channels[-1] = 19, model.last_channel
        super().__init__(
            model.features,
            stem_end=2,
            stage_ends=stage_ends,
            channels=channels,
            out_features=out_features,
            freeze_at=freeze_at,
        )


def _replace_activations(features: nn.Sequential, negative_slope: float) -> None:
    for parent in list(features.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.ReLU6):
                parent.add_module(name, nn.LeakyReLU(negative_slope, inplace=True))
