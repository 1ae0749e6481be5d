"""CrossKD from the teacher of the demo: of the two blocks of its towers, the second is reused."""

from detectron2.config import LazyCall as L

from dense_kd import CrossKD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("quickstart/student.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("quickstart/teacher.py"),
    methods=L(MethodSet)(crosskd=L(CrossKD)(depth=1, cls_weight=1.0, loc_weight=1.0)),
)
