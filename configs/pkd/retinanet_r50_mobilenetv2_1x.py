"""PKD, CrossKD, Table 8, RetinaNet R50 to MobileNetV2, 1x: 30.9 -> 33.2 AP (AP50 51.3, AP75 35.0,
small 16.5, medium 36.6, large 46.5). Weight and levels are those of PKD's RetinaNet; the paper does
not name them."""

from detectron2.config import LazyCall as L

from dense_kd import PKD, Distiller, MethodSet, Teacher, get_config

student = get_config("retinanet/mmdet_mobilenetv2_1x.py")
teacher = get_config("retinanet/mmdet_r50_1x.py")

dataloader, optimizer, lr_multiplier, train = (
    student.dataloader,
    student.optimizer,
    student.lr_multiplier,
    student.train,
)
train.output_dir = "output/pkd/retinanet_r50_mobilenetv2_1x"

model = L(Distiller)(
    student=student.model,
    teacher=L(Teacher)(model=teacher.model, weights="mmdet://retinanet_r50_fpn_1x_coco"),
    methods=L(MethodSet)(pkd=L(PKD)(weight=10.0, omitted_levels=(-1,))),
)
