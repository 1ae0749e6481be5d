"""CrossKD, RetinaNet R50 to R18, 1x: a config of its code that is in no table; we have no AP of
it."""

from detectron2.config import LazyCall as L

from dense_kd import CrossKD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("retinanet/mmdet_p5_r18_1x.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("retinanet/mmdet_r50_1x.py"),
    methods=L(MethodSet)(crosskd=L(CrossKD)(depth=3, cls_weight=1.0, loc_weight=1.0)),
)
