"""CrossKD, Table 5, GFL R101 to R50, 1x: 40.2 -> 43.7 AP."""

from detectron2.config import LazyCall as L

from dense_kd import CrossKD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("gfl/r50_1x.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("gfl/r101_2x_ms.py"),
    methods=L(MethodSet)(crosskd=L(CrossKD)(depth=3, cls_weight=1.0, loc_weight=4.0)),
)
