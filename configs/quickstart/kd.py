"""Plain mimicking of the demo's teacher: the baseline of distill.py, in the same recipe."""

from detectron2.config import LazyCall as L

from dense_kd import KD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("quickstart/student.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("quickstart/teacher.py"),
    methods=L(MethodSet)(kd=L(KD)(cls_weight=1.0, loc_weight=1.0)),
)
