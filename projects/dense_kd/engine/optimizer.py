"""Groups of parameters for an optimizer, besides detectron2's ``get_default_optimizer_params``."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def layer_bias_params(
    model: nn.Module, base_lr: float, bias_lr_factor: float, weight_decay_bias: float
) -> list[dict[str, Any]]:
    """Two groups: biases of layers, with a learning rate and decay of their own, and the rest.

    A layer is what has a weight of two dimensions or more beside its bias: a convolution or a
    linear layer, and not a norm, whose bias stays with the rest. This is mmdetection's
    ``bias_lr_mult`` and ``bias_decay_mult``; the ``bias_lr_factor`` of detectron2's function is for
    norms, too.

    Args:
        model: what is trained; parameters without gradient are in no group.
        base_lr: of the rest.
        bias_lr_factor: learning rate of the biases in units of ``base_lr``.
        weight_decay_bias: weight decay of the biases; that of the rest is the optimizer's.
    """
    of_layers = {
        module.bias
        for module in model.modules()
        if isinstance(getattr(module, "bias", None), Tensor) and _is_layer(module)
    }
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    biases = [parameter for parameter in trained if parameter in of_layers]
    rest = [parameter for parameter in trained if parameter not in of_layers]
    options = {"lr": base_lr * bias_lr_factor, "weight_decay": weight_decay_bias}
    groups = [{"params": rest, "lr": base_lr}, {"params": biases, **options}]
    return [group for group in groups if group["params"]]


def _is_layer(module: nn.Module) -> bool:
    if isinstance(module, nn.LayerNorm):  # its weight has the dimensions that it is for
        return False
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.dim() > 1
