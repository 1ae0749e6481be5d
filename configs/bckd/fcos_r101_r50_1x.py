"""BCKD, Table 2, FCOS R101 to R50, 1x: 36.6 -> 39.2 AP. The paper does not name its weights for
FCOS; these are GFL's."""

from detectron2.config import LazyCall as L

from dense_kd import BCKD, Distiller, MethodSet, Teacher, get_config

student = get_config("fcos/mmdet_r50_1x.py")
teacher = get_config("fcos/mmdet_r101_2x_ms.py")

dataloader, optimizer, lr_multiplier, train = (
    student.dataloader,
    student.optimizer,
    student.lr_multiplier,
    student.train,
)
train.output_dir = "output/bckd/fcos_r101_r50_1x"

model = L(Distiller)(
    student=student.model,
    teacher=L(Teacher)(
        model=teacher.model, weights="mmdet://fcos_r101_caffe_fpn_gn-head_mstrain_640-800_2x_coco"
    ),
    methods=L(MethodSet)(bckd=L(BCKD)(cls_weight=1.0, loc_weight=4.0)),
)
