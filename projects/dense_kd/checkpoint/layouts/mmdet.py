"""Read checkpoints of mmdetection's dense detectors: its keys and anchors become ours.

Known are ResNet, ResNeXt, MobileNetV2 and Swin Transformer backbones, the FPN, and the heads of
:data:`PREDICTIONS`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .backbones import (
    flatten_position_index,
    mobilenet_rules,
    reorder_merged_patches,
    swin_rules,
    unread_last_conv,
)
from .keys import Rule, reorder_anchors, resnet_rules, translate
from .wrappers import select_part

PREDICTIONS: dict[str, dict[str, str]] = {
    "RetinaNet": {"retina_cls": "cls_score", "retina_reg": "bbox_pred"},
    "GFL": {"gfl_cls": "cls_score", "gfl_reg": "bbox_pred"},
    "DDOD": {"atss_cls": "cls_score", "atss_reg": "bbox_pred", "atss_iou": "iou_pred"},
    "ATSS": {"atss_cls": "cls_score", "atss_reg": "bbox_pred", "atss_centerness": "ctrness"},
    "AutoAssign": {
        "conv_cls": "cls_score",
        "conv_reg": "bbox_pred",
        "conv_centerness": "ctrness",
        "center_prior": "center_prior",
    },
    "FCOS": {"conv_cls": "cls_score", "conv_reg": "bbox_pred", "conv_centerness": "ctrness"},
    "FCOS before mmdet 2.0": {
        "fcos_cls": "cls_score",
        "fcos_reg": "bbox_pred",
        "fcos_centerness": "ctrness",
    },
}
"""{detector: {name in its bbox_head: name in our head}} of what follows the towers.

"DDOD" is also the head of PGD's ATSS with an IoU branch.
"""

_BACKBONES = r"backbone\.(conv1|bn1|layer\d|stem\.\d|patch_embed|stages|layers)\."
_ROOTS = ("neck.", "bbox_head.")


def is_mmdet(content: Any) -> bool:
    """Whether the content of a file is a checkpoint of a detector, or distiller, of mmdetection."""
    weights = content.get("state_dict") if isinstance(content, Mapping) else None
    return isinstance(weights, Mapping) and is_mmdet_state(
        {re.sub(r"^(student|teacher|architecture)\.", "", str(key)): None for key in weights}
    )


def is_mmdet_state(state: Mapping[str, Any]) -> bool:
    """Whether the keys of a state dict are those of a detector of mmdetection."""
    return any(key.startswith(_ROOTS) or re.match(_BACKBONES, key) for key in state)


def mmdet_dropped(state: Mapping[str, Any]) -> dict[str, str]:
    """{key of mmdetection's without a counterpart: why}."""
    dropped = dict.fromkeys(unread_last_conv(state), "a layer behind the last map that is read")
    for key in state:
        if key.endswith(".num_batches_tracked") or key == "bbox_head.integral.project":
            dropped[key] = "nothing learned"
        elif key.startswith("ema_"):  # without dots; mmcv swaps the two before it saves
            dropped[key] = "the weights that were not averaged"
        elif key.startswith("head."):
            dropped[key] = "the classifier"
    return dropped


def mmdet_detector(state_dict: Mapping[str, Any]) -> str | None:
    """The detector of :data:`PREDICTIONS` whose names ``state_dict`` has most of, if any.

    Not all are required: what is missing is for the strict loading to say, under our names.
    """
    found = {key.split(".")[1] for key in state_dict if key.startswith("bbox_head.")}

    def fit(detector: str) -> tuple[int, int]:
        names = set(PREDICTIONS[detector])
        return len(names & found), -len(names - found)

    best = max(PREDICTIONS, key=fit)
    return best if fit(best)[0] else None


def convert_mmdet(
    state_dict: Mapping[str, Tensor], *, part: str | None = None, source: str = "the checkpoint"
) -> dict[str, Tensor]:
    """The weights of a detector of mmdetection under our keys, which are detectron2's.

    RetinaNet's nine anchors are reordered from mmdetection's (ratio, scale) to detectron2's
    (size, ratio). Which head it is follows from the keys.

    Args:
        state_dict: the "state_dict" of a checkpoint.
        part: see :func:`.wrappers.select_part`.
        source: named in errors.

    Raises:
        CheckpointError: lists the keys that are unknown.
    """
    state_dict = select_part(state_dict, part, source)
    detector = mmdet_detector(state_dict)
    root = r"backbone\."
    rules = resnet_rules(root) + mobilenet_rules(root) + swin_rules(root, state_dict)
    rules += _neck_rules(state_dict)
    rules += _head_rules(state_dict, detector)
    found = f"with the head of {detector}" if detector else "with a head of none of these"
    known = (
        "Known are ResNet and ResNeXt (without a deep stem, 'backbone.stem.', or deformable "
        "convolutions), MobileNetV2 and Swin Transformer with an FPN, and the heads of "
        f"{', '.join(PREDICTIONS)}; this one is {found}"
    )
    dropped = mmdet_dropped(state_dict)
    weights = translate(
        state_dict, rules, dropped, project="mmdetection", known=known, source=source
    )
    flatten_position_index(weights)
    if any(key.startswith("backbone.stages.") for key in state_dict):  # not Swin's own repository
        reorder_merged_patches(weights)
    if detector == "RetinaNet":
        reorder_anchors(weights, source)
    return weights


def _neck_rules(state_dict: Mapping[str, Any]) -> list[Rule]:
    laterals = {k.split(".")[2] for k in state_dict if k.startswith("neck.lateral_convs.")}
    first = 6 - len(laterals)  # the coarsest lateral always reads C5

    def output(match: re.Match[str]) -> str:
        level = first + int(match[1])
        name = f"fpn_output{level}" if level <= 5 else f"top_block.p{level}"
        return f"backbone.{name}.{match[2]}"

    return [
        (
            r"neck\.lateral_convs\.(\d+)\.conv\.(weight|bias)",
            lambda m: f"backbone.fpn_lateral{first + int(m[1])}.{m[2]}",
        ),
        (r"neck\.fpn_convs\.(\d+)\.conv\.(weight|bias)", output),
    ]


def _head_rules(state_dict: Mapping[str, Any], detector: str | None) -> list[Rule]:
    tower = r"bbox_head\.(cls|reg)_convs\.(\d+)"
    has_norm = any(re.fullmatch(rf"{tower}\.gn\.weight", key) for key in state_dict)
    size = 3 if has_norm else 2  # convolution, norm if any, ReLU

    def layer(match: re.Match[str], offset: int) -> str:
        subnet = {"cls": "cls_subnet", "reg": "bbox_subnet"}[match[1]]
        return f"head.{subnet}.{size * int(match[2]) + offset}"

    rules: list[Rule] = [
        # conv_offset belongs to the deformable convolution of DDOD
        (
            rf"{tower}\.conv\.((?:conv_offset\.)?(?:weight|bias))",
            lambda m: f"{layer(m, 0)}.{m[3]}",
        ),
        (rf"{tower}\.gn\.(weight|bias)", lambda m: f"{layer(m, 1)}.{m[3]}"),
    ]
    if detector is None:
        return rules
    names = PREDICTIONS[detector]
    rules.append(
        (
            rf"bbox_head\.({'|'.join(names)})\.(weight|bias|mean|sigma)",
            lambda m: f"head.{names[m[1]]}.{m[2]}",
        )
    )
    if detector != "RetinaNet":
        rules.append((r"bbox_head\.scales\.(\d+)\.scale", lambda m: f"head.scales.{m[1]}.scale"))
    return rules
