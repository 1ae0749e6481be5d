"""DSI alone on BCCD: P5 imitates the last map of EfficientNet-Lite2 as ImageNet made it, and no
detector teaches, so that none has to be trained first. Otherwise bckd_dsi_gfl_lite2_r18.py."""

from detectron2.config import LazyCall as L

from dense_kd import DSI, Distiller, FeatureTeacher, MethodSet, get_config, recipe
from dense_kd.detectors import TimmBackbone

from ..common.models.timm_backbones import EFFICIENTNET_LITE_INPUT

student = get_config("bccd/gfl_r18.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=None,
    methods=L(MethodSet)(
        dsi=L(DSI)(
            teacher=L(FeatureTeacher)(
                model=L(TimmBackbone)(name="tf_efficientnet_lite2", out_features=["res5"]),
                weights="package://efficientnet-lite2",
                size_divisibility=32,
                **EFFICIENTNET_LITE_INPUT,
            ),
            weight=1.0,
        )
    ),
)
