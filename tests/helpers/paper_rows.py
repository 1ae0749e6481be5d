"""Rows of the tables of BCKD and CrossKD, as their papers print them, and the config of each.

Only SKD, in CrossKD's Table 5, has none: the paper has no formula of it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

GFL_R101 = ("gfl/r101_2x_ms.py", "mmdet://gfl_r101_fpn_mstrain_2x_coco")
GFL_R34 = ("gfl/r34_1x.py", "output/gfl/r34_1x/model_final.pth")
GFL_R18 = ("gfl/r18_1x.py", "output/gfl/r18_1x/model_final.pth")
GFL_R50 = ("gfl/r50_1x.py", "mmdet://gfl_r50_fpn_1x_coco")
X101 = ("retinanet/mmdet_x101_1x.py", "mmdet://retinanet_x101_64x4d_fpn_1x_coco")
RETINANET_R101 = ("retinanet/mmdet_r101_2x.py", "mmdet://retinanet_r101_fpn_2x_coco")
RETINANET_R50 = ("retinanet/mmdet_r50_1x.py", "mmdet://retinanet_r50_fpn_1x_coco")
SWIN_T = ("retinanet/mmdet_swin_t_1x.py", "output/retinanet/mmdet_swin_t_1x/model_final.pth")
FCOS_R101 = (
    "fcos/mmdet_r101_2x_ms.py", "mmdet://fcos_r101_caffe_fpn_gn-head_mstrain_640-800_2x_coco"
)  # fmt: skip
ATSS_R101 = ("atss/r101_1x.py", "mmdet://atss_r101_fpn_1x_coco")

Methods = dict[str, dict[str, Any]]
BCKD: Methods = {"bckd": {"cls_weight": 1.0, "loc_weight": 4.0}}
LD: Methods = {"ld": {}}
MGD: Methods = {"mgd": {"weight": 2e-5, "masked_ratio": 0.65}}
PKD: Methods = {"pkd": {"weight": 10.0, "omitted_levels": [-1]}}
PKD_6: Methods = {"pkd": {"weight": 6.0}}
CROSSKD_GFL: Methods = {"crosskd": {"depth": 3, "cls_weight": 1.0, "loc_weight": 4.0}}
CROSSKD: Methods = {"crosskd": {"depth": 3, "cls_weight": 1.0, "loc_weight": 1.0}}


class Row(NamedTuple):
    """One row of a table.

    Attributes:
        paper, table: as a docstring cites them.
        config: path without ".py".
        before, after: AP of the student without and with the methods.
        teacher: config and weights.
        methods: options that are given, by name of the method.
    """

    paper: str
    table: int
    config: str
    before: float
    after: float
    teacher: tuple[str, str]
    methods: Methods


def changed(methods: Methods, **options: Any) -> Methods:
    """``methods`` with other options of the first."""
    (name, given), *others = methods.items()
    return {name: {**given, **options}, **dict(others)}


LD_CLS = changed(LD, main_weight=0.0, vlr_weight=0.0)
LD_LOC = changed(LD, cls_weight=0.0)
BCKD_ROWS = [
    *[
        Row("BCKD", 1, f"{folder}/gfl_r101_{student}_1x", before, after, GFL_R101, methods)
        for student, before, afters in (
            ("r50", 40.1, (42.1, 43.2, 43.2)),
            ("r34", 38.9, (41.0, 42.0, 42.3)),
            ("r18", 35.8, (37.5, 38.6, 38.9)),
        )
        for folder, after, methods in zip(
            ("ld", "bckd", "bckd_ld"), afters, (LD, BCKD, {**BCKD, **LD_LOC})
        )
    ],
    *[
        Row("BCKD", 2, f"{folder}/{pair}_1x", before, after, teacher, methods)
        for pair, teacher, before, afters in (
            ("retinanet_x101_r50", X101, 36.5, (39.2, 39.6, 39.7, 40.1, 40.1)),
            ("fcos_r101_r50", FCOS_R101, 36.6, (39.2, 39.6, 39.9, 40.0, 40.2)),
        )
        for folder, after, methods in zip(
            ("bckd", "mgd", "pkd", "bckd_mgd", "bckd_pkd"),
            afters,
            (BCKD, MGD, PKD, {**BCKD, **MGD}, {**BCKD, **PKD}),
        )
    ],
    Row("BCKD", 3, "ld/gfl_r101_r50_cls_1x", 40.1, 40.4, GFL_R101, LD_CLS),
    Row("BCKD", 3, "ld/gfl_r101_r50_loc_1x", 40.1, 41.8, GFL_R101, LD_LOC),
    Row("BCKD", 3, "ld/gfl_r101_r50_1x", 40.1, 42.1, GFL_R101, LD),
    Row("BCKD", 3, "bckd/gfl_r101_r50_cls_1x", 40.1, 42.0, GFL_R101, changed(BCKD, loc_weight=0.0)),
    Row("BCKD", 3, "bckd/gfl_r101_r50_loc_1x", 40.1, 42.3, GFL_R101, changed(BCKD, cls_weight=0.0)),
    Row("BCKD", 3, "bckd/gfl_r101_r50_1x", 40.1, 43.2, GFL_R101, BCKD),
    Row("BCKD", 6, "bckd/gfl_r50_r50_1x", 40.1, 40.9, GFL_R50, BCKD),
    Row("BCKD", 6, "bckd/gfl_r34_r34_1x", 38.9, 39.4, GFL_R34, BCKD),
    Row("BCKD", 6, "bckd/gfl_r18_r18_1x", 35.8, 36.2, GFL_R18, BCKD),
]
CROSSKD_ROWS = [
    *[
        Row("CrossKD", 1, f"crosskd/gfl_r50_r18{name}_1x", 35.8, after, GFL_R50, methods)
        for name, after, methods in (
            ("_depth0", 38.2, changed(CROSSKD_GFL, depth=0)),
            ("_depth1", 38.3, changed(CROSSKD_GFL, depth=1)),
            ("_depth2", 38.6, changed(CROSSKD_GFL, depth=2)),
            ("", 38.7, CROSSKD_GFL),
            ("_depth4", 38.2, changed(CROSSKD_GFL, depth=4)),
        )
    ],
    *[
        Row("CrossKD", 2, f"pkd/gfl_r50_r18{name}_1x", 35.8, after, GFL_R50, methods)
        for name, after, methods in (
            ("", 38.0, PKD_6),
            ("_cls", 37.5, changed(PKD_6, taps=[["cls", 3]])),
            ("_bbox", 37.2, changed(PKD_6, taps=[["bbox", 3]])),
            ("_towers", 37.3, changed(PKD_6, taps=[["cls", 3], ["bbox", 3]])),
        )
    ],
    *[
        Row("CrossKD", table, f"ld/gfl_r50_r18{name}_1x", 35.8, after, GFL_R50, methods)
        for table, name, after, methods in (
            (1, "", 37.8, LD),
            (3, "_cls", 37.3, LD_CLS),
            (3, "_loc", 36.8, LD_LOC),
            (3, "", 37.8, LD),
            (4, "", 37.8, LD),
        )
    ],
    *[
        Row("CrossKD", 3, f"crosskd/gfl_r50_r18_{name}_1x", 35.8, after, GFL_R50, methods)
        for name, after, methods in (
            ("cls", 37.7, changed(CROSSKD_GFL, loc_weight=0.0)),
            ("loc", 37.2, changed(CROSSKD_GFL, cls_weight=0.0)),
        )
    ],
    Row("CrossKD", 4, "crosskd_ld/gfl_r50_r18_1x", 35.8, 38.1, GFL_R50, {**CROSSKD_GFL, **LD}),
    *[
        Row("CrossKD", 5, f"{name}_1x", 40.2, after, GFL_R101, methods)
        for name, after, methods in (
            ("fitnet/gfl_r101_r50", 40.7, {"fitnet": {"weight": 2.0}}),
            (
                "fitnet/gfl_r101_r50_objects", 40.7,
                {"fitnet": {"weight": 2.0, "region": "objects"}},
            ),
            (
                "fitnet/gfl_r101_r50_positives", 41.1,
                {"fitnet": {"weight": 2.0, "region": "positives"}},
            ),
            (
                "defeat/gfl_r101_r50", 40.8,
                {"defeat": {"object_weight": 4.0, "background_weight": 16.0}},
            ),
            ("fgfi/gfl_r101_r50", 41.1, {"fgfi": {"weight": 20.0, "levels": "each"}}),
            (
                "fgd/gfl_r101_r50", 41.3,
                {
                    "fgd": {
                        "fg_weight": 1e-3, "bg_weight": 5e-4, "attention_weight": 5e-4,
                        "relation_weight": 5e-6, "temperature": 0.5,
                    }
                },
            ),
            ("gibox/gfl_r101_r50", 41.5, {"gibox": {"weight": 2.0, "topk": 10}}),
            ("ld/gfl_r101_r50", 43.0, LD),
            ("pkd/gfl_r101_r50", 43.3, PKD_6),
            ("crosskd/gfl_r101_r50", 43.7, CROSSKD_GFL),
            ("crosskd_pkd/gfl_r101_r50", 43.9, {**CROSSKD_GFL, **PKD_6}),
        )
    ],
    Row("CrossKD", 6, "crosskd/retinanet_r101_r50_2x", 37.4, 39.7, RETINANET_R101, CROSSKD),
    Row(
        "CrossKD", 6, "crosskd/fcos_r101_r50_2x_ms", 38.5, 41.3, FCOS_R101,
        {
            "crosskd": {
                "depth": 2, "cls_weight": 0.4, "loc_weight": 0.75, "loc_loss": "iou",
                "normalize": "quality",
            }
        },
    ),
    Row(
        "CrossKD", 6, "crosskd/atss_r101_r50_1x", 39.4, 41.8, ATSS_R101,
        changed(CROSSKD, quality_weight=1.0),
    ),
    Row("CrossKD", 7, "crosskd/gfl_atss_r101_r50_1x", 40.2, 42.1, ATSS_R101, CROSSKD),
    Row("CrossKD", 7, "crosskd/gfl_retinanet_r101_r50_1x", 40.2, 41.2, RETINANET_R101, CROSSKD),
    Row("CrossKD", 7, "kd/gfl_atss_r101_r50_1x", 40.2, 39.7, ATSS_R101, {"kd": {}}),
    Row(
        "CrossKD", 7, "kd/gfl_retinanet_r101_r50_1x", 40.2, 30.3, RETINANET_R101,
        {"kd": {"anchors": "best"}},
    ),
    Row("CrossKD", 8, "pkd/retinanet_swin_t_r50_1x", 36.5, 37.2, SWIN_T, PKD),
    Row("CrossKD", 8, "crosskd/retinanet_swin_t_r50_1x", 36.5, 38.0, SWIN_T, CROSSKD),
    Row("CrossKD", 8, "pkd/retinanet_r50_mobilenetv2_1x", 30.9, 33.2, RETINANET_R50, PKD),
    Row("CrossKD", 8, "crosskd/retinanet_r50_mobilenetv2_1x", 30.9, 34.1, RETINANET_R50, CROSSKD),
]  # fmt: skip
ROWS = [*BCKD_ROWS, *CROSSKD_ROWS]
BASELINES = {
    "gfl/r101_2x_ms": 44.9,
    "gfl/r50_1x": 40.2,
    "gfl/r34_1x": 38.9,
    "gfl/r18_1x": 35.8,
    "retinanet/mmdet_x101_1x": 41.0,
    "retinanet/mmdet_r101_2x": 38.9,
    "retinanet/mmdet_r50_2x": 37.4,
    "retinanet/mmdet_r50_1x": 36.5,
    "retinanet/mmdet_swin_t_1x": 37.3,
    "retinanet/mmdet_mobilenetv2_1x": 30.9,
    "fcos/mmdet_r101_2x_ms": 40.8,
    "fcos/mmdet_r50_2x_ms": 38.5,
    "fcos/mmdet_r50_1x": 36.6,
    "atss/r101_1x": 41.5,
    "atss/r50_1x": 39.4,
}
"""AP of teachers and students alone in these tables."""
SWEEPS = {
    "bckd/gfl_r101_r50_cls_1x": (
        4,
        "model.methods.bckd.cls_weight",
        {0.25: 41.5, 0.5: 41.9, 1.0: 42.0, 1.5: 41.9, 2.0: 41.5, 3.0: 41.2},
    ),
    "bckd/gfl_r101_r50_loc_1x": (
        5,
        "model.methods.bckd.loc_weight",
        {0.5: 41.3, 1.0: 41.6, 1.5: 41.8, 2.0: 42.2, 4.0: 42.3, 5.0: 42.1},
    ),
}
"""Of BCKD's Tables 4 and 5: {config: (table, override, {value: AP})}"""
