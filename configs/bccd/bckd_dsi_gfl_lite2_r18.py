"""BCKD and DSI on BCCD: beside what GFL with EfficientNet-Lite2 detects (gfl_lite2.py, to be
trained first), P5 imitates the last map of EfficientNet-Lite2 as ImageNet made it. Otherwise
bckd_gfl_lite2_r18.py."""

from detectron2.config import LazyCall as L

from dense_kd import (
    BCKD,
    DSI,
    Distiller,
    FeatureTeacher,
    MethodSet,
    get_config,
    known_teacher,
    recipe,
)
from dense_kd.detectors import TimmBackbone

from ..common.models.timm_backbones import EFFICIENTNET_LITE_INPUT

student = get_config("bccd/gfl_r18.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("bccd/gfl_lite2.py"),
    methods=L(MethodSet)(
        bckd=L(BCKD)(cls_weight=1.0, loc_weight=4.0),
        dsi=L(DSI)(
            teacher=L(FeatureTeacher)(
                model=L(TimmBackbone)(name="tf_efficientnet_lite2", out_features=["res5"]),
                weights="package://efficientnet-lite2",
                size_divisibility=32,
                **EFFICIENTNET_LITE_INPUT,
            ),
            weight=1.0,
        ),
    ),
)
