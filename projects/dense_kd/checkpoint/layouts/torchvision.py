"""Read checkpoints of torchvision's dense detectors and of its ImageNet classifiers.

Known are RetinaNet and FCOS on a ResNet (``retinanet_resnet50_fpn``, ``..._v2``,
``fcos_resnet50_fpn`` and models like them), which become detectors of ours, and ResNet, ResNeXt,
MobileNetV2 and Swin Transformer, which become backbones without their classifier.
``configs/common/models/torchvision_detectors.py`` builds the detectors that the COCO weights fit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from torch import Tensor

from ..errors import CheckpointError
from .keys import BACKBONE, Rule, reorder_anchors, resnet_rules, translate

DETECTORS = ("FCOS", "RetinaNet")

NUM_COCO_OUTPUTS = 91
"""Class outputs of torchvision's COCO detectors: the ids of COCO's annotations, 0 to 90."""

COCO_IDS = [category["id"] for category in COCO_CATEGORIES if category["isthing"]]
"""The ids of the 80 classes in detectron2's order."""

_SIGNS = {
    "FCOS": "head.regression_head.bbox_ctrness.",
    "RetinaNet": "head.classification_head.",
    "another detector": "backbone.body.",
    "ResNet": "layer1.0.conv1.",
    "MobileNetV2": "features.1.conv.0.0.",
    "Swin Transformer": "features.1.0.attn.relative_position_bias_table",
}
"""{kind of model: how a key of it begins}, the first that is there counts."""

_CLASSIFIERS = {
    "ResNet": ("fc.",),
    "MobileNetV2": ("classifier.",),
    "Swin Transformer": ("norm.", "head."),
}
"""{kind of classifier: how the keys after its last feature map begin}"""


def torchvision_model(weights: Any) -> str | None:
    """The kind of torchvision's models that a state dict is of, by its keys; None for others'."""
    if not isinstance(weights, Mapping):
        return None
    for kind, begin in _SIGNS.items():
        if any(str(key).startswith(begin) for key in weights):
            return kind
    return None


def torchvision_dropped(weights: Mapping[str, Any]) -> dict[str, str]:
    """{key of torchvision's without a counterpart: why}."""
    classifier = _CLASSIFIERS.get(torchvision_model(weights) or "", ())
    dropped = {
        key: "the classifier" for key in weights if classifier and key.startswith(classifier)
    }
    counters = (key for key in weights if key.endswith(".num_batches_tracked"))
    return {**dropped, **dict.fromkeys(counters, "nothing learned")}


def object_classes(num_outputs: int) -> list[int]:
    """The class outputs of a detector of torchvision's that are classes of ours, in our order.

    torchvision counts the background as class 0, labels objects from 1, and never trains output 0
    as a positive. Hence:

    * 91 outputs are those of its COCO weights: the 80 that are ids of classes, in detectron2's
      order.
    * K outputs otherwise, of a model that was trained on other data: 1 to K-1.
    """
    return COCO_IDS if num_outputs == NUM_COCO_OUTPUTS else list(range(1, num_outputs))


def convert_torchvision(
    weights: Mapping[str, Tensor], *, background: bool = True, source: str = "the checkpoint"
) -> dict[str, Tensor]:
    """The weights of a model of torchvision's under our keys, which are detectron2's.

    RetinaNet's nine anchors are reordered from (ratio, size) to detectron2's (size, ratio), and
    of the class outputs those of :func:`object_classes` are kept. Names of releases before
    torchvision 0.13 are known, too.

    Args:
        weights: a state dict for which :func:`torchvision_model` is not None.
        background: False keeps all class outputs of a detector, for a model that was trained with
            labels from 0 against torchvision's convention.
        source: named in errors.

    Raises:
        CheckpointError: lists the keys that are unknown.
    """
    kind = torchvision_model(weights)
    known = (
        "Known are RetinaNet and FCOS on a ResNet, and the classifiers ResNet and ResNeXt (without "
        f"a deep stem), MobileNetV2 and Swin Transformer; this one is {kind}"
    )
    if kind in _CLASSIFIERS:
        features: Rule = (r"features\.(.+)", lambda m: f"{BACKBONE}.features.{m[1]}")
        rules = resnet_rules("") if kind == "ResNet" else [features]
    else:
        rules = resnet_rules(r"backbone\.body\.") + _fpn_rules(weights) + _head_rules(weights)
    dropped = torchvision_dropped(weights)
    ours = translate(weights, rules, dropped, project="torchvision", known=known, source=source)
    if kind == "RetinaNet":
        reorder_anchors(ours, source)
    if kind in DETECTORS and background:
        _select_classes(ours, source)
    return ours


def _fpn_rules(weights: Mapping[str, Any]) -> list[Rule]:
    root, kind = r"backbone\.fpn", "(weight|bias)"
    laterals = {k.split(".")[3] for k in weights if k.startswith("backbone.fpn.inner_blocks.")}
    first = 6 - len(laterals)  # the coarsest lateral always reads C5
    return [
        (
            rf"{root}\.inner_blocks\.(\d)(?:\.0)?\.{kind}",
            lambda m: f"backbone.fpn_lateral{first + int(m[1])}.{m[2]}",
        ),
        (
            rf"{root}\.layer_blocks\.(\d)(?:\.0)?\.{kind}",
            lambda m: f"backbone.fpn_output{first + int(m[1])}.{m[2]}",
        ),
        (rf"{root}\.extra_blocks\.(p6|p7)\.{kind}", lambda m: f"backbone.top_block.{m[1]}.{m[2]}"),
    ]


def _head_rules(weights: Mapping[str, Any]) -> list[Rule]:
    subnets = {"classification": "cls_subnet", "regression": "bbox_subnet"}
    tower = r"head\.(classification|regression)_head\.conv"
    has_norm = any(re.fullmatch(rf"{tower}\.\d+\.1\.weight", key) for key in weights)
    size = 3 if has_norm else 2  # convolution, norm if any, ReLU
    predictions = {
        "classification_head.cls_logits": "cls_score",
        "regression_head.bbox_reg": "bbox_pred",
        "regression_head.bbox_ctrness": "ctrness",
    }
    return [
        (  # one module per block
            rf"{tower}\.(\d+)\.([01])\.(weight|bias)",
            lambda m: f"head.{subnets[m[1]]}.{size * int(m[2]) + int(m[3])}.{m[4]}",
        ),
        (  # FCOS, and RetinaNet before 0.13: one per layer, as in detectron2
            rf"{tower}\.(\d+)\.(weight|bias)",
            lambda m: f"head.{subnets[m[1]]}.{m[2]}.{m[3]}",
        ),
        (
            rf"head\.({'|'.join(map(re.escape, predictions))})\.(weight|bias)",
            lambda m: f"head.{predictions[m[1]]}.{m[2]}",
        ),
    ]


def _select_classes(weights: dict[str, Tensor], source: str) -> None:
    """Keep the class outputs of :func:`object_classes`."""
    boxes = next((v.shape[0] for k, v in weights.items() if k.startswith("head.bbox_pred.")), 0)
    if not boxes:  # incomplete, for the strict loading to say
        return
    for key in ("head.cls_score.weight", "head.cls_score.bias"):
        if key not in weights:
            continue
        outputs = weights[key].unflatten(0, (boxes // 4, -1))  # (A, K, ...)
        classes = object_classes(outputs.shape[1])
        if not classes:
            raise CheckpointError(
                f"{source} has one class output, which is the background in torchvision, expected "
                "two or more; if it was trained with labels from 0, convert it with "
                "tools/convert_checkpoint.py --no-background"
            )
        weights[key] = outputs[:, torch.tensor(classes)].flatten(0, 1).contiguous()
