"""BCKD, GFL R101 to MobileNetV2, 1x: a pair of the released code that is in no table of the paper;
we have no AP of it."""

from detectron2.config import LazyCall as L

from dense_kd import BCKD, Distiller, MethodSet, Teacher, get_config

student = get_config("gfl/mobilenetv2_1x.py")
teacher = get_config("gfl/r101_2x_ms.py")

dataloader, optimizer, lr_multiplier, train = (
    student.dataloader,
    student.optimizer,
    student.lr_multiplier,
    student.train,
)
train.output_dir = "output/bckd/gfl_r101_mobilenetv2_1x"

model = L(Distiller)(
    student=student.model,
    teacher=L(Teacher)(model=teacher.model, weights="mmdet://gfl_r101_fpn_mstrain_2x_coco"),
    methods=L(MethodSet)(bckd=L(BCKD)(cls_weight=1.0, loc_weight=4.0)),
)
