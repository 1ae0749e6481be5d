"""GI box from the teacher of the demo: the pyramid where the two detectors disagree."""

from detectron2.config import LazyCall as L

from dense_kd import Distiller, GIBox, MethodSet, get_config, known_teacher, recipe

student = get_config("quickstart/student.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("quickstart/teacher.py"),
    methods=L(MethodSet)(gibox=L(GIBox)()),
)
