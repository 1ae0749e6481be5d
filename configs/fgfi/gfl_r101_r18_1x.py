"""FGFI, a baseline of TID (Table 1), GFL R101 to R18, 1x: 28.2 -> 28.5 AP. Levels and weight are
those of LD's code (2 on the mean of each of five levels)."""

from detectron2.config import LazyCall as L

from dense_kd import FGFI, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("gfl/r18_1x.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("gfl/r101_2x_ms.py"),
    methods=L(MethodSet)(fgfi=L(FGFI)(weight=20.0, levels="each")),
)
