"""MGD, BCKD, Table 2, FCOS R101 to R50, 1x: 36.6 -> 39.6 AP. Weight and inheriting are those of
MGD's RetinaNet."""

from detectron2.config import LazyCall as L

from dense_kd import MGD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("fcos/mmdet_r50_1x.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("fcos/mmdet_r101_2x_ms.py"),
    methods=L(MethodSet)(mgd=L(MGD)(weight=2e-5, masked_ratio=0.65)),
    init_student=True,
)
