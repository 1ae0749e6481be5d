"""BCKD, FCOS R101 to R50, 2x."""

from detectron2.config import LazyCall as L

from dense_kd import BCKD, Distiller, MethodSet, Teacher, get_config

student = get_config("fcos/r50_2x.py")
teacher = get_config("fcos/r101_2x.py")

dataloader, optimizer, lr_multiplier, train = (
    student.dataloader,
    student.optimizer,
    student.lr_multiplier,
    student.train,
)
train.output_dir = "output/bckd/fcos_r101_r50_2x"

model = L(Distiller)(
    student=student.model,
    teacher=L(Teacher)(
        model=teacher.model,
        weights="output/fcos/r101_2x/model_final.pth",
    ),
    methods=L(MethodSet)(bckd=L(BCKD)(cls_weight=1.0, loc_weight=4.0)),
)
