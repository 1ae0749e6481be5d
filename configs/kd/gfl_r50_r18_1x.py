"""Prediction mimicking on the head of the student, GFL R50 to R18, 1x (35.8 AP without it): our
baseline for CrossKD's depths; we have no AP of it. The rows of CrossKD's Table 3 are
ld/gfl_r50_r18*_1x.py."""

from detectron2.config import LazyCall as L

from dense_kd import KD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("gfl/r18_1x.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("gfl/r50_1x.py"),
    methods=L(MethodSet)(kd=L(KD)(loc_loss="kl", loc_weight=4.0)),
)
