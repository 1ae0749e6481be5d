"""Two teachers in the demo: BCKD from that of distill.py, and PKD from a GFL, gfl_teacher.py, which
a method brings along. Train both first."""

from detectron2.config import LazyCall as L

from dense_kd import (
    BCKD,
    PKD,
    Distiller,
    FromTeacher,
    MethodSet,
    get_config,
    known_teacher,
    recipe,
)

student = get_config("quickstart/student.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("quickstart/teacher.py"),
    methods=L(MethodSet)(
        bckd=L(BCKD)(cls_weight=4.0, loc_weight=4.0),
        pkd=L(FromTeacher)(
            teacher=known_teacher("quickstart/gfl_teacher.py"), method=L(PKD)(weight=6.0)
        ),
    ),
)
