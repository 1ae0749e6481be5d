"""BCKD and PKD from the teacher of the demo, whose weights set themselves: the gradient of
each is nine times that of detection."""

from detectron2.config import LazyCall as L

from dense_kd import BCKD, PKD, Balance, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("quickstart/student.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("quickstart/teacher.py"),
    methods=L(MethodSet)(bckd=L(BCKD)(), pkd=L(PKD)(), balance=L(Balance)(target=0.9)),
)
