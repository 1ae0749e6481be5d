"""What a described detector may be built of: {name: class or function}.

No name of a file is imported or looked up anywhere but in this table. Only what makes a part of a
detector, or resizes its image, may be added: nothing that reads a file, has side effects, or calls
what it is given by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from detectron2.data import transforms
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.backbone import fpn, resnet
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.meta_arch import retinanet
from torch import nn

from .. import compat, detectors
from ..checkpoint import CheckpointError

Target = Callable[..., Any]

# TimmBackbone takes names of timm's own networks alone, none of a hub or a folder, and no weights.
_DETECTORS = (
    "ATSS", "ATSSAssigner", "ATSSHead", "AutoAssign", "AutoAssignHead", "DDOD", "DDODAssigner",
    "DDODHead", "DeformConv2d", "DeltaCoder", "DistanceCoder", "FCOS", "FCOSAssigner", "FCOSHead",
    "FrozenStatisticsBatchNorm", "GFL", "GFLHead", "LastLevelP6P7OptionalReLU", "MaxIoUAssigner",
    "MobileNetV2", "QualityHead", "RetinaNet", "SwinTransformer", "TimmBackbone",
    "TorchvisionAnchorGenerator", "TowerHead", "frozen_batch_norm",
)  # fmt: skip

_DETECTRON2: dict[str, tuple[Any, ...]] = {
    "data.transforms": (transforms.Resize, transforms.ResizeShortestEdge),
    "layers": (ShapeSpec,),
    "modeling.anchor_generator": (DefaultAnchorGenerator,),
    "modeling.backbone.fpn": (fpn.FPN, fpn.LastLevelMaxPool, fpn.LastLevelP6P7),
    "modeling.backbone.resnet": (
        resnet.BasicBlock, resnet.BasicStem, resnet.BottleneckBlock, resnet.DeformBottleneckBlock,
        resnet.ResNet, resnet.ResNet.make_stage,
    ),
    "modeling.box_regression": (Box2BoxTransform, compat.Box2BoxTransformLinear),
    "modeling.matcher": (Matcher,),
    "modeling.meta_arch.fcos": (compat.Detectron2FCOS, compat.Detectron2FCOSHead),
    "modeling.meta_arch.retinanet": (retinanet.RetinaNet, retinanet.RetinaNetHead),
}  # fmt: skip


def _torch_layers() -> dict[str, Target]:
    return {
        f"torch.nn.{name}": layer
        for name, layer in vars(nn).items()
        if isinstance(layer, type)
        and issubclass(layer, nn.Module)
        and layer.__module__.startswith("torch.nn.modules.")
    }


NAMED = "dense_kd.description.named"


def named(name: str) -> Target:
    """The class or function itself, where a detector takes one as an argument.

    As in ``block_class``; a described call would stand for what it makes.

    Args:
        name: one of :data:`ALLOWED`.

    Raises:
        CheckpointError: it is none of them.
    """
    return allowed(name)


ALLOWED: dict[str, Target] = {
    NAMED: named,
    **{f"dense_kd.detectors.{name}": getattr(detectors, name) for name in _DETECTORS},
    **{
        f"detectron2.{module}.{target.__qualname__}": target
        for module, targets in _DETECTRON2.items()
        for target in targets
        if target is not None  # of a later detectron2
    },
    **_torch_layers(),
}
"""{name: what it stands for}."""

_NAMES = {target: name for name, target in ALLOWED.items()}


def name_of(target: Target) -> str:
    """The name of a class or function in :data:`ALLOWED`, or else where it is defined."""
    if target in _NAMES:
        return _NAMES[target]
    name = getattr(target, "__qualname__", type(target).__qualname__)
    return f"{getattr(target, '__module__', None) or 'a config file'}.{name}"


def names_of(targets: Iterable[Target]) -> dict[str, Target]:
    """{name: target}, to be allowed in addition."""
    return {name_of(target): target for target in targets}


def allowed(name: Any, more: dict[str, Target] | None = None) -> Target:
    """What ``name`` stands for.

    Args:
        name: of a file.
        more: what is allowed in addition, see :func:`names_of`.

    Raises:
        CheckpointError: it is no text, or stands for nothing that is allowed.
    """
    for table in (ALLOWED, more or {}):
        if isinstance(name, str) and name in table:
            return table[name]
    raise CheckpointError(
        f"it is built with {str(name)[:200]!r}, which is none of the classes that a file may name "
        "(those of dense_kd.detectors, their parts in detectron2, the layers of torch.nn). Allow "
        "one of your own (allow= of the Predictor), or give the config of the run (config=)"
    )
