"""BCKD on BCCD from GFL with EfficientNet-Lite2 (gfl_lite2_full.py, to be trained first): the
recipe of gfl_lite0_full.py, and two more losses."""

from detectron2.config import LazyCall as L

from dense_kd import BCKD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("bccd/gfl_lite0_full.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("bccd/gfl_lite2_full.py"),
    methods=L(MethodSet)(bckd=L(BCKD)(cls_weight=1.0, loc_weight=4.0)),
)
