"""CrossKD, Table 7, ATSS R101 to GFL R50, 1x: 40.2 -> 42.1 AP. Its config is not published; these
are the weights of ATSS."""

from detectron2.config import LazyCall as L

from dense_kd import CrossKD, Distiller, MethodSet, Teacher, get_config

student = get_config("gfl/r50_1x.py")
teacher = get_config("atss/r101_1x.py")

dataloader, optimizer, lr_multiplier, train = (
    student.dataloader,
    student.optimizer,
    student.lr_multiplier,
    student.train,
)
train.output_dir = "output/crosskd/gfl_atss_r101_r50_1x"

model = L(Distiller)(
    student=student.model,
    teacher=L(Teacher)(model=teacher.model, weights="mmdet://atss_r101_fpn_1x_coco"),
    methods=L(MethodSet)(crosskd=L(CrossKD)(depth=3, cls_weight=1.0, loc_weight=1.0)),
)
