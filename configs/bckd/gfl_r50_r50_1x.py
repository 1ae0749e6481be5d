"""BCKD, Table 6, self-distillation of GFL R50, 1x: 40.1 -> 40.9 AP."""

from detectron2.config import LazyCall as L

from dense_kd import BCKD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("gfl/r50_1x.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("gfl/r50_1x.py"),
    methods=L(MethodSet)(bckd=L(BCKD)(cls_weight=1.0, loc_weight=4.0)),
)
