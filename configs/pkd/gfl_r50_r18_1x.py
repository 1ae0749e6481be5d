"""PKD on the pyramid, CrossKD, Table 2, GFL R50 to R18, 1x: 35.8 -> 38.0 AP. The weight is that of
CrossKD + PKD; the paper does not name it."""

from detectron2.config import LazyCall as L

from dense_kd import PKD, Distiller, MethodSet, Teacher, get_config

student = get_config("gfl/r18_1x.py")
teacher = get_config("gfl/r50_1x.py")

dataloader, optimizer, lr_multiplier, train = (
    student.dataloader,
    student.optimizer,
    student.lr_multiplier,
    student.train,
)
train.output_dir = "output/pkd/gfl_r50_r18_1x"

model = L(Distiller)(
    student=student.model,
    teacher=L(Teacher)(model=teacher.model, weights="mmdet://gfl_r50_fpn_1x_coco"),
    methods=L(MethodSet)(pkd=L(PKD)(weight=6.0)),
)
