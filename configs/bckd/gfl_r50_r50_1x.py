"""BCKD, Table 6, self-distillation of GFL R50, 1x: 40.1 -> 40.9 AP."""

from detectron2.config import LazyCall as L

from dense_kd import BCKD, Distiller, MethodSet, Teacher, get_config

student = get_config("gfl/r50_1x.py")
teacher = get_config("gfl/r50_1x.py")

dataloader, optimizer, lr_multiplier, train = (
    student.dataloader,
    student.optimizer,
    student.lr_multiplier,
    student.train,
)
train.output_dir = "output/bckd/gfl_r50_r50_1x"

model = L(Distiller)(
    student=student.model,
    teacher=L(Teacher)(model=teacher.model, weights="mmdet://gfl_r50_fpn_1x_coco"),
    methods=L(MethodSet)(bckd=L(BCKD)(cls_weight=1.0, loc_weight=4.0)),
)
