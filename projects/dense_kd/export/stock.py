"""Our RetinaNet and FCOS as detectron2's own: their LazyConfig, which needs nothing of ours."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from detectron2.config import LazyConfig, instantiate
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.meta_arch.retinanet import RetinaNet, RetinaNetHead
from torch import Tensor, nn

from .. import compat
from ..checkpoint import write_text
from ..description.allowed import NAMED, allowed
from ..description.building import TARGET
from .errors import ExportError

_STOCK = {
    "dense_kd.detectors.RetinaNet": RetinaNet,
    "dense_kd.detectors.TowerHead": RetinaNetHead,
    "dense_kd.detectors.DeltaCoder": Box2BoxTransform,
}
if compat.HAS_DETECTRON2_FCOS:
    _STOCK.update(
        {
            "dense_kd.detectors.FCOS": compat.Detectron2FCOS,
            "dense_kd.detectors.FCOSHead": compat.Detectron2FCOSHead,
            "dense_kd.detectors.DistanceCoder": compat.Box2BoxTransformLinear,
        }
    )

_MATCHER = {
    TARGET: "detectron2.modeling.matcher.Matcher",
    "thresholds": [0.4, 0.5],
    "labels": [0, -1, 1],
    "allow_low_quality_matches": True,
}

_INDENT = "    "


def write_stock_config(model: Mapping[str, Any], levels: list[str], path: str) -> None:
    """Write a LazyConfig with ``model``, a detector of detectron2's own.

    Options that detectron2 does not have are left out: whether it does the same without them is
    for a comparison to say.

    Args:
        model: the described call of a RetinaNet or an FCOS of ours.
        levels: names of the maps that its head sees.
        path: of a file, .py.

    Raises:
        ExportError: detectron2 has no such detector, or a part of it is none of its own.
    """
    root = str(model.get(TARGET)).rpartition(".")[2]
    if root not in ("RetinaNet", "FCOS"):
        raise ExportError(
            f"detectron2 has no {root} of its own; it has RetinaNet and, in its main branch, FCOS"
        )
    if root == "FCOS" and not compat.HAS_DETECTRON2_FCOS:
        raise ExportError(
            "detectron2 0.5 has no FCOS, so what is written could not be tried; install its main "
            "branch"
        )
    model = {**model, "head_in_features": levels}
    if root == "RetinaNet":  # which is asked for, but takes part in training alone
        model.setdefault("anchor_matcher", _MATCHER)
    modules: set[tuple[str, str]] = set()
    body = _written(model, modules, 0)
    lines = ['"""Written by `dense-kd export`: a detector of detectron2 alone."""', ""]
    lines += ["from detectron2.config import LazyCall as L"]
    lines += [f"from {module} import {name}" for module, name in sorted(modules)]
    write_text(path, "\n".join([*lines, "", f"model = {body}", ""]))


def stock_detector(path: str, weights: Mapping[str, Tensor]) -> nn.Module:
    """The detector of a config of :func:`write_stock_config` with weights, in eval mode.

    Raises:
        ExportError: they do not fit.
    """
    model = instantiate(LazyConfig.load(path).model)
    try:
        model.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise ExportError(
            f"the weights do not fit detectron2's {type(model).__name__}: {error}"
        ) from error
    return model.eval()


def _written(value: Any, modules: set[tuple[str, str]], depth: int) -> str:
    """Python that makes the same; ``modules`` gets the (module, name) that it needs."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_written(item, modules, depth) for item in value)}]"
    if not isinstance(value, Mapping):
        return repr(value)
    if value.get(TARGET) == NAMED:
        return _imported(_stock(value["name"]), modules)
    target = _stock(value.get(TARGET))
    arguments = {name: item for name, item in value.items() if name != TARGET}
    if target in _STOCK.values():
        known = _parameters(target)
        arguments = {name: item for name, item in arguments.items() if name in known}
    pad = _INDENT * (depth + 1)
    lines = [f"{pad}{k}={_written(v, modules, depth + 1)},\n" for k, v in arguments.items()]
    inner = "\n" + "".join(lines) + _INDENT * depth if lines else ""
    return f"L({_imported(target, modules)})({inner})"


def _parameters(target: Any) -> set[str]:
    found: set[str] = set()
    for cls in target.__mro__:  # FCOS hands on what it does not know
        parameters = inspect.signature(cls.__init__).parameters.values()
        found |= {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    if target is Box2BoxTransform:
        found |= {"weights"}
    if target is compat.Detectron2FCOSHead:
        found -= {"num_anchors"}
    return found


def _stock(name: Any) -> Any:
    """The class or function of detectron2 or torch that a described name is there."""
    if name in _STOCK:
        return _STOCK[name]
    if isinstance(name, str) and name.startswith(("detectron2.", "torch.nn.")):
        return allowed(name)
    raise ExportError(
        f"{name} is no part of detectron2 or torch, so a detector with it needs dense_kd to run"
    )


def _imported(target: Any, modules: set[tuple[str, str]]) -> str:
    module, name = target.__module__, target.__qualname__
    modules.add((module, name.partition(".")[0]))
    return name
