"""BCKD, Table 3, class term alone, GFL R101 to R50, 1x: 40.1 -> 42.0 AP.

Table 4 has model.methods.bckd.cls_weight=0.25, 0.5, 1, 1.5, 2 and 3: 41.5, 41.9, 42.0, 41.9, 41.5
and 41.2 AP.
"""

from detectron2.config import LazyCall as L

from dense_kd import BCKD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("gfl/r50_1x.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("gfl/r101_2x_ms.py"),
    methods=L(MethodSet)(bckd=L(BCKD)(cls_weight=1.0, loc_weight=0.0)),
)
