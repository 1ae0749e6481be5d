"""CrossKD, Table 7, RetinaNet R101 to GFL R50, 1x: 40.2 -> 41.2 AP. Its config is not published;
these are the weights of RetinaNet."""

from detectron2.config import LazyCall as L

from dense_kd import CrossKD, Distiller, MethodSet, Teacher, get_config

student = get_config("gfl/r50_1x.py")
teacher = get_config("retinanet/mmdet_r101_2x.py")

dataloader, optimizer, lr_multiplier, train = (
    student.dataloader,
    student.optimizer,
    student.lr_multiplier,
    student.train,
)
train.output_dir = "output/crosskd/gfl_retinanet_r101_r50_1x"

model = L(Distiller)(
    student=student.model,
    teacher=L(Teacher)(model=teacher.model, weights="mmdet://retinanet_r101_fpn_2x_coco"),
    methods=L(MethodSet)(crosskd=L(CrossKD)(depth=3, cls_weight=1.0, loc_weight=1.0)),
)
