"""BCKD, Table 6, self-distillation of GFL R34, 1x: 38.9 -> 39.4 AP. The zoo has no R34: train
gfl/r34_1x.py first."""

from detectron2.config import LazyCall as L

from dense_kd import BCKD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("gfl/r34_1x.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("gfl/r34_1x.py"),
    methods=L(MethodSet)(bckd=L(BCKD)(cls_weight=1.0, loc_weight=4.0)),
)
