"""FRS, GFL R101 to R50, 1x: 40.2 -> 43.6 AP (by its authors)."""

from detectron2.config import LazyCall as L

from dense_kd import FRS, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("gfl/r50_1x.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("gfl/r101_2x_ms.py"),
    methods=L(MethodSet)(frs=L(FRS)(feature_weight=0.1, cls_weight=0.05)),
)
