"""CrossKD, Table 8, RetinaNet R50 to MobileNetV2, 1x: 30.9 -> 34.1 AP. Its config is not published;
depth and weights are those of the other RetinaNets."""

from detectron2.config import LazyCall as L

from dense_kd import CrossKD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("retinanet/mmdet_mobilenetv2_1x.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("retinanet/mmdet_r50_1x.py"),
    methods=L(MethodSet)(crosskd=L(CrossKD)(depth=3, cls_weight=1.0, loc_weight=1.0)),
)
