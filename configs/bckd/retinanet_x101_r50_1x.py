"""BCKD, Table 2, RetinaNet X101-64x4d to R50, 1x: 36.5 -> 39.2 AP. The paper does not name its
weights for RetinaNet; these are GFL's."""

from detectron2.config import LazyCall as L

from dense_kd import BCKD, Distiller, MethodSet, Teacher, get_config

student = get_config("retinanet/mmdet_r50_1x.py")
teacher = get_config("retinanet/mmdet_x101_1x.py")

dataloader, optimizer, lr_multiplier, train = (
    student.dataloader,
    student.optimizer,
    student.lr_multiplier,
    student.train,
)
train.output_dir = "output/bckd/retinanet_x101_r50_1x"

model = L(Distiller)(
    student=student.model,
    teacher=L(Teacher)(model=teacher.model, weights="mmdet://retinanet_x101_64x4d_fpn_1x_coco"),
    methods=L(MethodSet)(bckd=L(BCKD)(cls_weight=1.0, loc_weight=4.0)),
)
