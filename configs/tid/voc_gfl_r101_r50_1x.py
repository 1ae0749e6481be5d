"""TID, Table 2, Pascal VOC, 1x: 76.4 -> 78.5 mAP. The paper does not say which detectors these are:
taken for the GFL R101 and R50 of its other experiments. Train the teacher's config first. The loss
is in units of the variance of the teacher's pyramid (ours): see TID."""

from detectron2.config import LazyCall as L

from dense_kd import TID, Distiller, MethodSet, Teacher, get_config

student = get_config("gfl/voc_r50_1x.py")
teacher = get_config("gfl/voc_r101_1x.py")

dataloader, optimizer, lr_multiplier, train = (
    student.dataloader,
    student.optimizer,
    student.lr_multiplier,
    student.train,
)
train.output_dir = "output/tid/voc_gfl_r101_r50_1x"

model = L(Distiller)(
    student=student.model,
    teacher=L(Teacher)(model=teacher.model, weights="output/gfl/voc_r101_1x/model_final.pth"),
    methods=L(MethodSet)(tid=L(TID)(weight=2.0, normalize="teacher_variance")),
)
