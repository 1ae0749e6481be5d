"""BCKD on BCCD as in bckd_fcos_lite2_r18.py, with a weight that sets itself: 90 % of the
gradient."""

from detectron2.config import LazyCall as L

from dense_kd import BCKD, Balance, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("bccd/fcos_r18.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("bccd/fcos_lite2.py"),
    methods=L(MethodSet)(bckd=L(BCKD)(), balance=L(Balance)(target=0.9)),
)
