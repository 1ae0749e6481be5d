"""CrossKD, Table 8, RetinaNet R50 to MobileNetV2, 1x: 30.9 -> 34.1 AP. Its config is not published;
depth and weights are those of the other RetinaNets."""

from detectron2.config import LazyCall as L

from dense_kd import CrossKD, Distiller, MethodSet, Teacher, get_config

student = get_config("retinanet/mmdet_mobilenetv2_1x.py")
teacher = get_config("retinanet/mmdet_r50_1x.py")

dataloader, optimizer, lr_multiplier, train = (
    student.dataloader,
    student.optimizer,
    student.lr_multiplier,
    student.train,
)
train.output_dir = "output/crosskd/retinanet_r50_mobilenetv2_1x"

model = L(Distiller)(
    student=student.model,
    teacher=L(Teacher)(model=teacher.model, weights="mmdet://retinanet_r50_fpn_1x_coco"),
    methods=L(MethodSet)(crosskd=L(CrossKD)(depth=3, cls_weight=1.0, loc_weight=1.0)),
)
