"""LD on the head of the student, GFL R50 to R18, 1x: 35.8 -> 37.8 AP (CrossKD, Tables 1, 3 and 4).
Its weights are for 2 images per process: 8 x 2."""

from detectron2.config import LazyCall as L

from dense_kd import LD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("gfl/r18_1x.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("gfl/r50_1x.py"),
    methods=L(MethodSet)(ld=L(LD)()),
)
