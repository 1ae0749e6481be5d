"""PGD (corrected, with the released alpha of FCOS) from the teacher of the demo, whose FPN and head
the student starts with."""

from detectron2.config import LazyCall as L

from dense_kd import PGD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("quickstart/student.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("quickstart/teacher.py"),
    methods=L(MethodSet)(pgd=L(PGD)(alpha=0.04)),
    init_student=True,
)
