"""MGD, BCKD, Table 2, FCOS R101 to R50, 1x: 36.6 -> 39.6 AP. Weight and inheriting are those of
MGD's RetinaNet."""

from detectron2.config import LazyCall as L

from dense_kd import MGD, Distiller, MethodSet, Teacher, get_config

student = get_config("fcos/mmdet_r50_1x.py")
teacher = get_config("fcos/mmdet_r101_2x_ms.py")

dataloader, optimizer, lr_multiplier, train = (
    student.dataloader,
    student.optimizer,
    student.lr_multiplier,
    student.train,
)
train.output_dir = "output/mgd/fcos_r101_r50_1x"

model = L(Distiller)(
    student=student.model,
    teacher=L(Teacher)(
        model=teacher.model, weights="mmdet://fcos_r101_caffe_fpn_gn-head_mstrain_640-800_2x_coco"
    ),
    methods=L(MethodSet)(mgd=L(MGD)(weight=2e-5, masked_ratio=0.65)),
    init_student=True,
)
