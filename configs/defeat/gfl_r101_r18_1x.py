"""DeFeat, a baseline of TID (Table 1), GFL R101 to R18, 1x: 28.2 -> 28.9 AP. The weights are those
that its author names for COCO."""

from detectron2.config import LazyCall as L

from dense_kd import DeFeat, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("gfl/r18_1x.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("gfl/r101_2x_ms.py"),
    methods=L(MethodSet)(defeat=L(DeFeat)(object_weight=4.0, background_weight=16.0)),
)
