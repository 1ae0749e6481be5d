"""FitNet, a baseline of CrossKD (Table 5), GFL R101 to R50, 1x: 40.2 -> 40.7 AP. TID (Table 1) has
40.0 -> 41.2 AP."""

from detectron2.config import LazyCall as L

from dense_kd import Distiller, FitNet, MethodSet, Teacher, get_config

student = get_config("gfl/r50_1x.py")
teacher = get_config("gfl/r101_2x_ms.py")

dataloader, optimizer, lr_multiplier, train = (
    student.dataloader,
    student.optimizer,
    student.lr_multiplier,
    student.train,
)
train.output_dir = "output/fitnet/gfl_r101_r50_1x"

model = L(Distiller)(
    student=student.model,
    teacher=L(Teacher)(model=teacher.model, weights="mmdet://gfl_r101_fpn_mstrain_2x_coco"),
    methods=L(MethodSet)(fitnet=L(FitNet)(weight=2.0)),
)
