"""PKD, CrossKD, Table 8, RetinaNet R50 to MobileNetV2, 1x: 30.9 -> 33.2 AP (AP50 51.3, AP75 35.0,
small 16.5, medium 36.6, large 46.5). Weight and levels are those of PKD's RetinaNet; the paper does
not name them."""

from detectron2.config import LazyCall as L

from dense_kd import PKD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("retinanet/mmdet_mobilenetv2_1x.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("retinanet/mmdet_r50_1x.py"),
    methods=L(MethodSet)(pkd=L(PKD)(weight=10.0, omitted_levels=(-1,))),
)
