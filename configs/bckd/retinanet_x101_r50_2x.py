"""BCKD, RetinaNet X101-64x4d to R50, 2x (37.4 AP without it): twice as long as in Table 2. We have
no AP of it."""

from detectron2.config import LazyCall as L

from dense_kd import BCKD, Distiller, MethodSet, Teacher, get_config

student = get_config("retinanet/mmdet_r50_2x.py")
teacher = get_config("retinanet/mmdet_x101_1x.py")

dataloader, optimizer, lr_multiplier, train = (
    student.dataloader,
    student.optimizer,
    student.lr_multiplier,
    student.train,
)
train.output_dir = "output/bckd/retinanet_x101_r50_2x"

model = L(Distiller)(
    student=student.model,
    teacher=L(Teacher)(model=teacher.model, weights="mmdet://retinanet_x101_64x4d_fpn_1x_coco"),
    methods=L(MethodSet)(bckd=L(BCKD)(cls_weight=1.0, loc_weight=4.0)),
)
