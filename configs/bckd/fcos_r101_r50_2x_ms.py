"""BCKD, FCOS R101 to R50, 2x with short sides of 640 or 800 (38.5 AP without it): the student of
CrossKD, not of BCKD's Table 2. We have no AP of it."""

from detectron2.config import LazyCall as L

from dense_kd import BCKD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("fcos/mmdet_r50_2x_ms.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("fcos/mmdet_r101_2x_ms.py"),
    methods=L(MethodSet)(bckd=L(BCKD)(cls_weight=1.0, loc_weight=4.0)),
)
