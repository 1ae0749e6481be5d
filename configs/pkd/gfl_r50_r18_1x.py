"""PKD on the pyramid, CrossKD, Table 2, GFL R50 to R18, 1x: 35.8 -> 38.0 AP. The weight is that of
CrossKD + PKD; the paper does not name it."""

from detectron2.config import LazyCall as L

from dense_kd import PKD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("gfl/r18_1x.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("gfl/r50_1x.py"),
    methods=L(MethodSet)(pkd=L(PKD)(weight=6.0)),
)
