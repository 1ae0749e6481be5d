"""LD, GFL R101 to R34, 1x: 38.9 -> 41.0 AP (BCKD, Table 1).

Its weights are for 2 images per process: 8 x 2. The main term alone (model.methods.ld.vlr_weight=0
model.methods.ld.cls_weight=0) has 39.8 AP, by LD's authors.
"""

from detectron2.config import LazyCall as L

from dense_kd import LD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("gfl/r34_1x.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("gfl/r101_2x_ms.py"),
    methods=L(MethodSet)(ld=L(LD)()),
)
