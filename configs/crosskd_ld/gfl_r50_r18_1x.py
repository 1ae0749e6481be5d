"""CrossKD + LD on the head of the student, CrossKD, Table 4, GFL R50 to R18, 1x: 35.8 -> 38.1 AP.
LD's weights are for 2 images per process: 8 x 2."""

from detectron2.config import LazyCall as L

from dense_kd import LD, CrossKD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("gfl/r18_1x.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("gfl/r50_1x.py"),
    methods=L(MethodSet)(crosskd=L(CrossKD)(depth=3, cls_weight=1.0, loc_weight=4.0), ld=L(LD)()),
)
