"""FGD, RetinaNet R101 to R50, 2x (37.4 AP without it): a config of its code; we have no AP of
it."""

from detectron2.config import LazyCall as L

from dense_kd import FGD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("retinanet/mmdet_r50_2x.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
train.clip_grad = dict(max_norm=35.0, norm_type=2.0)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("retinanet/mmdet_r101_2x.py"),
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
