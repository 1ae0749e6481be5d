"""CrossKD + LD on the head of the student, CrossKD, Table 4, GFL R50 to R18, 1x: 35.8 -> 38.1 AP.
LD's weights are for 2 images per process: 8 x 2."""

from detectron2.config import LazyCall as L

from dense_kd import LD, CrossKD, Distiller, MethodSet, Teacher, get_config

student = get_config("gfl/r18_1x.py")
teacher = get_config("gfl/r50_1x.py")

dataloader, optimizer, lr_multiplier, train = (
    student.dataloader,
    student.optimizer,
    student.lr_multiplier,
    student.train,
)
train.output_dir = "output/crosskd_ld/gfl_r50_r18_1x"

model = L(Distiller)(
    student=student.model,
    teacher=L(Teacher)(model=teacher.model, weights="mmdet://gfl_r50_fpn_1x_coco"),
    methods=L(MethodSet)(crosskd=L(CrossKD)(depth=3, cls_weight=1.0, loc_weight=4.0), ld=L(LD)()),
)
