"""Every detector, with the options that make it another one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable

from detectron2.config import LazyConfig

from dense_kd import get_config_file
from dense_kd.detectors import DenseDetector, DistanceCoder
from helpers.builders import (
    tiny_atss,
    tiny_autoassign,
    tiny_ddod,
    tiny_fcos,
    tiny_gfl,
    tiny_retinanet,
)

_COMMON = {
    "loss_normalizer_momentum": 0.0,
    "loss_normalizer_sync": True,
    "clip_before_nms": True,
    "assign_rule": "mmdet",
    "box_loss_weighting": "centerness",
    "score": "product",
    "test_score_thresh": 0.05,
}
FCOS_OPTIONS: dict[str, dict[str, Any]] = {
    "det_fcos": {
        **_COMMON,
        "box2box_transform": DistanceCoder(activation="exp", normalize_by_size=False),
        "center_sampling_radius": None,
        "box_reg_loss_type": "iou",
        "test_nms_thresh": 0.5,
    },
    "det_fcos_tricks": {
        **_COMMON,
        "box2box_transform": DistanceCoder(),
        "center_sampling_radius": 1.5,
        "box_reg_loss_type": "giou",
        "test_nms_thresh": 0.6,
    },
}
FCOS_HEAD_OPTIONS: dict[str, dict[str, Any]] = {
    "det_fcos": {"conv_bias": False, "centerness_on": "cls"},
    "det_fcos_tricks": {"conv_bias": True, "centerness_on": "bbox"},
}


@dataclass(frozen=True)
class Variant:
    """A detector with options.

    Attributes:
        build: of ``helpers/builders.py``.
        options: of ``build``.
        winner: whose the anchors (points) of two identical boxes are: the "first" box's; "mixed",
            the last box's where they overlap it most and else the first's; "predicted", that of
            the box whose class fits what is predicted; or "any" of both.
    """

    build: Callable[..., DenseDetector]
    options: dict[str, Any] = field(default_factory=dict)
    winner: str = "first"

    def model(self, **options: Any) -> DenseDetector:
        return self.build(**{**self.options, **options})


def mmdet_fcos(name: str) -> dict[str, Any]:
    return {**FCOS_OPTIONS[name], "head": {"level_scales": True, **FCOS_HEAD_OPTIONS[name]}}


MMDET_RETINANET = LazyConfig.load(get_config_file("common/models/retinanet.py"), "MMDET_OPTIONS")
PGD_DDOD = {"cost_rule": "pgd", "separate_level_counts": True}
VARIANTS = {
    "RetinaNet": Variant(tiny_retinanet),
    "RetinaNet with GIoU": Variant(tiny_retinanet, {"box_reg_loss_type": "giou"}),
    "mmdetection's RetinaNet": Variant(tiny_retinanet, dict(MMDET_RETINANET), winner="mixed"),
    "FCOS": Variant(tiny_fcos),
    "plain FCOS": Variant(tiny_fcos, mmdet_fcos("det_fcos")),
    "FCOS with tricks": Variant(tiny_fcos, mmdet_fcos("det_fcos_tricks")),
    "ATSS": Variant(tiny_atss),
    "ATSS with IoU": Variant(tiny_atss, {"head": {"quality": "iou"}}),
    "GFL": Variant(tiny_gfl),
    "DDOD": Variant(tiny_ddod, winner="predicted"),
    "AutoAssign": Variant(tiny_autoassign, winner="any"),
    "PGD's DDOD": Variant(tiny_ddod, PGD_DDOD, winner="predicted"),
}
