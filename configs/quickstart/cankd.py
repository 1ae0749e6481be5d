"""CanKD from the teacher of the demo: cells of the student attend to all cells of the teacher."""

from detectron2.config import LazyCall as L

from dense_kd import CanKD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("quickstart/student.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("quickstart/teacher.py"),
    methods=L(MethodSet)(cankd=L(CanKD)(weight=10.0)),
)
