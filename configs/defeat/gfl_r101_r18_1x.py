"""DeFeat, a baseline of TID (Table 1), GFL R101 to R18, 1x: 28.2 -> 28.9 AP. The weights are those
that its author names for COCO."""

from detectron2.config import LazyCall as L

from dense_kd import DeFeat, Distiller, MethodSet, Teacher, get_config

student = get_config("gfl/r18_1x.py")
teacher = get_config("gfl/r101_2x_ms.py")

dataloader, optimizer, lr_multiplier, train = (
    student.dataloader,
    student.optimizer,
    student.lr_multiplier,
    student.train,
)
train.output_dir = "output/defeat/gfl_r101_r18_1x"

model = L(Distiller)(
    student=student.model,
    teacher=L(Teacher)(model=teacher.model, weights="mmdet://gfl_r101_fpn_mstrain_2x_coco"),
    methods=L(MethodSet)(defeat=L(DeFeat)(object_weight=4.0, background_weight=16.0)),
)
