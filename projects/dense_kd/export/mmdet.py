"""Weights under mmdetection's keys: the way back of ``checkpoint/layouts/mmdet.py``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ..checkpoint import CheckpointError, convert_mmdet
from ..checkpoint.layouts.keys import NORM, reorder_anchors
from ..checkpoint.layouts.mmdet import PREDICTIONS
from ..detectors.base.dense import DenseDetector
from .errors import ExportError

_Rule = tuple[str, Callable[[re.Match[str]], str]]

_BODY = r"backbone\.bottom_up\."
_BRANCHES = {"cls": "cls", "bbox": "reg"}


def to_mmdet(detector: DenseDetector) -> dict[str, Tensor]:
    """The state dict of a detector as mmdetection 2 and 3 have it.

    Known are ResNet and ResNeXt with an FPN, and the heads of :data:`PREDICTIONS`. What comes out
    is read again by the converter, and has to be the same numbers.

    Raises:
        ExportError: names weights for which mmdetection has no key.
    """
    kind = type(detector).__name__
    if kind not in PREDICTIONS:
        raise ExportError(
            f"{kind} is no detector of mmdetection's; known are {', '.join(PREDICTIONS)}"
        )
    left_out = (*detector.optional_buffers, "num_batches_tracked")
    ours = {
        key: value.detach().cpu().clone()
        for key, value in detector.state_dict().items()
        if not key.endswith(left_out)
    }
    turned = dict(ours)
    if kind == "RetinaNet":  # the three ratios and three scales change places, as on the way here
        try:
            reorder_anchors(turned, f"the {kind}")
        except CheckpointError as error:
            raise ExportError(str(error)) from error
    rules = [*_resnet_rules(), *_neck_rules(ours), *_head_rules(detector, kind)]
    theirs, unknown = {}, []
    for key, value in turned.items():
        matches = ((re.fullmatch(pattern, key), name) for pattern, name in rules)
        found = next((name(match) for match, name in matches if match), None)
        if found is None:
            unknown.append(key)
        else:
            theirs[found] = value
    if unknown:
        raise ExportError(
            f"mmdetection has no known key for {len(unknown)} of the {len(ours)} weights of this "
            f"{kind}, such as {', '.join(unknown[:3])}; known are ResNet and ResNeXt, with an FPN "
            "and the towers of mmdetection's own heads"
        )
    if kind != "RetinaNet" and not any(key.startswith("bbox_head.scales.") for key in theirs):
        raise ExportError(
            f"the head of this {kind} has no learned factor for each level (level_scales), and "
            "mmdetection's has; it cannot be run there"
        )
    for key in [key for key in theirs if key.endswith(".running_var")]:
        theirs[key.replace("running_var", "num_batches_tracked")] = torch.tensor(0)
    reg_max = detector.head.reg_max
    if reg_max is not None:
        theirs["bbox_head.integral.project"] = torch.linspace(0, reg_max, reg_max + 1)
    again = convert_mmdet(theirs, source=f"the exported {kind}")
    if again.keys() != ours.keys() or any(not torch.equal(again[k], ours[k]) for k in ours):
        raise ExportError(
            f"the weights of this {kind} are not the same when they are read again from "
            "mmdetection's keys; its head is none of mmdetection's"
        )
    return theirs


def _resnet_rules() -> list[_Rule]:
    def layer(match: re.Match[str]) -> str:
        return f"backbone.layer{int(match[1]) - 1}.{match[2]}"

    block = rf"{_BODY}res([2-5])\.(\d+)"
    return [
        (rf"{_BODY}stem\.conv1\.weight", lambda m: "backbone.conv1.weight"),
        (rf"{_BODY}stem\.conv1\.norm\.{NORM}", lambda m: f"backbone.bn1.{m[1]}"),
        (rf"{block}\.conv([1-3])\.weight", lambda m: f"{layer(m)}.conv{m[3]}.weight"),
        (rf"{block}\.conv([1-3])\.norm\.{NORM}", lambda m: f"{layer(m)}.bn{m[3]}.{m[4]}"),
        (rf"{block}\.shortcut\.weight", lambda m: f"{layer(m)}.downsample.0.weight"),
        (rf"{block}\.shortcut\.norm\.{NORM}", lambda m: f"{layer(m)}.downsample.1.{m[3]}"),
    ]


def _neck_rules(keys: Iterable[str]) -> list[_Rule]:
    laterals = [re.fullmatch(r"backbone\.fpn_lateral(\d)\.weight", key) for key in keys]
    first = min((int(match[1]) for match in laterals if match), default=3)
    return [
        (
            rf"backbone\.fpn_{ours}(\d)\.(weight|bias)",
            lambda m, theirs=theirs: f"neck.{theirs}.{int(m[1]) - first}.conv.{m[2]}",
        )
        for ours, theirs in (("lateral", "lateral_convs"), ("output", "fpn_convs"))
    ] + [
        (
            r"backbone\.top_block\.p(\d)\.(weight|bias)",
            lambda m: f"neck.fpn_convs.{int(m[1]) - first}.conv.{m[2]}",
        )
    ]


def _head_rules(detector: DenseDetector, kind: str) -> list[_Rule]:
    head = detector.head
    has_norm = any(re.fullmatch(r"cls_subnet\.1\.weight", key) for key in head.state_dict())
    size = 3 if has_norm else 2  # convolution, norm if any, ReLU

    def tower(match: re.Match[str]) -> str:
        index, offset = divmod(int(match[2]), size)
        part = "gn" if offset else "conv"
        return f"bbox_head.{_BRANCHES[match[1]]}_convs.{index}.{part}.{match[3]}"

    names = {ours: theirs for theirs, ours in PREDICTIONS[kind].items()}
    if kind == "ATSS":  # PGD's has an IoU branch
        names["iou_pred"] = "atss_iou"
    return [
        (r"head\.(cls|bbox)_subnet\.(\d+)\.((?:conv_offset\.)?(?:weight|bias))", tower),
        (
            rf"head\.({'|'.join(names)})\.(weight|bias|mean|sigma)",
            lambda m: f"bbox_head.{names[m[1]]}.{m[2]}",
        ),
        (r"head\.scales\.(\d+)\.scale", lambda m: f"bbox_head.scales.{m[1]}.scale"),
    ]
