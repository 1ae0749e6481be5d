"""Random weights that cost what trained ones cost.

Freshly built, a deep network with frozen norms doubles its variance in every block, and a head
gives all scores below the threshold of detections: float16 would overflow, and an evaluation would
have nothing to suppress.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from ..detectors import DenseDetector
from .batches import synthetic_batch

_SIDE = 256  # of the image that weights are scaled by; on smaller ones its borders count too much
_SPREAD_OF_SCORES = 0.6  # of class logits: some thousand of COCO's size are above 0.05
_NOISE_OF_PRIORS = 0.01  # of class biases, which are equal in a head that has not learnt


@torch.no_grad()
def settle(model: DenseDetector) -> None:
    """Scale each convolution and linear layer, so that what it gives first has deviation 1.

    The class logits have a deviation of 0.6 around their prior. Data-dependent initialisation as
    in Krähenbühl et al., ICLR 2016, on an image of noise.

    Args:
        model: a detector on any device; its mode stays.
    """
    seen: set[nn.Module] = set()

    def scale(layer: nn.Module, inputs: tuple[Any, ...], found: Any) -> Any:
        if layer in seen or not isinstance(found, torch.Tensor):
            return found
        seen.add(layer)
        deviation = float(found.float().std())
        if not math.isfinite(deviation) or deviation == 0:
            return found
        wanted = _SPREAD_OF_SCORES if layer is model.head.cls_score else 1.0
        layer.weight.mul_(wanted / deviation)  # type: ignore[operator]
        return layer.forward(*inputs)

    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    handles = [layer.register_forward_hook(scale) for layer in layers]
    training = model.training
    channels = model.image_input.num_channels
    batch = synthetic_batch(1, (_SIDE, _SIDE), 0, model.num_classes, channels)
    try:
        model.eval().run(model.preprocess_image(batch))
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    bias = model.head.cls_score.bias
    if bias is not None:
        generator = torch.Generator().manual_seed(0)
        bias.add_(_NOISE_OF_PRIORS * torch.randn(bias.shape, generator=generator).to(bias.device))
