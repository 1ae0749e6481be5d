"""Two teachers on BCCD: BCKD from a GFL, gfl_lite2.py, and PKD from an FCOS, fcos_lite2.py, which a
method brings along. Train both first. Otherwise bckd_gfl_lite2_r18.py."""

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

student = get_config("bccd/gfl_r18.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("bccd/gfl_lite2.py"),
    methods=L(MethodSet)(
        bckd=L(BCKD)(cls_weight=1.0, loc_weight=4.0),
        pkd=L(FromTeacher)(teacher=known_teacher("bccd/fcos_lite2.py"), method=L(PKD)(weight=6.0)),
    ),
)
