"""TID, Table 2, Pascal VOC, 1x: 76.4 -> 78.5 mAP. The paper does not say which detectors these are:
taken for the GFL R101 and R50 of its other experiments. Train the teacher's config first. The loss
is in units of the variance of the teacher's pyramid (ours): see TID."""

from detectron2.config import LazyCall as L

from dense_kd import TID, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("gfl/voc_r50_1x.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("gfl/voc_r101_1x.py"),
    methods=L(MethodSet)(tid=L(TID)(weight=2.0, normalize="teacher_variance")),
)
