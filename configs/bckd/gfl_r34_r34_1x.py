"""BCKD, Table 6, self-distillation of GFL R34, 1x: 38.9 -> 39.4 AP. The zoo has no R34: train
gfl/r34_1x.py first."""

from detectron2.config import LazyCall as L

from dense_kd import BCKD, Distiller, MethodSet, Teacher, get_config

student = get_config("gfl/r34_1x.py")
teacher = get_config("gfl/r34_1x.py")

dataloader, optimizer, lr_multiplier, train = (
    student.dataloader,
    student.optimizer,
    student.lr_multiplier,
    student.train,
)
train.output_dir = "output/bckd/gfl_r34_r34_1x"

model = L(Distiller)(
    student=student.model,
    teacher=L(Teacher)(model=teacher.model, weights="output/gfl/r34_1x/model_final.pth"),
    methods=L(MethodSet)(bckd=L(BCKD)(cls_weight=1.0, loc_weight=4.0)),
)
