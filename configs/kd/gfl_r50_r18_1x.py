"""Prediction mimicking on the head of the student, GFL R50 to R18, 1x (35.8 AP without it): our
baseline for CrossKD's depths; we have no AP of it. The rows of CrossKD's Table 3 are
ld/gfl_r50_r18*_1x.py."""

from detectron2.config import LazyCall as L

from dense_kd import KD, Distiller, MethodSet, Teacher, get_config

student = get_config("gfl/r18_1x.py")
teacher = get_config("gfl/r50_1x.py")

dataloader, optimizer, lr_multiplier, train = (
    student.dataloader,
    student.optimizer,
    student.lr_multiplier,
    student.train,
)
train.output_dir = "output/kd/gfl_r50_r18_1x"

model = L(Distiller)(
    student=student.model,
    teacher=L(Teacher)(model=teacher.model, weights="mmdet://gfl_r50_fpn_1x_coco"),
    methods=L(MethodSet)(kd=L(KD)(loc_loss="kl", loc_weight=4.0)),
)
