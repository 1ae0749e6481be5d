"""MGD from the teacher of the demo: its pyramid is generated from that of the student, in part."""

from detectron2.config import LazyCall as L

from dense_kd import MGD, Distiller, MethodSet, get_config, known_teacher, recipe

student = get_config("quickstart/student.py")
dataloader, optimizer, lr_multiplier, train = recipe(student, __file__)
model = L(Distiller)(
    student=student.model,
    teacher=known_teacher("quickstart/teacher.py"),
    # On COCO 2e-5. The loss is a sum of squares, and features here are large, of about 8 at P3.
    methods=L(MethodSet)(mgd=L(MGD)(weight=5e-6, masked_ratio=0.65)),
    init_student=True,
)
