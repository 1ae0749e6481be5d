"""BCKD, Table 2, FCOS R101 to R50, 1x: 36.6 -> 39.2 AP. The paper does not name its weights for
FCOS; these are GFL's."""

from detectron2.config import LazyCall as L

from dense_kd import BCKD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("fcos/mmdet_r50_1x.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("fcos/mmdet_r101_2x_ms.py"),
    methods=L(MethodSet)(bckd=L(BCKD)(cls_weight=1.0, loc_weight=4.0)),
)
