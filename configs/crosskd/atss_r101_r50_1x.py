"""CrossKD, Table 6, ATSS R101 to R50, 1x: 39.4 -> 41.8 AP. Released with 8 images per process and a
learning rate in proportion; this is the paper's batch of 16."""

from detectron2.config import LazyCall as L

from dense_kd import CrossKD, Distiller, MethodSet, Teacher, get_config

student = get_config("atss/r50_1x.py")
teacher = get_config("atss/r101_1x.py")

dataloader, optimizer, lr_multiplier, train = (
    student.dataloader,
    student.optimizer,
    student.lr_multiplier,
    student.train,
)
train.output_dir = "output/crosskd/atss_r101_r50_1x"

model = L(Distiller)(
    student=student.model,
    teacher=L(Teacher)(model=teacher.model, weights="mmdet://atss_r101_fpn_1x_coco"),
    methods=L(MethodSet)(
        crosskd=L(CrossKD)(depth=3, cls_weight=1.0, loc_weight=1.0, quality_weight=1.0)
    ),
)
