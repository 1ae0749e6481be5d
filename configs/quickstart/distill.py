"""BCKD from the teacher of the demo: the student's own recipe, and two more losses."""

from detectron2.config import LazyCall as L

from dense_kd import BCKD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("quickstart/student.py")
dataloader, optimizer, lr_multiplier, train = recipe(student)
train.output_dir = "output/quickstart/bckd"
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("quickstart/teacher.py"),
    methods=L(MethodSet)(bckd=L(BCKD)(cls_weight=4.0, loc_weight=4.0)),
)
