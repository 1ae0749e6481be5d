"""Other norms in the place of the batch norms of a network that was built elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from detectron2.layers import FrozenBatchNorm2d, get_norm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_FOLLOWED_BY = ("drop", "act")
"""What timm's ``BatchNormAct2d`` does behind its norm, in this order."""


def has_batch_norms(network: nn.Module) -> bool:
    """Whether ``network`` has one, be it frozen."""
    return any(isinstance(module, (_BatchNorm, FrozenBatchNorm2d)) for module in network.modules())


def replace_batch_norms(
    network: nn.Module, norm: str | Callable[[int], nn.Module], name: str = ""
) -> None:
    """Put ``norm`` in the place of each batch norm below ``network``, but for frozen ones.

    What the old ones hold is kept: factors, biases, statistics, epsilon and momentum, their names,
    and the activation that timm's have in them.

    Args:
        network: at least a module above all that are replaced.
        norm: of :mod:`.batch_norm`.
        name: of the module of ``network`` whose batch norms are meant, which may be one itself;
            "" is all of ``network``.
    """
    for key, module in list(network.named_modules()):
        if isinstance(module, _BatchNorm) and f"{key}.".startswith(f"{name}." if name else ""):
            parent, _, child = key.rpartition(".")
            setattr(network.get_submodule(parent), child, _replaced(module, norm))


def _replaced(old: _BatchNorm, norm: str | Callable[[int], nn.Module]) -> nn.Module:
    new: Any = get_norm(norm, old.num_features)
    new.to(old.running_mean.device if old.running_mean is not None else None)
    state = new.state_dict()
    with torch.no_grad():
        for key, value in old.state_dict().items():
            if key in state:
                state[key].copy_(value)
    trained = {key: parameter.requires_grad for key, parameter in old.named_parameters()}
    for key, parameter in new.named_parameters():
        parameter.requires_grad_(trained.get(key, True))
    new.eps = old.eps
    if hasattr(new, "momentum"):
        new.momentum = old.momentum
    followed_by = [name for name in _FOLLOWED_BY if isinstance(getattr(old, name, None), nn.Module)]
    for name in followed_by:
        new.add_module(name, getattr(old, name))
    if followed_by:
        new.register_forward_hook(_follow)
    new._forward_hooks.update(old._forward_hooks)  # of networks that collect their features so
    new._forward_pre_hooks.update(old._forward_pre_hooks)
    return new.train(old.training)


def _follow(norm: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    for name in _FOLLOWED_BY:
        if hasattr(norm, name):
            output = getattr(norm, name)(output)
    return output
