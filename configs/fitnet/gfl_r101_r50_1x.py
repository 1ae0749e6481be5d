"""FitNet, a baseline of CrossKD (Table 5), GFL R101 to R50, 1x: 40.2 -> 40.7 AP. TID (Table 1) has
40.0 -> 41.2 AP."""

from detectron2.config import LazyCall as L

from dense_kd import Distiller, FitNet, MethodSet, get_config, known_teacher, recipe

student = get_config("gfl/r50_1x.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("gfl/r101_2x_ms.py"),
    methods=L(MethodSet)(fitnet=L(FitNet)(weight=2.0)),
)
