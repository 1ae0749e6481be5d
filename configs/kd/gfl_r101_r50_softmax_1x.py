"""Class distillation by softmax on positives, GFL R101 to R50, 1x (40.1 AP without it): our form of
the protocol that BCKD is about; we have no AP of it. The row of BCKD's Table 3 is
ld/gfl_r101_r50_cls_1x.py."""

from detectron2.config import LazyCall as L

from dense_kd import KD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("gfl/r50_1x.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("gfl/r101_2x_ms.py"),
    methods=L(MethodSet)(
        kd=L(KD)(cls_loss="softmax", loc_weight=0.0, temperature=2.0, region="positives")
    ),
)
