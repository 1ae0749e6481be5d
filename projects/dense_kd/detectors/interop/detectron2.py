"""Turn the models of detectron2's own configs into ours."""

from __future__ import annotations

import copy
from typing import Any

from detectron2.modeling.meta_arch import RetinaNet as Detectron2RetinaNet
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead as Detectron2RetinaNetHead
from detectron2.utils.registry import locate
from omegaconf import DictConfig

from ... import compat
from ..base.heads import TowerHead
from ..boxes.coders import DistanceCoder
from ..fcos import FCOS, FCOSHead
from ..retinanet import RetinaNet

_COUNTERPARTS = {Detectron2RetinaNet: RetinaNet, Detectron2RetinaNetHead: TowerHead}
if compat.HAS_DETECTRON2_FCOS:
    _COUNTERPARTS[compat.Detectron2FCOS] = FCOS
    _COUNTERPARTS[compat.Detectron2FCOSHead] = FCOSHead
    _COUNTERPARTS[compat.Box2BoxTransformLinear] = DistanceCoder


def from_detectron2(model: DictConfig) -> DictConfig:
    """The LazyConfig of our detector for the LazyConfig of a stock RetinaNet or FCOS.

    Everything else of the config stays as it is, and checkpoints of either load into the other::

        teacher = from_detectron2(model_zoo.get_config("COCO-Detection/fcos_R_50_FPN_1x.py").model)

    Args:
        model: ``L(RetinaNet)(...)`` or ``L(FCOS)(...)`` with the classes of
            ``detectron2.modeling.meta_arch``. It is not changed.

    Returns:
        a copy with the targets replaced; a model that is ours already is copied only.

    Raises:
        TypeError: the model, its head or its box transform is a class we have no counterpart for.
    """
    model = copy.deepcopy(model)
    model._target_ = _counterpart(model, "model", (RetinaNet, FCOS))
    model.head._target_ = _counterpart(model.head, "model.head", (TowerHead, FCOSHead))
    levels = model.get("head_in_features")
    if levels is not None and len(model.head.input_shape) == 1:
        # detectron2 0.5 gives its head the shape of one level for all.
        model.head.input_shape = list(model.head.input_shape) * len(levels)
    transform = model.get("box2box_transform")
    if model._target_ is FCOS and transform is not None:
        transform._target_ = _counterpart(transform, "model.box2box_transform", (DistanceCoder,))
    return model


def _counterpart(config: DictConfig, place: str, ours: tuple[type, ...]) -> Any:
    target = config.get("_target_") if isinstance(config, DictConfig) else None
    if isinstance(target, str):
        target = locate(target)
    if target in ours:
        return target
    counterpart = _COUNTERPARTS.get(target)
    if counterpart not in ours:
        expected = [f"{theirs.__module__}.{theirs.__name__}" for theirs in _COUNTERPARTS]
        found = type(config) if target is None else target
        raise TypeError(
            f"{place} is {found!r}; expected a LazyConfig of one of {', '.join(expected)}. "
            "Build a subclass with the matching class of dense_kd.detectors instead."
        )
    return counterpart
