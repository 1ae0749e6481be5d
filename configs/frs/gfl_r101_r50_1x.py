"""FRS, GFL R101 to R50, 1x: 40.2 -> 43.6 AP (by its authors)."""

from detectron2.config import LazyCall as L

from dense_kd import FRS, Distiller, MethodSet, Teacher, get_config

student = get_config("gfl/r50_1x.py")
teacher = get_config("gfl/r101_2x_ms.py")

dataloader, optimizer, lr_multiplier, train = (
    student.dataloader,
    student.optimizer,
    student.lr_multiplier,
    student.train,
)
train.output_dir = "output/frs/gfl_r101_r50_1x"

model = L(Distiller)(
    student=student.model,
    teacher=L(Teacher)(model=teacher.model, weights="mmdet://gfl_r101_fpn_mstrain_2x_coco"),
    methods=L(MethodSet)(frs=L(FRS)(feature_weight=0.1, cls_weight=0.05)),
)
