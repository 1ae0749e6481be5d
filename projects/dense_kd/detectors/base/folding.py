"""Norms with fixed statistics become part of the convolutions before them."""

from __future__ import annotations

from collections.abc import Iterator

from detectron2.layers import FrozenBatchNorm2d
from detectron2.layers.batch_norm import NaiveSyncBatchNorm
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ..backbones.batch_norm import FrozenStatisticsBatchNorm

# These and no others that derive from them: timm's have an activation in them.
_FIXED = (
    nn.BatchNorm2d,
    nn.SyncBatchNorm,
    NaiveSyncBatchNorm,
    FrozenBatchNorm2d,
    FrozenStatisticsBatchNorm,
)


def fold_norms(model: nn.Module) -> list[str]:
    """Fold each batch norm that follows its convolution into it; returns these convolutions' names.

    Evaluation computes the same up to rounding, in fewer passes over the maps; training does not,
    and the state dict is another, so this is for a model that neither trains nor is saved.
    Folded are the norms of detectron2's ``Conv2d`` and those behind a convolution in a
    ``Sequential``; others, group norms among them, stay as they are, and so do those of which a
    head has one for each level behind one convolution ("BN" in the heads of detectron2 main).

    Args:
        model: it is changed in place, and must be in eval mode.

    Raises:
        ValueError: it is in training mode.
    """
    if any(module.training for module in model.modules()):
        raise ValueError(
            "the model is in training mode, in which norms go by the batch; expected model.eval()"
        )
    found = list(_followed_by_norm(model))
    shared = _used_twice(model, {id(conv) for conv, _, _ in found})
    folded = [entry for entry in found if id(entry[0]) not in shared]
    for conv, holder, name in folded:
        norm = getattr(holder, name)
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight,
            conv.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
        conv.weight.requires_grad_(False)
        assert conv.bias is not None
        conv.bias.requires_grad_(False)
        setattr(holder, name, None if holder is conv else nn.Identity())
    names = {id(module): name for name, module in model.named_modules()}
    return [names[id(conv)] for conv, _, _ in folded]


def _followed_by_norm(model: nn.Module) -> Iterator[tuple[nn.Conv2d, nn.Module, str]]:
    """Each convolution with the module that holds its norm, and the name that it has there."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and _is_fixed(getattr(module, "norm", None)):
            yield module, module, "norm"
        elif isinstance(module, nn.Sequential):
            children = list(module.named_children())
            for (_, first), (name, second) in zip(children, children[1:]):
                if isinstance(first, nn.Conv2d) and _is_bare(first) and _is_fixed(second):
                    yield first, module, name


def _is_bare(conv: nn.Conv2d) -> bool:
    """Whether detectron2's ``Conv2d`` does nothing after the convolution."""
    return getattr(conv, "norm", None) is None and getattr(conv, "activation", None) is None


def _is_fixed(norm: nn.Module | None) -> bool:
    return type(norm) in _FIXED and getattr(norm, "running_mean", None) is not None


def _used_twice(model: nn.Module, convs: set[int]) -> set[int]:
    """Those that several modules hold: each of them may have a norm of its own."""
    holders = [id(child) for module in model.modules() for child in module.children()]
    return {conv for conv in convs if holders.count(conv) > 1}
