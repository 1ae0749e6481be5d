"""Read checkpoints of mmdetection's dense detectors: its keys and anchors become ours.

Known are ResNet and ResNeXt backbones, the FPN, and the heads of :data:`PREDICTIONS`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .errors import CheckpointError
from .keys import Rule, reorder_anchors, resnet_rules, translate

PARTS = ("student", "teacher")
"""Before the keys of the two models in the checkpoints of mmdetection's distillers."""

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

_ROOTS = ("backbone.", "neck.", "bbox_head.")


def is_mmdet(content: Any) -> bool:
    """Whether the content of a file is a checkpoint of a detector, or distiller, of mmdetection."""
    weights = content.get("state_dict") if isinstance(content, Mapping) else None
    if not isinstance(weights, Mapping):
        return False
    roots = _ROOTS + tuple(f"{part}.{root}" for part in PARTS for root in _ROOTS)
    return any(str(key).startswith(roots) for key in weights)


def is_dropped(key: str) -> bool:
    """Whether a key of mmdetection's holds nothing that is learned."""
    return key.endswith(".num_batches_tracked") or key == "bbox_head.integral.project"


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


def select_part(
    state_dict: Mapping[str, Tensor], part: str | None, source: str
) -> dict[str, Tensor]:
    """The keys of one model; of a distiller's two models, ``part`` says which.

    Args:
        state_dict: of a detector or a distiller.
        part: one of :data:`PARTS`; None for the checkpoint of a single detector.
        source: named in errors.
    """
    sizes = {p: sum(key.startswith(f"{p}.") for key in state_dict) for p in PARTS}
    if part is None:
        if any(sizes.values()):
            counts = ", ".join(f"{size} keys under '{p}.'" for p, size in sizes.items())
            raise CheckpointError(
                f"{source} is the checkpoint of a distiller of mmdetection ({counts}); take one "
                "model out of it with tools/convert_checkpoint.py --part student (or teacher)"
            )
        return dict(state_dict)
    if not sizes[part]:
        raise CheckpointError(
            f"{source} has no keys under '{part}.', expected the checkpoint of a distiller; its "
            f"keys begin with {sorted({key.split('.')[0] for key in state_dict})}"
        )
    prefix = f"{part}."
    return {k[len(prefix) :]: v for k, v in state_dict.items() if k.startswith(prefix)}


def convert_mmdet(
    state_dict: Mapping[str, Tensor], *, part: str | None = None, source: str = "the checkpoint"
) -> dict[str, Tensor]:
    """The weights of a detector of mmdetection under our keys, which are detectron2's.

    RetinaNet's nine anchors are reordered from mmdetection's (ratio, scale) to detectron2's
    (size, ratio). Which head it is follows from the keys.

    Args:
        state_dict: the "state_dict" of a checkpoint.
        part: see :func:`select_part`.
        source: named in errors.

    Raises:
        CheckpointError: lists the keys that are unknown.
    """
    state_dict = select_part(state_dict, part, source)
    detector = mmdet_detector(state_dict)
    rules = resnet_rules(r"backbone\.") + _neck_rules(state_dict)
    rules += _head_rules(state_dict, detector)
    found = f"with the head of {detector}" if detector else "with a head of none of these"
    known = (
        "Known are ResNet and ResNeXt with an FPN (without a deep stem, 'backbone.stem.', or "
        f"deformable convolutions), and the heads of {', '.join(PREDICTIONS)}; this one is {found}"
    )
    dropped = filter(is_dropped, state_dict)
    weights = translate(
        state_dict, rules, dropped, project="mmdetection", known=known, source=source
    )
    if detector == "RetinaNet":
        reorder_anchors(weights, source)
    return weights


def _neck_rules(state_dict: Mapping[str, Any]) -> list[Rule]:
    laterals = {k.split(".")[2] for k in state_dict if k.startswith("neck.lateral_convs.")}
    first = 6 - len(laterals)  # the coarsest lateral always reads C5

    def output(match: re.Match) -> str:
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

    def layer(match: re.Match, offset: int) -> str:
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
