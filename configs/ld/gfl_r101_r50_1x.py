"""LD, GFL R101 to R50, 1x: 40.1 -> 42.1 AP (BCKD, Tables 1 and 3). Of the same pair CrossKD, Table
5, has 40.2 -> 43.0, and TID, Table 1, 40.0 -> 41.8.

Its weights are for 2 images per process: 8 x 2. The main term alone (model.methods.ld.vlr_weight=0
model.methods.ld.cls_weight=0) has 41.1 AP, by LD's authors.
"""

from detectron2.config import LazyCall as L

from dense_kd import LD, Distiller, MethodSet, Teacher, get_config

student = get_config("gfl/r50_1x.py")
teacher = get_config("gfl/r101_2x_ms.py")

dataloader, optimizer, lr_multiplier, train = (
    student.dataloader,
    student.optimizer,
    student.lr_multiplier,
    student.train,
)
train.output_dir = "output/ld/gfl_r101_r50_1x"

model = L(Distiller)(
    student=student.model,
    teacher=L(Teacher)(model=teacher.model, weights="mmdet://gfl_r101_fpn_mstrain_2x_coco"),
    methods=L(MethodSet)(ld=L(LD)()),
)
