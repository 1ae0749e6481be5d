"""BCKD, Table 3, localisation term alone, GFL R101 to R50, 1x: 40.1 -> 42.3 AP.

Table 5 has model.methods.bckd.loc_weight=0.5, 1, 1.5, 2, 4 and 5: 41.3, 41.6, 41.8, 42.2, 42.3 and
42.1 AP.
"""

from detectron2.config import LazyCall as L

from dense_kd import BCKD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("gfl/r50_1x.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("gfl/r101_2x_ms.py"),
    methods=L(MethodSet)(bckd=L(BCKD)(cls_weight=0.0, loc_weight=4.0)),
)
