"""CrossKD, Table 7, RetinaNet R101 to GFL R50, 1x: 40.2 -> 41.2 AP. Its config is not published;
these are the weights of RetinaNet."""

from detectron2.config import LazyCall as L

from dense_kd import CrossKD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("gfl/r50_1x.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("retinanet/mmdet_r101_2x.py"),
    methods=L(MethodSet)(crosskd=L(CrossKD)(depth=3, cls_weight=1.0, loc_weight=1.0)),
)
