"""PKD, CrossKD, Table 5, GFL R101 to R50, 1x: 40.2 -> 43.3 AP. The weight is that of CrossKD + PKD;
the paper does not name it."""

from detectron2.config import LazyCall as L

from dense_kd import PKD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("gfl/r50_1x.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("gfl/r101_2x_ms.py"),
    methods=L(MethodSet)(pkd=L(PKD)(weight=6.0)),
)
