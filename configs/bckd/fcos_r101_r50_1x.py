"""BCKD, FCOS R101 to R50, 1x. The paper's Table 2 (36.6 -> 39.2 AP) is of the plain FCOS."""

from detectron2.config import LazyCall as L

from dense_kd import BCKD, Distiller, MethodSet, Teacher, get_config

student = get_config("fcos/r50_1x.py")
teacher = get_config("fcos/r101_2x.py")

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
        model=teacher.model,
        weights="output/fcos/r101_2x/model_final.pth",
    ),
    methods=L(MethodSet)(bckd=L(BCKD)(cls_weight=1.0, loc_weight=4.0)),
)
