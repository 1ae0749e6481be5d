"""CrossKD, RetinaNet R50 to R18, 1x: a config of its code that is in no table; we have no AP of
it."""

from detectron2.config import LazyCall as L

from dense_kd import CrossKD, Distiller, MethodSet, Teacher, get_config

student = get_config("retinanet/mmdet_p5_r18_1x.py")
teacher = get_config("retinanet/mmdet_r50_1x.py")

dataloader, optimizer, lr_multiplier, train = (
    student.dataloader,
    student.optimizer,
    student.lr_multiplier,
    student.train,
)
train.output_dir = "output/crosskd/retinanet_r50_r18_1x"

model = L(Distiller)(
    student=student.model,
    teacher=L(Teacher)(model=teacher.model, weights="mmdet://retinanet_r50_fpn_1x_coco"),
    methods=L(MethodSet)(crosskd=L(CrossKD)(depth=3, cls_weight=1.0, loc_weight=1.0)),
)
