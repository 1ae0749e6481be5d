"""LD, GFL R101 to R18, 1x: 35.8 -> 37.5 AP (BCKD, Table 1).

Its weights are for 2 images per process: 8 x 2. The main term alone (model.methods.ld.vlr_weight=0
model.methods.ld.cls_weight=0) has 36.5 AP, by LD's authors.
"""

from detectron2.config import LazyCall as L

from dense_kd import LD, Distiller, MethodSet, Teacher, get_config

student = get_config("gfl/r18_1x.py")
teacher = get_config("gfl/r101_2x_ms.py")

dataloader, optimizer, lr_multiplier, train = (
    student.dataloader,
    student.optimizer,
    student.lr_multiplier,
    student.train,
)
train.output_dir = "output/ld/gfl_r101_r18_1x"

model = L(Distiller)(
    student=student.model,
    teacher=L(Teacher)(model=teacher.model, weights="mmdet://gfl_r101_fpn_mstrain_2x_coco"),
    methods=L(MethodSet)(ld=L(LD)()),
)
