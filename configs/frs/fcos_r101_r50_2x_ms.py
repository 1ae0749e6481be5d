"""FRS, FCOS R101 to R50, 2x, short side 640 or 800: 38.5 -> 40.9 AP (by its authors)."""

from detectron2.config import LazyCall as L

from dense_kd import FRS, Distiller, MethodSet, Teacher, get_config

student = get_config("fcos/mmdet_r50_2x_ms.py")
teacher = get_config("fcos/mmdet_r101_2x_ms.py")

dataloader, optimizer, lr_multiplier, train = (
    student.dataloader,
    student.optimizer,
    student.lr_multiplier,
    student.train,
)
train.output_dir = "output/frs/fcos_r101_r50_2x_ms"

model = L(Distiller)(
    student=student.model,
    teacher=L(Teacher)(
        model=teacher.model, weights="mmdet://fcos_r101_caffe_fpn_gn-head_mstrain_640-800_2x_coco"
    ),
    methods=L(MethodSet)(frs=L(FRS)(feature_weight=0.01, cls_weight=0.05)),
)
