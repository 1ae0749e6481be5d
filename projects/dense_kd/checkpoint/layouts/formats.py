"""Whose checkpoint a file is; its weights under our keys."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tabulate import tabulate
from torch import Tensor

from ..errors import CheckpointError
from .backbones import flatten_position_index, timm_dropped, timm_model, timm_rules
from .efficientnet import efficientnet_dropped, efficientnet_rules, is_efficientnet
from .keys import translate
from .mmdet import PREDICTIONS, convert_mmdet, is_mmdet_state, mmdet_detector, mmdet_dropped
from .timm import convert_timm_classifier, is_for_timm_backbone
from .torchvision import (
    DETECTORS,
    convert_torchvision,
    object_classes,
    torchvision_dropped,
    torchvision_model,
)
from .wrappers import find_state, select_part, strip_wrappers

GROUPS: dict[str, str | tuple[str, ...]] = {
    "backbone": "backbone.bottom_up.",
    "fpn": ("backbone.fpn_", "backbone.top_block."),
    "head": "head.",
}
"""{group of the coverage table: how its keys begin}"""

_OURS = ("backbone.bottom_up.", "backbone.fpn_", "head.cls_subnet.", "head.cls_score.")
_OUTPUT_OF_FPN = r"backbone\.(fpn_output|top_block\.p)\d\.weight"


@dataclass
class Conversion:
    """What became of the checkpoint of another project.

    Attributes:
        project: "mmdetection", "torchvision", "timm", "EfficientNet-PyTorch" or "dense_kd".
        model: the project's name of the kind of model, None if nothing but a backbone and a neck
            is known of it.
        weights: under our keys.
        predictions: our names of the head's prediction layers, empty for a backbone.
        dropped: {key, or part of the values of a key: why it is not in ``weights``}.
    """

    project: str
    model: str | None
    weights: dict[str, Tensor]
    predictions: tuple[str, ...] = ()
    dropped: dict[str, str] = field(default_factory=dict)

    def table(self) -> str:
        """Tensors and their elements per group, and what was dropped and why."""
        rows = []
        for group, begin in GROUPS.items():
            tensors = [v for k, v in self.weights.items() if k.startswith(begin)]
            rows.append((group, len(tensors), sum(v.numel() for v in tensors)))
        rows.append(("all", len(self.weights), sum(v.numel() for v in self.weights.values())))
        table = tabulate(rows, headers=("group", "tensors", "elements"), intfmt=",")
        lines = []
        for why in dict.fromkeys(self.dropped.values()):
            keys = [key for key, reason in self.dropped.items() if reason == why]
            if len(keys) > 4:
                kinds = Counter(key.rpartition(".")[2] for key in keys)
                keys = [f"{kind} x {count}" for kind, count in kinds.items()]
            lines.append(f"dropped: {', '.join(keys)} ({why})")
        return "\n".join([table, *(lines or ["dropped: nothing"])])

    def missing_in_head(self) -> list[str]:
        """Keys that its own prediction layers and towers lack, as a damaged file may.

        Each prediction layer has a weight and a bias (AutoAssign's prior a mean and a sigma), the
        two towers have the same layers, and mmdetection's heads but RetinaNet's a scale for each
        level. The backbone and the FPN are for a model to check.
        """
        if not self.predictions:
            return []
        # The tower of DDOD's classes alone has a conv_offset.
        keys = [k for k in self.weights if "_subnet." in k and "conv_offset" not in k]
        layers = {key.partition("_subnet.")[2] for key in keys}
        expected = {f"head.{branch}_subnet.{k}" for branch in ("cls", "bbox") for k in layers}
        for name in self.predictions:
            kinds = ("mean", "sigma") if name == "center_prior" else ("weight", "bias")
            expected.update(f"head.{name}.{kind}" for kind in kinds)
        if self.project == "mmdetection" and self.model != "RetinaNet":
            levels = [k for k in self.weights if re.fullmatch(_OUTPUT_OF_FPN, k)]
            expected.update(f"head.scales.{index}.scale" for index in range(len(levels)))
        return sorted(expected.difference(self.weights))


def model_state(content: Any, *, part: str | None = None, source: str) -> Mapping[str, Any] | None:
    """The state dict of the model in the content of a file, under its project's keys.

    Args:
        content: of a file, or what it has under "model".
        part: see ``select_part``; the checkpoint of a distiller of ours is that of its student.
        source: named in errors.

    Returns:
        None if the content holds no weights.

    Raises:
        CheckpointError: they are those of several models, and ``part`` does not say which.
    """
    state = find_state(content)
    if state is None:
        return None
    state = strip_wrappers(state, source)
    if part is None or is_mmdet_state(state) or not (is_ours(state) or torchvision_model(state)):
        return select_part(state, part, source)
    if torchvision_model(state):
        raise CheckpointError(
            f"{source} is a checkpoint of torchvision; expected one of a distiller to take the "
            f"{part} out of"
        )
    if part != "student":
        raise CheckpointError(
            f"{source} holds a model of dense_kd or detectron2; the checkpoint of a distiller here "
            f"is that of its student and has no {part} in it"
        )
    return state


def is_ours(state: Mapping[str, Any]) -> bool:
    """Whether a state dict has detectron2's keys of a detector with an FPN."""
    return any(key.startswith(_OURS) for key in state)


def convert(
    content: Any, *, part: str | None = None, background: bool = True, source: str
) -> Conversion | None:
    """Convert the checkpoint of another project; None if the keys are none of theirs.

    Args:
        content: of a file, or what it has under "model".
        part: see :func:`model_state`.
        background: see ``convert_torchvision``.
        source: named in errors.

    Raises:
        CheckpointError: lists the keys that are unknown.
    """
    state = model_state(content, part=part, source=source)
    return None if state is None else convert_state(state, background=background, source=source)


def convert_state(
    state: Mapping[str, Any],
    *,
    background: bool = True,
    model: Mapping[str, Tensor] | None = None,
    source: str,
) -> Conversion | None:
    """:func:`convert` for a :func:`model_state`.

    Args:
        state: see there.
        background: see there.
        model: the state dict of the detector that the weights are for, if that is known. Its
            backbone may be any network of timm, whose files have no other sign.
        source: see there.
    """
    if model is not None and is_for_timm_backbone(state, model):
        weights, left_out = convert_timm_classifier(state, model, source)
        return Conversion("timm", "a classifier", weights, dropped=left_out)
    if is_mmdet_state(state):
        weights = convert_mmdet(state, source=source)
        detector = mmdet_detector(state)
        predictions = tuple(PREDICTIONS[detector].values()) if detector else ()
        return Conversion("mmdetection", detector, weights, predictions, mmdet_dropped(state))
    if timm_model(state) is not None:
        return _convert_timm(state, source)
    if is_efficientnet(state):
        return _convert_efficientnet(state, source)
    kind = torchvision_model(state)
    if kind is None:
        return None
    weights = convert_torchvision(state, background=background, source=source)
    dropped = torchvision_dropped(state)
    if kind not in DETECTORS:
        return Conversion("torchvision", kind, weights, dropped=dropped)
    predictions = ("cls_score", "bbox_pred") + (("ctrness",) if kind == "FCOS" else ())
    dropped.update(_dropped_classes(state, weights))
    return Conversion("torchvision", kind, weights, predictions, dropped)


def _convert_timm(state: Mapping[str, Any], source: str) -> Conversion:
    model, dropped = timm_model(state), timm_dropped(state)
    known = f"Known are timm's MobileNetV2 and Swin Transformer; this one is like {model}"
    weights = translate(
        state, timm_rules(state), dropped, project="timm", known=known, source=source
    )
    flatten_position_index(weights)
    return Conversion("timm", model, weights, dropped=dropped)


def _convert_efficientnet(state: Mapping[str, Any], source: str) -> Conversion:
    dropped = efficientnet_dropped(state)
    weights = translate(
        state,
        efficientnet_rules(state),
        dropped,
        project="EfficientNet-PyTorch",
        known="Known is EfficientNet-Lite, which has no squeeze-and-excitation",
        source=source,
    )
    return Conversion("EfficientNet-PyTorch", "EfficientNet-Lite", weights, dropped=dropped)


def _dropped_classes(
    state_dict: Mapping[str, Tensor], weights: Mapping[str, Tensor]
) -> dict[str, str]:
    """What ``convert_torchvision`` left out of a class prediction, for people to read."""
    theirs = state_dict.get("head.classification_head.cls_logits.bias")
    ours = weights.get("head.cls_score.bias")
    boxes = weights.get("head.bbox_pred.bias")
    if theirs is None or ours is None or boxes is None or theirs.numel() == ours.numel():
        return {}
    num_outputs = 4 * theirs.numel() // boxes.numel()
    classes = sorted(set(range(num_outputs)).difference(object_classes(num_outputs)))
    listed = ", ".join(map(str, classes))
    return {f"class outputs {listed} of {num_outputs}": "the background and ids without a class"}
