"""FGD from the teacher of the demo: objects, background and relations of its pyramid."""

from detectron2.config import LazyCall as L

from dense_kd import FGD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("quickstart/student.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("quickstart/teacher.py"),
    # Features here are large, of about 8 at P3, so the temperature is higher than the published
    # one, and the weights of the terms that are sums of squares are lower.
    methods=L(MethodSet)(
        fgd=L(FGD)(
            fg_weight=1.6e-5,
            bg_weight=8e-6,
            attention_weight=8e-4,
            relation_weight=2e-6,
            temperature=8.0,
        )
    ),
    init_student=True,
)
