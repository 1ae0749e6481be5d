"""FGD, GFL R101 to R50, 1x: 40.2 -> 43.5 AP (by its authors; CrossKD, Table 5, has 41.3)."""

from detectron2.config import LazyCall as L

from dense_kd import FGD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("gfl/r50_1x.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
train.clip_grad = dict(max_norm=35.0, norm_type=2.0)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("gfl/r101_2x_ms.py"),
    methods=L(MethodSet)(
        fgd=L(FGD)(
            fg_weight=1e-3,
            bg_weight=5e-4,
            attention_weight=5e-4,
            relation_weight=5e-6,
            temperature=0.5,
        )
    ),
    init_student=True,
)
