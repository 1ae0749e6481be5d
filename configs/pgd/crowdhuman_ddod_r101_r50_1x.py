"""PGD, Table 3, DDOD R101 to R50 on CrowdHuman, 1x: 88.0 -> 90.0 AP, MR 46.0 -> 42.8, JI 79.0 ->
80.7. Train the teacher's config first.

Corrected as `ddod_r101_r50_1x.py`, with four times the alpha of the released code, which is an
eightieth of that for COCO (the paper says nothing of it).
"""

from detectron2.config import LazyCall as L

from dense_kd import PGD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("ddod/crowdhuman_r50_1x.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("ddod/crowdhuman_r101_3x_ms.py"),
    methods=L(MethodSet)(pgd=L(PGD)(alpha=4 * 0.001, gamma=1.6 * 0.001, temperature=0.8, topk=30)),
    init_student=True,
    targets_from_teacher=True,
)
