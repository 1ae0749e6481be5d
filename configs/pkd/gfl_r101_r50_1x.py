"""PKD, CrossKD, Table 5, GFL R101 to R50, 1x: 40.2 -> 43.3 AP. The weight is that of CrossKD + PKD;
the paper does not name it."""

from detectron2.config import LazyCall as L

from dense_kd import PKD, Distiller, MethodSet, Teacher, get_config

student = get_config("gfl/r50_1x.py")
teacher = get_config("gfl/r101_2x_ms.py")

dataloader, optimizer, lr_multiplier, train = (
    student.dataloader,
    student.optimizer,
    student.lr_multiplier,
    student.train,
)
train.output_dir = "output/pkd/gfl_r101_r50_1x"

model = L(Distiller)(
    student=student.model,
    teacher=L(Teacher)(model=teacher.model, weights="mmdet://gfl_r101_fpn_mstrain_2x_coco"),
    methods=L(MethodSet)(pkd=L(PKD)(weight=6.0)),
)
