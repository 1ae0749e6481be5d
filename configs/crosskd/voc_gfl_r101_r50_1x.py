"""CrossKD from a GFL R101 of the 80 classes of COCO to an R50 of the 20 of Pascal VOC, 12 epochs:
predictions of the teacher's head are compared with each other, so the classes may differ. We have
no AP of it."""

from detectron2.config import LazyCall as L

from dense_kd import CrossKD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("gfl/voc_r50_1x.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("gfl/r101_2x_ms.py"),
    methods=L(MethodSet)(crosskd=L(CrossKD)(depth=3, cls_weight=1.0, loc_weight=4.0)),
)
