"""A student that learns while it computes as if in 8-bit integers."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.99
"""Of the moving averages of the ranges of maps."""

_LOWEST, _HIGHEST = 0, 255  # of a map
_LARGEST = 127  # of a weight, on both sides of 0


class FakeQuantization(nn.Module):
    """Rounds what the convolutions of a detector take to 8-bit integers, and back.

    As ``dense-kd export --int8`` will: weights have a scale for each output channel, maps one each,
    from a moving average of their smallest and largest number in training (where nothing was seen
    yet, the map's own); convolutions of a single map stay as they are. Gradients go through as if
    nothing was rounded, where nothing was clipped (Jacob et al., "Quantization and Training of
    Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018, section 3).

    It is a child of the detector and adds nothing to its state dict: the weights that are saved are
    those before rounding. The ranges are ``training_buffers``, which a resumed run goes on with. In
    several processes each has the ranges of its own images.
    """

    training_buffers = ("lowest", "highest")
    training_buffers_move_in = "batch"
    """Of accumulated batches each has its range, where normalisers are of all of them."""

    lowest: Tensor
    highest: Tensor

    def __init__(self, detector: nn.Module):
        """
        Args:
            detector: whose convolutions are hooked. It gets this as ``fake_quantization``.

        Raises:
            ValueError: it has one already.
        """
        super().__init__()
        if any(isinstance(module, FakeQuantization) for module in detector.modules()):
            raise ValueError(f"the {type(detector).__name__} is quantised already")
        layers = [
            module
            for module in detector.modules()
            if isinstance(module, nn.Conv2d) and module.out_channels > 1
        ]
        device = next(detector.parameters()).device
        for name, value in (("lowest", 1.0), ("highest", -1.0)):  # no range: nothing was seen
            start = torch.full((len(layers),), value, device=device)
            self.register_buffer(name, start, persistent=False)
        for index, layer in enumerate(layers):
            layer.register_forward_pre_hook(functools.partial(self._before, index))
            layer.register_forward_hook(_after, always_call=True)
        detector.add_module("fake_quantization", self)

    def _before(self, index: int, layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        weight: Any = layer.weight
        layer.__dict__["_before_rounding"] = weight
        # In the place of the parameter, whose name and order in the state dict stay.
        layer._parameters["weight"] = rounded_weight(weight)  # type: ignore[assignment]
        return (self._rounded_map(index, inputs[0]), *inputs[1:])

    def _rounded_map(self, index: int, x: Tensor) -> Tensor:
        lowest, highest = self._range_of(index, x.detach())
        # 0 is one of the numbers, as padding is.
        low = lowest.clamp(max=0)
        scale = (highest.clamp(min=0) - low) / (_HIGHEST - _LOWEST)
        scale = scale.clamp(min=torch.finfo(torch.float32).tiny)
        zero = (-low / scale).round().clamp(_LOWEST, _HIGHEST).to(torch.int32)
        return torch.fake_quantize_per_tensor_affine(x.float(), scale, zero, _LOWEST, _HIGHEST).to(
            x.dtype
        )

    def _range_of(self, index: int, x: Tensor) -> list[Tensor]:
        before = [self.lowest[index], self.highest[index]]
        # In an evaluation, and in a pass that only counts, ranges stay.
        learning = self.training and torch.is_grad_enabled()
        known = before[0] <= before[1]
        with torch.no_grad():
            found = [bound.to(before[0]) for bound in x.aminmax()]
            after = [
                torch.lerp(*bounds, MOMENTUM) if learning else bounds[1]
                for bounds in zip(found, before)
            ]
            ranges = [torch.where(known, new, first) for new, first in zip(after, found)]
            if learning:
                self.lowest[index], self.highest[index] = ranges
        return ranges


def rounded_weight(weight: Tensor) -> Tensor:
    """(O, ...) rounded to one of 255 multiples of a scale of each output channel.

    Args:
        weight: (O, ...).
    """
    scale = weight.detach().float().flatten(1).abs().amax(dim=1) / _LARGEST  # (O,)
    scale = scale.clamp(min=torch.finfo(torch.float32).tiny)
    zeros = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(
        weight.float(), scale, zeros, 0, -_LARGEST, _LARGEST
    ).to(weight.dtype)


def _after(layer: nn.Module, inputs: Any, output: Any) -> None:
    """Also where the layer has failed."""
    weight = layer.__dict__.pop("_before_rounding", None)
    if weight is not None:
        layer._parameters["weight"] = weight
