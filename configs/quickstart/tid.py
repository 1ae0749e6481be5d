"""TID from a GFL that is twice as wide; train gfl_teacher.py first."""

from detectron2.config import LazyCall as L

from dense_kd import TID, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("quickstart/gfl.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("quickstart/gfl_teacher.py"),
    methods=L(MethodSet)(tid=L(TID)(weight=2.0, normalize="teacher_variance")),
)
