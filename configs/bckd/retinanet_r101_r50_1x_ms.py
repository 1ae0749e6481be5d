"""BCKD, RetinaNet R101 (detectron2's zoo, 40.4 AP) to R50 (37.4 AP without a teacher), 1x, short
side 640 to 800: detectron2's recipe, in no table. We have no AP of it."""

from detectron2.config import LazyCall as L

from dense_kd import BCKD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("retinanet/r50_1x_ms.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("retinanet/r101_2x_ms.py"),
    methods=L(MethodSet)(bckd=L(BCKD)(cls_weight=1.0, loc_weight=4.0)),
)
