"""CanKD on BCCD from GFL with EfficientNet-Lite2 (gfl_lite2.py, to be trained first): the
recipe of gfl_r18.py, and one more loss."""

from detectron2.config import LazyCall as L

from dense_kd import CanKD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("bccd/gfl_r18.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("bccd/gfl_lite2.py"),
    methods=L(MethodSet)(cankd=L(CanKD)(weight=10.0)),
)
