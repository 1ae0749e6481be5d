"""PKD, BCKD, Table 2, FCOS R101 to R50, 1x: 36.6 -> 39.9 AP. Weight and levels are those of PKD's
RetinaNet."""

from detectron2.config import LazyCall as L

from dense_kd import PKD, Distiller, MethodSet, Teacher, get_config

student = get_config("fcos/mmdet_r50_1x.py")
teacher = get_config("fcos/mmdet_r101_2x_ms.py")

dataloader, optimizer, lr_multiplier, train = (
    student.dataloader,
    student.optimizer,
    student.lr_multiplier,
    student.train,
)
train.output_dir = "output/pkd/fcos_r101_r50_1x"

model = L(Distiller)(
    student=student.model,
    teacher=L(Teacher)(
        model=teacher.model, weights="mmdet://fcos_r101_caffe_fpn_gn-head_mstrain_640-800_2x_coco"
    ),
    methods=L(MethodSet)(pkd=L(PKD)(weight=10.0, omitted_levels=(-1,))),
)
