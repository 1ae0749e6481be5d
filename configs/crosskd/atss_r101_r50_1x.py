"""CrossKD, Table 6, ATSS R101 to R50, 1x: 39.4 -> 41.8 AP. Released with 8 images per process and a
learning rate in proportion; this is the paper's batch of 16."""

from detectron2.config import LazyCall as L

from dense_kd import CrossKD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("atss/r50_1x.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("atss/r101_1x.py"),
    methods=L(MethodSet)(
        crosskd=L(CrossKD)(depth=3, cls_weight=1.0, loc_weight=1.0, quality_weight=1.0)
    ),
)
