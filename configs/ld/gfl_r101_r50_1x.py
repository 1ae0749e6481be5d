"""LD, GFL R101 to R50, 1x: 40.1 -> 42.1 AP (BCKD, Tables 1 and 3). Of the same pair CrossKD, Table
5, has 40.2 -> 43.0, and TID, Table 1, 40.0 -> 41.8.

Its weights are for 2 images per process: 8 x 2. The main term alone (model.methods.ld.vlr_weight=0
model.methods.ld.cls_weight=0) has 41.1 AP, by LD's authors.
"""

from detectron2.config import LazyCall as L

from dense_kd import LD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("gfl/r50_1x.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("gfl/r101_2x_ms.py"),
    methods=L(MethodSet)(ld=L(LD)()),
)
